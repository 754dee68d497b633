"""When a server was at work: bursts of CPU time with nothing to speak of between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numatrace.analyze.rows import Numbers

GAP_NS = 100_000_000
"""A pause is idle from this length on. Below, it may be a client's answer to the last token, or
other processes that take the CPUs."""
GAP_PERIODS = 10
"""... and from so many sampling periods on: one busy thread has a sample in each."""
STARVED = 10.0
"""Where threads want the CPUs and have to wait for them, pauses are longer: by the factor by
which the threads at work would use more CPU time if they ran all the time, but at most by this
one."""
DENSITY = 0.10
"""CPUs that must be busy on average around a sample for it to count as work: a thread that only
looks for requests now and then uses less."""
TID_BITS = 23
"""Thread ids are at most 4,194,304 (PID_MAX_LIMIT)."""
BINS = 10_000
BIN_NS = 10_000_000
"""Bins of time that phases are told apart in, at most and at least so long."""
BIN_SAMPLES = 4
"""Samples that a bin should hold on average."""


class Burst(NamedTuple):
    """Samples [first, last) that make one stretch of work, and from when to when it was."""

    first: int
    last: int
    start_ns: int
    end_ns: int


def bursts(t_ns: Numbers, tid: Numbers, cpu_ns: Numbers) -> list[Burst]:
    """Return the stretches of work among samples in order of time."""
    found = _bursts(t_ns, cpu_ns, gaps(cpu_ns))
    if not found:
        return []
    waiting = _starved(found, tid, cpu_ns)
    return _bursts(t_ns, cpu_ns, (gaps(cpu_ns) * waiting).astype(np.int64))


def _starved(found: list[Burst], tid: Numbers, cpu_ns: Numbers) -> float:
    """Return how many times as much CPU time the threads of bursts would use if they had it."""
    burst = np.repeat(np.arange(len(found)), [each.last - each.first for each in found])
    inside = np.concatenate([np.arange(each.first, each.last) for each in found])
    threads, which = np.unique(burst << TID_BITS | tid[inside], return_inverse=True)
    each_ns = np.bincount(which.reshape(-1), cpu_ns[inside])
    of_burst = threads >> TID_BITS
    used_ns = np.bincount(of_burst, each_ns, len(found))
    squares = np.bincount(of_burst, each_ns**2, len(found))
    equal = np.divide(used_ns**2, squares, out=np.zeros(len(found)), where=squares > 0)
    took_ns = np.array([each.end_ns - each.start_ns for each in found], np.float64)
    wanted_ns = float((equal * took_ns).sum())
    return min(STARVED, max(1.0, wanted_ns / max(float(used_ns.sum()), 1.0)))


def _bursts(t_ns: Numbers, cpu_ns: Numbers, gaps_ns: Numbers) -> list[Burst]:
    dense = np.flatnonzero(_is_dense(t_ns, cpu_ns, gaps_ns))
    if not len(dense):
        return []
    times = t_ns[dense]
    cuts = np.flatnonzero(np.diff(times) > gaps_ns[dense[1:]]) + 1
    starts = times[np.concatenate([[0], cuts])]
    ends = times[np.concatenate([cuts - 1, [len(times) - 1]])]
    firsts = np.searchsorted(t_ns, starts, side="left")
    lasts = np.searchsorted(t_ns, ends, side="right")
    return [
        Burst(first, last, start_ns, end_ns)
        for first, last, start_ns, end_ns in zip(
            firsts.tolist(), lasts.tolist(), starts.tolist(), ends.tolist(), strict=True
        )
    ]


def gaps(cpu_ns: Numbers) -> Numbers:
    """Return how long a pause [ns] after each sample must be to be idle."""
    found: Numbers = np.maximum(GAP_NS, GAP_PERIODS * cpu_ns).astype(np.int64)
    return found


def _is_dense(t_ns: Numbers, cpu_ns: Numbers, gaps_ns: Numbers) -> Numbers:
    """Return which samples have others around them, together DENSITY of one CPU."""
    half = gaps_ns // 2
    low = np.searchsorted(t_ns, t_ns - half, side="left")
    high = np.searchsorted(t_ns, t_ns + half, side="right")
    total = np.concatenate([[0.0], np.cumsum(cpu_ns)])
    dense: Numbers = (high - low >= 2) & (total[high] - total[low] >= DENSITY * gaps_ns)
    return dense


class Bins(NamedTuple):
    """Equal parts of the bursts, one after the other; times in between have none."""

    start_ns: Numbers
    """int64."""
    end_ns: Numbers
    burst: Numbers
    """The burst that each belongs to."""
    of_sample: Numbers
    """The bin of every sample, -1 outside of bursts."""

    def __len__(self) -> int:
        """Return the number of bins."""
        return len(self.start_ns)


def bins(t_ns: Numbers, found: list[Burst]) -> Bins:
    """Cut bursts into bins."""
    lengths = np.array([each.end_ns - each.start_ns for each in found], np.int64)
    samples = sum(each.last - each.first for each in found)
    # As floats: lengths come from a trace that may be damaged.
    total = float(lengths.astype(np.float64).sum())
    width = int(max(BIN_NS, total / BINS, BIN_SAMPLES * total / max(samples, 1)))
    counts = np.maximum(1, -(-lengths // width))
    first = np.concatenate([[0], np.cumsum(counts)])
    burst = np.repeat(np.arange(len(found)), counts)
    starts = np.array([each.start_ns for each in found], np.int64)
    ends = np.array([each.end_ns for each in found], np.int64)
    start_ns = starts[burst] + width * (np.arange(first[-1]) - first[burst])
    of_sample = np.full(len(t_ns), -1, np.int64)
    for number, each in enumerate(found):
        inside = (t_ns[each.first : each.last] - each.start_ns) // width
        of_sample[each.first : each.last] = first[number] + np.minimum(inside, counts[number] - 1)
    return Bins(start_ns, np.minimum(start_ns + width, ends[burst]), burst, of_sample)
