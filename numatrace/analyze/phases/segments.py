"""Stretches of a server's work, each in one mode, with what tells loading from computing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.phases.activity import TID_BITS, bins, bursts
from numatrace.analyze.phases.dwell import RETURNS, returns
from numatrace.analyze.phases.modes import CODE_SHIFT, WORDS, find_runs, words
from numatrace.analyze.phases.samples import USER
from numatrace.analyze.phases.sweeps import find_sweeps
from numatrace.analyze.samples.columns import REASON

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numatrace.analyze.phases.activity import Bins, Burst
    from numatrace.analyze.phases.events import Area, Events
    from numatrace.analyze.phases.modes import Run
    from numatrace.analyze.phases.samples import Columns
    from numatrace.analyze.phases.sweeps import Sweeps
    from numatrace.analyze.rows import Numbers

FILLING = ("kernel fault", "kernel copy", "kernel map", "kernel reclaim")
"""What the kernel does for a process that fills its memory."""
FILLING_SHARE = 0.25
"""A stretch with more of its CPU time in that is no plain computing."""
ALONE = 1.4
"""Threads at work below which a stretch is one thread's; workers that wait for it do not run."""
TOGETHER = 1.5
TOGETHER_SHARE = 0.2
"""A server computes with several threads if so much of its CPU time is in stretches of at least so
many."""
BIRTH_NS = 1_000_000_000
"""A process that began so long before a burst or in it loads in it."""
APART = 5
"""Bins that a part of a run has at least."""
LINE_SHIFT = 6
WAITED_FOR = 0.02
"""A cache line with more than this share of all samples is what threads wait for: ggml's spin at
the barrier after each operation. How long they wait says nothing about what they wait in."""


@dataclass(slots=True)
class Segment:
    """A stretch of one burst in one mode; `phase` is filled in later."""

    start_ns: int
    end_ns: int
    first: int
    """First sample; `last` is behind the last one."""
    last: int
    burst: int
    mode: int
    tgid: int
    """The process that most of its CPU time belongs to."""
    cpu_ns: float
    threads: float
    """How many threads share the CPU time: as many as equal ones would be (inverse Simpson)."""
    filling: float
    """Share of the CPU time in which the kernel fills memory."""
    phase: str = ""

    @property
    def duration_ns(self) -> int:
        """How long it took."""
        return self.end_ns - self.start_ns


def segments(
    samples: Columns, events: Events, weights: Sequence[Area]
) -> tuple[list[Segment], Sweeps]:
    """Return the stretches of work of samples in order of time, in that order; and the sweeps."""
    found = bursts(samples.t_ns, samples.tid, samples.cpu_ns)
    if not found:
        return [], find_sweeps(samples, np.zeros(len(samples), bool), weights)
    parts = bins(samples.t_ns, found)
    cpu_ns, equal, filling = _work(samples, parts)
    together = equal >= ALONE * np.maximum(cpu_ns, 1.0)
    # Loads, which write what is only read later, are one thread's.
    is_usual = float(cpu_ns[together].sum()) >= TOGETHER_SHARE * float(cpu_ns.sum())
    chosen = together[np.maximum(parts.of_sample, 0)] if is_usual else True
    sweeps = find_sweeps(samples, (parts.of_sample >= 0) & chosen, weights)
    spoken = [(_words(samples, events), WORDS), (_returns(samples, sweeps), RETURNS)]
    runs = find_runs(spoken, parts.of_sample, parts.burst)
    births = {number for number, each in enumerate(found) if _has_birth(each, events)}
    made = []
    for run in _cut(runs, parts, births, (cpu_ns, equal)):
        start_ns, end_ns = int(parts.start_ns[run.first]), int(parts.end_ns[run.last - 1])
        burst = int(parts.burst[run.first])
        is_end = run.last == len(parts) or parts.burst[run.last] != burst
        first, last = np.searchsorted(samples.t_ns, [start_ns, end_ns + is_end]).tolist()
        inside = slice(run.first, run.last)
        total = max(float(cpu_ns[inside].sum()), 1.0)
        made.append(
            Segment(
                start_ns=start_ns,
                end_ns=end_ns,
                first=first,
                last=last,
                burst=burst,
                mode=run.mode,
                tgid=_main_process(samples, first, last),
                cpu_ns=total,
                threads=float(equal[inside].sum()) / total,
                filling=float(filling[inside].sum()) / total,
            )
        )
    return made, sweeps


def _has_birth(burst: Burst, events: Events) -> bool:
    begins = burst.start_ns - BIRTH_NS
    return any(begins <= born_ns <= burst.end_ns for born_ns in events.born.values())


def _cut(
    runs: list[Run], parts: Bins, births: set[int], work: tuple[Numbers, Numbers]
) -> Iterator[Run]:
    """Yield the runs, those of bursts with a birth in two where several threads go on after one.

    A warm-up may be too short to be a mode of its own.
    """
    for run in runs:
        at = run.last
        if run.last - run.first >= 2 * APART and int(parts.burst[run.first]) in births:
            at = run.first + _step(*(each[run.first : run.last] for each in work))
        if at < run.last:
            yield run._replace(last=at)
        yield run._replace(first=at) if at < run.last else run


def _step(cpu_ns: Numbers, equal: Numbers) -> int:
    """Return how many bins of one thread come before those of several; or of all."""
    done, threads = np.cumsum(cpu_ns), np.cumsum(equal)
    before = threads / np.maximum(done, 1.0)
    behind = (threads[-1] - threads) / np.maximum(done[-1] - done, 1.0)
    clear = (before < ALONE) & (behind >= ALONE)
    clear[: APART - 1] = clear[len(clear) - APART :] = False
    if not clear.any():
        return len(cpu_ns)
    # Where the difference explains most: the sum of squares between the two parts.
    gain = np.where(clear, done * (done[-1] - done) * (behind - before) ** 2, 0.0)
    return int(np.argmax(gain)) + 1


def _words(samples: Columns, events: Events) -> Numbers:
    """Return the words that modes are told apart by; -1 for a thread that waits in a loop."""
    code = events.code(samples.tgid, samples.ip) >> np.uint64(CODE_SHIFT)
    # What the kernel does is a word of its own, whatever code it was entered from.
    code = np.where(samples.kind == USER, code, samples.kind.astype(np.uint64))
    lines, which, counts = np.unique(
        samples.addr >> np.uint64(LINE_SHIFT), return_inverse=True, return_counts=True
    )
    waits = (lines > 0) & (counts > WAITED_FOR * len(samples))
    return words(code, ~waits[which.reshape(-1)])


def _returns(samples: Columns, sweeps: Sweeps) -> Numbers:
    """Return how long ago each sample's block of memory was last read, as words; -1 for others."""
    found = np.full(len(samples), -1, np.int64)
    if len(sweeps.sample):
        found[sweeps.sample] = returns(sweeps.t_ns, sweeps.block, sweeps.apart_ns)
    return found


def _work(samples: Columns, parts: Bins) -> tuple[Numbers, Numbers, Numbers]:
    """Return every bin's CPU time, that times the threads at work, and that spent filling memory.

    Threads are counted within a bin: threads that work one after the other are one at a time.
    """
    inside = np.flatnonzero(parts.of_sample >= 0)
    part, cpu_ns = parts.of_sample[inside], samples.cpu_ns[inside]
    total = np.bincount(part, cpu_ns, len(parts))
    pairs, which = np.unique(part << TID_BITS | samples.tid[inside], return_inverse=True)
    each = np.bincount(which.reshape(-1), cpu_ns)
    squares = np.bincount(pairs >> TID_BITS, each**2, len(parts))
    threads = np.divide(total**2, squares, out=np.zeros(len(parts)), where=squares > 0)
    fills = np.isin(samples.kind[inside], [REASON[reason] + 1 for reason in FILLING])
    return total, total * threads, np.bincount(part, cpu_ns * fills, len(parts))


def _main_process(samples: Columns, first: int, last: int) -> int:
    tgids, which = np.unique(samples.tgid[first:last], return_inverse=True)
    if not len(tgids):
        return 0
    return int(tgids[np.argmax(np.bincount(which.reshape(-1), samples.cpu_ns[first:last]))])


def is_parallel(found: list[Segment]) -> bool:
    """Return whether the server computes with several threads."""
    together = sum(each.cpu_ns for each in found if each.threads >= TOGETHER)
    return together >= TOGETHER_SHARE * sum(each.cpu_ns for each in found) > 0


def is_preparing(segment: Segment, *, parallel: bool) -> bool:
    """Return whether a stretch is something else than a graph that all threads compute."""
    return segment.filling >= FILLING_SHARE or (parallel and segment.threads < ALONE)
