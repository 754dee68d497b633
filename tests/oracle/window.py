"""Count and record the same seconds of a process, in the guest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from oracle.oracle import Truth
from oracle.samples import Samples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oracle.guest import Oracle

FREQUENCY_HZ = 249
"""With one instruction per block a sample takes the emulated CPU two milliseconds."""
RING_PAGES = 4096
"""Room for all samples of a window, for the recorder stands still meanwhile."""
END_S = 300
"""Time for the recorder to finish: under emulation it takes its time."""
PATIENCE = 10
"""So many times the CPU time that a process shall use is waited for it."""


@contextmanager
def recording(pid: int, trace: Path) -> Iterator[subprocess.Popen[str]]:
    """Record a process for as long as the block runs. Raises RuntimeError with what was said."""
    command = [sys.executable, "-m", "numatrace", "record", "-p", str(pid), "-o", str(trace)]
    command += ["-F", str(FREQUENCY_HZ), "--ring-pages", str(RING_PAGES), "--force", "--json"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"NO_COLOR": "1"},
    )
    assert process.stderr
    said = process.stderr.readline()  # "recording ...": attached
    try:
        if not said.startswith("recording"):
            raise RuntimeError(said + process.stderr.read())
        yield process
    finally:
        process.terminate()
        out, err = process.communicate(timeout=END_S)
    if process.returncode:
        raise RuntimeError(err)
    json.loads(out)


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """A process that does nothing while the block runs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def running(pid: int) -> Iterator[None]:
    """A process that stands still otherwise runs while the block does."""
    os.kill(pid, signal.SIGCONT)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGSTOP)


def measure(oracle: Oracle, pid: int, trace: Path, cpu_s: float) -> tuple[Samples, Truth]:
    """Samples and accesses of a process, for as long as it takes it to use so much CPU time.

    The process and its recorder take turns: emulated, with one instruction per block, the recorder
    would be too slow for the samples that come. The kernel takes them; it decodes them afterwards.
    """
    with (
        standing_still(pid),
        recording(pid, trace) as recorder,
        standing_still(recorder.pid),
        oracle.counting([pid], fine=True) as path,
        running(pid),
    ):
        began_ns = time.monotonic_ns()
        wait_for_use(pid, cpu_s)
        ended_ns = time.monotonic_ns()
    return Samples.load(trace, pid, (began_ns, ended_ns)), Truth.load(path)


def wait_for_use(pid: int, cpu_s: float) -> None:
    """Wait until a process has used so much CPU time more, but not for ever."""
    goal_s = used_s(pid) + cpu_s
    deadline = time.monotonic() + PATIENCE * cpu_s
    while used_s(pid) < goal_s and time.monotonic() < deadline:
        time.sleep(0.5)


def used_s(pid: int) -> float:
    """CPU time of all threads of a process, in user mode and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
