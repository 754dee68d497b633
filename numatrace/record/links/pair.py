"""Measures one pair: the memory of an area, from CPUs that are given."""

from __future__ import annotations

import ctypes
import os
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from numatrace.record.links.cycle import length

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numatrace.record.links.code import Loops

    Stream = Callable[[int, int, int], int]

RUNS = 5
"""Stretches of the chain that are timed apart: the median counts, whatever came between."""
PROBE_STEPS = 2000
"""Loads from which the length of a stretch is reckoned."""
SLICE_BYTES = 4096
"""A thread's part of the memory is a multiple of this."""
BARRIER_S = 5.0


class Figure(NamedTuple):
    """What was measured, and the share of the time in which the threads waited for a CPU.

    Times are those that threads ran: another program on the same CPU makes the measurement longer,
    and not the memory slower.
    """

    value: float
    waited: float


def latency_ns(
    loops: Loops, cpu: int, chain: tuple[int, int], evict: tuple[int, int], seconds: float
) -> Figure:
    """Return ns per dependent load, from one CPU, over a cycle of `write_cycle`.

    `chain` is its address and size, `evict` those of other memory that is read first: the cycle is
    in no cache then, and no line of it is visited twice. Takes about `seconds`, as far as the
    cycle is long enough.
    """

    def measure() -> Figure:
        os.sched_setaffinity(0, (cpu,))  # of this thread
        loops.stream(*evict)
        first, at = _timed(loops.chase, chain[0], PROBE_STEPS)
        longest = (length(chain[1]) - PROBE_STEPS) // RUNS
        steps = max(1, min(int(seconds * 1e9 / RUNS / (first.value / PROBE_STEPS)), longest))
        figures = []
        for _ in range(RUNS):
            figure, at = _timed(loops.chase, at, steps)
            figures.append(figure)
        median = statistics.median(figure.value for figure in figures)
        return Figure(median / steps, statistics.mean(figure.waited for figure in figures))

    return _in_threads([measure])[0]


def bandwidth_bytes_s(
    stream: Stream, cpus: Sequence[int], memory: tuple[int, int], seconds: float
) -> Figure:
    """Return bytes per second that threads on these CPUs read together, each its own part.

    `memory` is its address and size: more than the CPUs' caches hold. Every thread reads its part
    once, and then so often that it takes about `seconds`.
    """
    size = memory[1] // len(cpus) // SLICE_BYTES * SLICE_BYTES
    together = threading.Barrier(len(cpus))

    def reader(index: int) -> Callable[[], Figure]:
        def measure() -> Figure:
            os.sched_setaffinity(0, (cpus[index],))
            begin = memory[0] + index * size
            together.wait(BARRIER_S)
            first, _ = _timed(stream, begin, size, 1)
            passes = max(1, int(seconds * 1e9 / first.value))
            together.wait(BARRIER_S)
            figure, _ = _timed(stream, begin, size, passes)
            return Figure(size * passes / (figure.value / 1e9), figure.waited)

        return measure

    figures = _in_threads([reader(index) for index in range(len(cpus))])
    waited = statistics.mean(figure.waited for figure in figures)
    return Figure(sum(figure.value for figure in figures), waited)


def _timed(loop: Callable[..., int], *arguments: int) -> tuple[Figure, int]:
    """Run a loop; return the ns that this thread ran, what it waited, and the loop's result."""
    began_ns, ran_ns = time.perf_counter_ns(), time.thread_time_ns()
    result = loop(*arguments)
    ran_ns = max(1, time.thread_time_ns() - ran_ns)
    all_ns = time.perf_counter_ns() - began_ns
    return Figure(ran_ns, max(0.0, 1 - ran_ns / max(1, all_ns))), result


def numpy_stream(begin: int, size: int, passes: int) -> int:
    """Do what `Loops.stream` does, where no code of ours may run: somewhat slower per thread."""
    words = np.ctypeslib.as_array((ctypes.c_uint64 * (size // 8)).from_address(begin))
    return sum(int(words.sum()) for _ in range(passes)) & ((1 << 64) - 1)


def _in_threads(tasks: Sequence[Callable[[], Figure]]) -> list[Figure]:
    # Each in a thread of its own, which ends with it: it is bound to a CPU.
    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result() for future in [pool.submit(task) for task in tasks]]
