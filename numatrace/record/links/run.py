"""Runs the measurement in a process of its own, and takes in what it says."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from numatrace.model.errors import TraceError
from numatrace.model.machine import Links
from numatrace.record import workers
from numatrace.record.links.measure import BUDGET_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

COMMAND = workers.command("numatrace.record.links.worker")
SPARE_S = 10.0
"""For starting, and for a last pair that takes longer; then it is ended."""
OUTPUT_BYTES = 4 << 20


def run(
    on_progress: Callable[[str], None],
    budget_s: float = BUDGET_S,
    command: Sequence[str] = COMMAND,
    spare_s: float = SPARE_S,
) -> Links:
    """Return what was measured; without anything in it but the reason if that failed.

    Takes `budget_s` and `spare_s` seconds at most.
    """
    process = subprocess.Popen(
        [*command, f"{budget_s:g}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        process_group=0,
    )
    links = None
    try:
        for line in _lines(process, time.monotonic() + budget_s + spare_s):
            links = _taken(line, on_progress) or links
        in_time = process.poll() is not None or _ended(process)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    return links or Links(skipped={"all": _failure(process.returncode, in_time=in_time)})


def _lines(process: subprocess.Popen[bytes], end: float) -> Iterator[bytes]:
    if process.stdout is None:
        return
    rest, total = b"", 0
    while total < OUTPUT_BYTES and (left := end - time.monotonic()) > 0:
        if not select.select([process.stdout], [], [], left)[0]:
            return
        data = os.read(process.stdout.fileno(), 1 << 16)
        if not data:
            return
        total += len(data)
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _taken(line: bytes, on_progress: Callable[[str], None]) -> Links | None:
    try:
        said = json.loads(line)
        if "progress" in said:
            on_progress(str(said["progress"]))
        return Links.from_json(said["links"]) if "links" in said else None
    except (ValueError, TypeError, TraceError):
        return None


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        return False
    return True


def _failure(status: int, *, in_time: bool) -> str:
    if not in_time:
        return "the measurement did not end in time"
    if status < 0:
        return f"the measurement was ended by {signal.Signals(-status).name}"
    return f"the measurement ended with status {status}"
