"""What the recorder costs: start-up, CPU per event, bytes per event, memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pyarrow import compute, ipc

from benchmarks.figures import spread
from numatrace.record.bpf.stimulus import Stimulus
from numatrace.record.options import Options
from numatrace.record.session import Session

if TYPE_CHECKING:
    from numatrace.record.summary import Summary

RUNS = 5
STORM_TOUCHES = 300
STORM_PAGES = 2000


def bench_start() -> None:
    """Seconds from the start of the program to its first event, and its peak memory."""
    seconds, peaks = [], []
    for _ in range(RUNS):
        with Stimulus() as stimulus, tempfile.TemporaryDirectory() as folder:
            trace = Path(folder) / "trace.arrow"
            command = ["record", "-p", str(stimulus.pid), "-d", "1", "-o", str(trace), "--json"]
            begun_ns = time.monotonic_ns()
            process = subprocess.Popen(
                [sys.executable, "-m", "numatrace", *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            while process.poll() is None:
                stimulus.touch(1)
                time.sleep(0.001)
            assert process.stdout
            peaks.append(json.loads(process.stdout.read())["recorder_peak_bytes"] / 2**20)
            seconds.append((_first_fault_ns(trace) - begun_ns) / 1e9)
    print("program start to first event   ", spread(seconds, "s"))
    print("peak resident memory           ", spread(peaks, "MiB", 0))


def _first_fault_ns(trace: Path) -> int:
    table = ipc.open_file(trace).read_all()
    faults = table.filter(compute.equal(table["kind"].cast("string"), "fault"))
    return int(compute.min(faults["t_ns"]).as_py())


def bench_events() -> None:
    """Reader CPU and file bytes per event: a fault storm against a recording of nothing."""
    cpu_ns, file_bytes = [], []
    for _ in range(RUNS):
        quiet, quiet_cpu_s = _recording(touches=0)
        storm, storm_cpu_s = _recording(touches=STORM_TOUCHES)
        events = storm.status.rows.get("fault", 0)
        lost = sum(storm.status.lost.values())
        if lost:
            print(f"  ({lost} of {events + lost} events lost in this run)")
        cpu_ns.append((storm_cpu_s - quiet_cpu_s) * 1e9 / events)
        file_bytes.append((storm.status.size_bytes - quiet.status.size_bytes) / events)
    print("reader CPU per event           ", spread(cpu_ns, "ns", 0))
    print("file bytes per event           ", spread(file_bytes, "bytes", 1))


def _recording(touches: int) -> tuple[Summary, float]:
    """Record a stimulus that touches so often: the summary, and the CPU of the run itself."""
    with Stimulus() as stimulus, tempfile.TemporaryDirectory() as folder:
        options = Options(
            Path(folder) / "trace.arrow", ring_pages=4096, fault_records_per_s=10**9, duration_s=2
        )
        session = Session(options)
        session.start([stimulus.pid])
        before = time.process_time()  # finer than the ticks of recorder_cpu_s
        for _ in range(touches):
            stimulus.touch(STORM_PAGES)
            session.look()
        session.run(lambda _: None)
        cpu_s = time.process_time() - before
        return session.finish(), cpu_s
