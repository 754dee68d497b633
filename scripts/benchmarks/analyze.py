"""What analysis costs: seconds and peak memory by the size of the trace."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.figures import spread
from benchmarks.long_trace import LongTrace

MEGABYTES = (10, 30, 100)
RUNS = 3


class Cost(NamedTuple):
    """Of one run of `numatrace analyze`, its start included."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def bench_analyze() -> None:
    """Analyze traces of a busy server that differ in length only."""
    for megabytes in MEGABYTES:
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder) / "trace.arrow"
            rows, seconds = LongTrace(trace).write(megabytes)
            costs = [_analyze(trace) for _ in range(RUNS)]
        rates = [rows / cost.cpu_s / 1e6 for cost in costs]
        print(f"analyze {megabytes} MB: {rows:,} rows, {seconds} s of recording")
        print("  seconds                      ", spread([cost.wall_s for cost in costs], "s", 1))
        print("  CPU, user and system         ", spread([cost.cpu_s for cost in costs], "s", 1))
        print("  peak resident memory         ", spread([c.peak_mib for c in costs], "MiB", 0))
        print("  rows per second of CPU       ", spread(rates, "million"))


def _analyze(trace: Path) -> Cost:
    command = [sys.executable, "-m", "numatrace", "analyze", str(trace), "--json"]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    wall_s, cpu_s = time.monotonic() - began, usage.ru_utime + usage.ru_stime
    return Cost(wall_s, cpu_s, usage.ru_maxrss / 1024)
