"""What access samples cost the server: tokens per second in turns, CPU per sample; perf beside."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
from pyarrow import ipc
from scenarios.workload import SCRIPTS, Server, server_command, serving

from benchmarks.figures import ratio, spread, trimmed_ratio
from benchmarks.quiet import Moment
from benchmarks.tokens import Recorder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

ROUNDS = 12
PIECES, PIECE_S = 10, 0.6
"""A mode's turn in a round: so many measurements, of so long each."""
FIRST_S, WARM_S = 5.0, 0.5
"""Served before that: told apart for what records, which begins with what it does once (it reads
the model's table, it decodes code that is new to it); only a warm-up for the others."""
QUIET = 0.03
"""Of the machine: what others may use in a quiet piece. The server's threads wait for each other
at every operation, so that a tenth of a CPU taken from one costs it half its speed and more."""
TOKENS = 32
REGISTERS = "ax,bx,cx,dx,si,di,bp,sp,ip,flags,r8,r9,r10,r11,r12,r13,r14,r15"
ORDERS = ((0, 1, 3, 2), (1, 2, 0, 3), (2, 3, 1, 0), (3, 0, 2, 1))
"""Each mode at each place, and after each other one, equally often (a Williams square)."""


@dataclass
class Mode:
    """A way to record, or not to: what came of it, round by round."""

    name: str
    context: AbstractContextManager[None]
    records: bool = False
    pieces: list[list[tuple[float, float]]] = field(default_factory=list)
    """Tokens per second and the share of the machine that others used."""
    first_rates: list[float] = field(default_factory=list)
    """Tokens per second in the first seconds after attach."""
    cpu_percent: list[float] = field(default_factory=list)
    """Of one CPU, that recording took after that."""
    helper_percent: list[float] = field(default_factory=list)
    """Of one CPU, that a helper took meanwhile which gives way to everybody."""

    def rates(self, most: float) -> list[float | None]:
        """Tokens per second of each round, over the pieces in which others used no more."""
        quiet = [[rate for rate, others in each if others <= most] for each in self.pieces]
        return [statistics.harmonic_mean(rates) if rates else None for rates in quiet]

    @property
    def pids(self) -> list[int]:
        """The process that records."""
        process = getattr(self.context, "process", None)
        return [] if process is None else [process.pid]


class Client:
    """Asks the server, for about as long as is wanted."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.tokens_per_s = self._ask(4)

    def ask(self, seconds: float) -> float:
        """Tokens per second of the server's own clock, over equal requests."""
        self.tokens_per_s = self._ask(max(1, round(seconds * self.tokens_per_s / TOKENS)))
        return self.tokens_per_s

    def _ask(self, requests: int) -> float:
        command = [sys.executable, str(SCRIPTS / "ask-model"), "--url", self.server.url, "--json"]
        text = _output(*command, "--tokens", str(TOKENS), "--requests", str(requests))
        return float(json.loads(text)["decode_tokens_per_second"])


class Perf:
    """`perf record` of the server's CPU clock, with addresses and registers, for a block."""

    def __init__(self, pid: int, folder: Path) -> None:
        self.pid = pid
        self.data = folder / "perf.data"
        self.period_ns = 5_000_000
        self.cpu_percent: list[float] = []
        self.samples_per_s: list[float] = []
        self.cpu_us: list[float] = []

    def __enter__(self) -> None:
        self.process = subprocess.Popen(
            [
                *("perf", "record", "-q", "-e", "cpu-clock", "-c", str(self.period_ns), "-d"),
                *(f"--user-regs={REGISTERS}", "-p", str(self.pid), "-o", str(self.data)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        elapsed_s = time.monotonic() - self.began
        self.process.send_signal(signal.SIGINT)
        _pid, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        cpu_s = usage.ru_utime + usage.ru_stime
        lines = _output("perf", "script", "-i", str(self.data), "-F", "tid").count("\n")
        self.cpu_percent.append(100 * cpu_s / elapsed_s)
        self.samples_per_s.append(lines / elapsed_s)
        self.cpu_us.append(1e6 * cpu_s / max(1, lines))


class Sampling(Recorder):
    """A recording at its defaults: besides, samples and the periods chosen."""

    def __init__(self, pid: int, folder: Path, *options: str) -> None:
        super().__init__(pid, folder, *options)
        self.samples_per_s: list[float] = []
        self.found_percent: list[float] = []
        self.period_ns = 0
        self.costs: dict[str, Any] = {}

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        table = ipc.open_file(self.trace).read_all()
        kinds = table["kind"].cast("string")
        samples = table.filter(pc.equal(kinds, "access"))
        elapsed_s = self.summary["status"]["elapsed_s"]
        self.samples_per_s.append(samples.num_rows / elapsed_s)
        found = pc.sum(pc.is_valid(samples["addr"])).as_py() or 0
        self.found_percent.append(100 * found / max(1, samples.num_rows))
        rates = table.filter(pc.equal(kinds, "rate")).select(["time_ns", "value"]).to_pylist()
        if rates:
            self.period_ns = rates[-1]["time_ns"]
            self.costs = json.loads(rates[-1]["value"] or "{}")


def bench_access(model: Path, rounds: int = ROUNDS, minutes: float = math.inf) -> None:
    """Tokens per second: unrecorded, without and with access samples, and under perf, in turns.

    No round begins after so many minutes.
    """
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving(server_command(model, "--threads", "2"), folder / "server.log") as server:
            client = Client(server)
            plain = Recorder(server.pid, folder, "--no-access")
            sampling = Sampling(server.pid, folder)
            perf = Perf(server.pid, folder)
            modes = [
                Mode("unrecorded", contextlib.nullcontext()),
                Mode("without access samples", plain, records=True),
                Mode("at defaults", sampling, records=True),
                Mode("perf record", perf),
            ]
            for number in range(rounds):
                if number and time.monotonic() > end:
                    print(f"({number} of {rounds} rounds: the time is up)")
                    break
                for place in ORDERS[number % len(ORDERS)]:
                    _turn(modes[place], client)
                # perf is to take as many samples: numatrace chooses its rate by what it costs.
                perf.period_ns = sampling.period_ns or perf.period_ns
    _tell(modes, plain, sampling, perf)


def _turn(mode: Mode, client: Client) -> None:
    with mode.context:
        mode.first_rates.append(client.ask(FIRST_S if mode.records else WARM_S))
        began = Moment.now(mode.pids)
        mode.pieces.append([_piece(mode, client) for _ in range(PIECES)])
        ended = Moment.now(mode.pids)
        mode.cpu_percent.append(100 * began.used_by(ended))
        mode.helper_percent.append(100 * began.used_by_helpers(ended))


def _piece(mode: Mode, client: Client) -> tuple[float, float]:
    before = Moment.now([client.server.pid, *mode.pids])
    rate = client.ask(PIECE_S)
    return rate, before.others(Moment.now([client.server.pid, *mode.pids]))


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _tell(modes: Sequence[Mode], plain: Recorder, sampling: Sampling, perf: Perf) -> None:
    unrecorded, without, defaults, under_perf = modes
    others = [100 * share for mode in modes for each in mode.pieces for _, share in each]
    quiet = sum(share <= 100 * QUIET for share in others)
    all_rates = [rate for rate in unrecorded.rates(1.0) if rate is not None]
    rows = [
        ("used by others during a piece", spread(others, "% of the machine", 1)),
        ("quiet pieces", f"{quiet} of {len(others)}"),
        ("tokens/s unrecorded", spread(all_rates, "tokens/s", 1)),
        *_ratios("without access samples / unrecorded", without, unrecorded),
        *_ratios("at defaults / unrecorded", defaults, unrecorded),
        *_ratios("at defaults / without access samples", defaults, without),
        *_ratios("perf record / unrecorded", under_perf, unrecorded),
        (f"the first {FIRST_S:.0f} s at defaults / unrecorded", _first(defaults, unrecorded)),
        ("samples per second, numatrace", spread(sampling.samples_per_s, "/s", 0)),
        ("samples per second, perf", spread(perf.samples_per_s, "/s", 0)),
        ("samples with an address", spread(sampling.found_percent, "%", 1)),
        (f"recorder CPU without samples, after {FIRST_S:.0f} s", _cpu(without)),
        (f"recorder CPU at defaults, after {FIRST_S:.0f} s", _cpu(defaults)),
        ("its helper's meanwhile, of lowest priority", _percent(defaults.helper_percent)),
        ("perf's CPU meanwhile", _cpu(under_perf)),
        ("recorder CPU of all, start and end included", _percent(sampling.cpu_percent)),
        ("perf's CPU of all, start and end included", _percent(perf.cpu_percent)),
        ("recorder CPU for a sample", _per_sample(without, defaults, sampling)),
        ("perf's CPU for a sample, start and end included", spread(perf.cpu_us, "us", 0)),
        ("period chosen", f"{sampling.period_ns / 1e6:.2f} ms"),
        ("costs that numatrace measured", json.dumps(sampling.costs)),
    ]
    for name, text in rows:
        print(f"{name:<52}{text}")


def _ratios(name: str, one: Mode, other: Mode) -> list[tuple[str, str]]:
    """Of the quiet pieces, and of all."""
    rows = []
    for label, most in (("quiet pieces", QUIET), ("all", 1.0)):
        rates = zip(one.rates(most), other.rates(most), strict=True)
        pairs = [(a, b) for a, b in rates if a is not None and b is not None]
        text = f"{ratio(pairs)}; {trimmed_ratio(pairs)}" if len(pairs) > 2 else "too few pairs"
        rows.append((f"{name}, {label}", text))
    return rows


def _first(defaults: Mode, unrecorded: Mode) -> str:
    rates = zip(defaults.first_rates, unrecorded.rates(1.0), strict=True)
    pairs = [(a, b) for a, b in rates if b is not None]
    return trimmed_ratio(pairs)


def _cpu(mode: Mode) -> str:
    return _percent(mode.cpu_percent)


def _percent(values: Sequence[float]) -> str:
    return spread(values, "% of one CPU")


def _per_sample(without: Mode, defaults: Mode, sampling: Sampling) -> str:
    """What the recorder used more than without samples, by the samples that it took."""
    more = statistics.median(defaults.cpu_percent) - statistics.median(without.cpu_percent)
    return f"{more / 100 / statistics.median(sampling.samples_per_s) * 1e6:.1f} us"
