"""Make plans in a process of its own, which takes CPU time only where nobody else wants it.

`python -m numatrace.record.operands.worker MACHINE` reads plans.KEY records from standard input and
writes a plan.ROW for each, in their order, to standard output.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from typing import IO, TYPE_CHECKING

import numpy as np

from numatrace.record.operands.code import read_code
from numatrace.record.operands.plan import NOTHING, rows_of
from numatrace.record.operands.plans import FORGET, KEY
from numatrace.record.operands.resolve import planner_for
from numatrace.record.workers import end_with_starter

if TYPE_CHECKING:
    from numatrace.record.operands.planner import Planner

DATA_BYTES = 1 << 30


def set_limits() -> None:
    """Bound this process, let it end with the recorder, and give way to everybody."""
    end_with_starter()
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES, DATA_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def serve(source: IO[bytes], output: IO[bytes], planner: Planner) -> None:
    """Answer key by key, until there are no more."""
    while len(packed := source.read(KEY.itemsize)) == KEY.itemsize:
        output.write(_answer(planner, np.frombuffer(packed, KEY)))
        output.flush()


def _answer(planner: Planner, key: np.ndarray[tuple[int], np.dtype[np.void]]) -> bytes:
    if key["fault"][0] == FORGET:
        planner.forget(int(key["tgid"][0]))
        return rows_of([NOTHING]).tobytes()
    return planner.make(key).tobytes()


if __name__ == "__main__":
    set_limits()
    serve(sys.stdin.buffer, sys.stdout.buffer, planner_for(sys.argv[1], read_code))
