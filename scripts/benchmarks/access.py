"""What access samples cost the server: tokens per second in turns, CPU per sample; perf beside."""

from __future__ import annotations

import contextlib
import json
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
from benchmarks.tokens import Recorder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

ROUNDS = 12
SEGMENT_S = 4.0
SETTLE_S = 2.0
"""Served after attach, not counted: the model's table is read, the budget finds its period."""
TOKENS = 32
REGISTERS = "ax,bx,cx,dx,si,di,bp,sp,ip,flags,r8,r9,r10,r11,r12,r13,r14,r15"
ORDERS = ((0, 1, 3, 2), (1, 2, 0, 3), (2, 3, 1, 0), (3, 0, 2, 1))
"""Each mode at each place, and after each other one, equally often (a Williams square)."""


@dataclass
class Mode:
    """A way to record, or not to: its rates round by round, and what it took."""

    name: str
    context: AbstractContextManager[None]
    rates: list[float] = field(default_factory=list)


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
        _, status, usage = os.wait4(self.process.pid, 0)
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


def bench_access(model: Path, rounds: int = ROUNDS) -> None:
    """Tokens per second: unrecorded, without and with access samples, and under perf, in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving(server_command(model, "--threads", "2"), folder / "server.log") as server:
            requests = _requests(server)
            plain = Recorder(server.pid, folder, "--no-access")
            sampling = Sampling(server.pid, folder)
            perf = Perf(server.pid, folder)
            modes = [
                Mode("unrecorded", contextlib.nullcontext()),
                Mode("without access samples", plain),
                Mode("at defaults", sampling),
                Mode("perf record", perf),
            ]
            for number in range(rounds):
                for place in ORDERS[number % len(ORDERS)]:
                    _segment(modes[place], server, requests)
                # perf is to take as many samples: numatrace chooses its rate by what it costs.
                perf.period_ns = sampling.period_ns or perf.period_ns
    _tell(modes, plain, sampling, perf)


def _segment(mode: Mode, server: Server, requests: int) -> None:
    with mode.context:
        _ask(server, round(requests * SETTLE_S / SEGMENT_S) or 1)
        mode.rates.append(_ask(server, requests))


def _requests(server: Server) -> int:
    """How many requests take as long as a segment is to be."""
    _ask(server, 4)
    return max(1, round(SEGMENT_S * _ask(server, 20) / TOKENS))


def _ask(server: Server, requests: int) -> float:
    """Tokens per second of the server's own clock, over this many equal requests."""
    command = [sys.executable, str(SCRIPTS / "ask-model"), "--url", server.url, "--json"]
    text = _output(*command, "--tokens", str(TOKENS), "--requests", str(requests))
    return float(json.loads(text)["decode_tokens_per_second"])


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _tell(modes: Sequence[Mode], plain: Recorder, sampling: Sampling, perf: Perf) -> None:
    unrecorded, without, defaults, under_perf = modes
    rows = [
        ("tokens/s unrecorded", spread(unrecorded.rates, "tokens/s", 1)),
        *_ratios("without access samples / unrecorded", without, unrecorded),
        *_ratios("at defaults / unrecorded", defaults, unrecorded),
        *_ratios("at defaults / without access samples", defaults, without),
        *_ratios("perf record / unrecorded", under_perf, unrecorded),
        ("samples per second, numatrace", spread(sampling.samples_per_s, "/s", 0)),
        ("samples per second, perf", spread(perf.samples_per_s, "/s", 0)),
        ("samples with an address", spread(sampling.found_percent, "%", 1)),
        ("recorder CPU without access samples", spread(plain.cpu_percent, "% of one CPU")),
        ("recorder CPU at defaults", spread(sampling.cpu_percent, "% of one CPU")),
        ("perf's CPU, its start and end included", spread(perf.cpu_percent, "% of one CPU")),
        ("recorder CPU for a sample", _per_sample(plain, sampling)),
        ("perf's CPU for a sample", spread(perf.cpu_us, "us", 0)),
        ("period chosen", f"{sampling.period_ns / 1e6:.2f} ms"),
        ("costs that numatrace measured", json.dumps(sampling.costs)),
    ]
    for name, text in rows:
        print(f"{name:<48}{text}")


def _ratios(name: str, one: Mode, other: Mode) -> list[tuple[str, str]]:
    pairs = list(zip(one.rates, other.rates, strict=True))
    return [(f"tokens/s {name}", ratio(pairs)), ("", trimmed_ratio(pairs))]


def _per_sample(plain: Recorder, sampling: Sampling) -> str:
    """What the recorder used more than without samples, by the samples that it took."""
    more = statistics.median(sampling.cpu_percent) - statistics.median(plain.cpu_percent)
    return f"{more / 100 / statistics.median(sampling.samples_per_s) * 1e6:.1f} us"
