"""What recording costs the server: tokens per second with and without, in turns."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from scenarios.workload import SCRIPTS, server_command, serving

from benchmarks.figures import ratio, spread

PAIRS = 6
REQUEST_S = 20


def bench_tokens(model: Path) -> None:
    """Ratio of tokens per second, recorded to unrecorded, in alternating runs of one server."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with serving(server_command(model, "--threads", "2"), log) as server:
            _tokens_per_s(server.url)  # warm up
            recorder = Recorder(server.pid, Path(folder))
            pairs = []
            for turn in range(PAIRS):
                rates = {}
                for recorded in (True, False) if turn % 2 else (False, True):
                    with recorder if recorded else contextlib.nullcontext():
                        rates[recorded] = _tokens_per_s(server.url)
                pairs.append((rates[True], rates[False]))
    print("tokens/s unrecorded            ", spread([each[1] for each in pairs], "tokens/s", 1))
    print("tokens/s recorded / unrecorded ", ratio(pairs))
    print("recorder CPU while recording   ", spread(recorder.cpu_percent, "% of one CPU"))


def _tokens_per_s(url: str) -> float:
    command = [sys.executable, str(SCRIPTS / "ask-model"), "--url", url, "--json"]
    done = subprocess.run(
        [*command, "--seconds", str(REQUEST_S)], check=True, capture_output=True, text=True
    )
    return float(json.loads(done.stdout)["decode_tokens_per_second"])


class Recorder:
    """A recording of the server for as long as a block runs, from after its start-up on."""

    def __init__(self, pid: int, folder: Path, *options: str) -> None:
        self.trace = folder / "trace.arrow"
        arguments = ["record", "-p", str(pid), "-o", str(self.trace), "--force", "--json"]
        self.command = [sys.executable, "-m", "numatrace", *arguments, *options]
        self.cpu_percent: list[float] = []
        self.summary: dict[str, Any] = {}
        """Of the recording that ended last."""

    def __enter__(self) -> None:
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr
        self.process.stderr.readline()  # "recording process ...": attached

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.summary = json.loads(self.process.communicate(timeout=90)[0])
        share = self.summary["recording_cpu_s"] / self.summary["status"]["elapsed_s"]
        self.cpu_percent.append(100 * share)
