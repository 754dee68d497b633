"""Measure what tracing costs the traced: a clock interrupt, and the run time of BPF programs."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from typing import TYPE_CHECKING

import numpy as np

from numatrace.model.errors import NumatraceError
from numatrace.record.bpf import perf_event
from numatrace.record.bpf.call import bpf

if TYPE_CHECKING:
    from collections.abc import Mapping

TICK_NS = 3_000.0
"""Of one clock interrupt, where it cannot be measured. 16,000 were seen in a virtual machine, where
each arms a timer of the host's."""

PROGRAM_NS = 1_500.0
"""Of the program that runs at a tick, where it cannot be measured; 600 to 1,200 were seen."""

PROBE_PERIOD_NS = 50_000
PROBE_NS = 5_000_000
PROBE_LEAST = 20
GAP_NS = 300
"""A measurement of interrupts: how often, how long, how many are enough; and the shortest of them,
which is some times a look at the clock."""

BPF_OBJ_GET_INFO_BY_FD = 15
BPF_ENABLE_STATS = 32
INFO_BYTES = 208
RUN_AT = 192
"""struct bpf_prog_info as of Linux 5.1: run_time_ns and run_cnt are its last members."""


class _Attr(ctypes.Structure):
    """union bpf_attr, as far as these two commands read it."""

    _fields_ = (
        ("first", ctypes.c_uint32),
        ("info_len", ctypes.c_uint32),
        ("info", ctypes.c_uint64),
    )


def measure_tick_ns() -> float:
    """Time that one clock interrupt takes from the thread it hits; TICK_NS where it is refused.

    Watches the time go by with a clock of its own that ticks every 50 us: each tick is a gap.
    The median over the ticks is no worse for the few that other work falls into.
    """
    try:
        fd = perf_event.open_clock(-1, PROBE_PERIOD_NS, pid=0)
        perf_event.enable(fd)
    except (OSError, NumatraceError):
        return TICK_NS
    began = time.thread_time_ns()
    try:
        gaps = _gaps()
    finally:
        perf_event.close(fd)
    ticks = (time.thread_time_ns() - began) // PROBE_PERIOD_NS
    if ticks < PROBE_LEAST or len(gaps) < ticks / 2:
        return TICK_NS
    return float(np.median(np.sort(gaps)[-ticks:]))


def _gaps() -> list[int]:
    """Times for which this thread did not run, of those that are long enough to be a tick.

    Keeps nothing else: to collect much means to touch new memory, and page faults are gaps too.
    """
    now = time.perf_counter_ns
    gaps = []
    last = now()
    end = last + PROBE_NS
    while last < end:
        before, last = last, now()
        if last - before > GAP_NS:
            gaps.append(last - before)
    return gaps


class ProgramStats:
    """Run time of BPF programs, which the kernel counts only while somebody wants it.

    Counting costs every run two looks at the clock, so it is done in windows.
    """

    def __init__(self, programs: Mapping[str, int]) -> None:
        self.programs = programs
        self._fd = -1
        self._before: dict[str, tuple[int, int]] = {}
        self._since = 0.0

    def begin(self) -> None:
        """Begin to count, where the kernel does (5.8, commit d46edd671a14) and lets us."""
        fd = bpf(BPF_ENABLE_STATS, _Attr())
        if fd < 0:
            return
        self._fd = fd
        self._before = self._read()
        self._since = time.monotonic()

    def end(self) -> tuple[float, dict[str, tuple[int, int]]]:
        """Stop counting; returns seconds of the window, and nanoseconds and runs by program.

        Of no seconds, if there was no counting.
        """
        if self._fd < 0:
            return 0.0, {}
        seconds = time.monotonic() - self._since
        after = self._read()
        self.close()
        grown = {
            name: (ns - self._before[name][0], runs - self._before[name][1])
            for name, (ns, runs) in after.items()
            if name in self._before
        }
        return seconds, grown

    def close(self) -> None:
        """Stop counting."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> dict[str, tuple[int, int]]:
        found = {name: program_run(fd) for name, fd in self.programs.items()}
        return {name: run for name, run in found.items() if run is not None}


def program_run(fd: int) -> tuple[int, int] | None:
    """Nanoseconds and runs of a BPF program while they were counted; None where not told."""
    info = ctypes.create_string_buffer(INFO_BYTES)
    attr = _Attr(first=fd, info_len=INFO_BYTES, info=ctypes.addressof(info))
    if bpf(BPF_OBJ_GET_INFO_BY_FD, attr) < 0 or attr.info_len < INFO_BYTES:
        return None
    run_ns, runs = struct.unpack_from("=QQ", info, RUN_AT)
    return run_ns, runs
