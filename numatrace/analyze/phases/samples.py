"""Keep the samples that phases are told from, thinned out so that memory stays bounded."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.samples.columns import REASON, SAMPLE_NS
from numatrace.analyze.threads.residency import TIDS
from numatrace.model.access import FETCH, HOW, KERNEL, OPERAND, WRITE

if TYPE_CHECKING:
    from numatrace.analyze.rows import Numbers, Rows

KEPT = 1 << 18
"""Samples kept; when there are more, every second one at random is dropped, and the others count
twice: an hour of 2,000 samples a second keeps 36 of them for every second."""
LATEST_NS = 1 << 62
"""CLOCK_MONOTONIC does not come near; later times are damage."""
USER = 0
"""The `kind` of a sample in user mode; others are 1 + the reason's place in HOW."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Samples as columns of equal length."""

    t_ns: Numbers
    """int64."""
    tgid: Numbers
    tid: Numbers
    ip: Numbers
    """uint64."""
    addr: Numbers
    """uint64; 0 where unknown or not data."""
    write: Numbers
    """bool."""
    kind: Numbers
    """USER, or why it was in the kernel."""
    cpu_ns: Numbers
    """float64: CPU time that the sample stands for; 0 for those of hardware."""
    tick_ns: Numbers
    """float64: the same before others were dropped, the time between two ticks of the clock."""

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.t_ns)

    @property
    def apart_ns(self) -> float:
        """Samples less than this apart are of one moment: the clocks of all CPUs tick at once."""
        return float(np.median(self.tick_ns)) / 2 if len(self) else 0.0

    def at(self, chosen: Numbers | slice) -> Columns:
        """Return the chosen samples: indices, a mask or a part."""
        return Columns(*(getattr(self, each.name)[chosen] for each in fields(self)))


def concatenated(parts: list[Columns]) -> Columns:
    """Return all parts as one."""
    names = [each.name for each in fields(Columns)]
    return Columns(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


NOTHING = Columns(
    t_ns=np.zeros(0, np.int64),
    tgid=np.zeros(0, np.int64),
    tid=np.zeros(0, np.int64),
    ip=np.zeros(0, np.uint64),
    addr=np.zeros(0, np.uint64),
    write=np.zeros(0, bool),
    kind=np.zeros(0, np.int64),
    cpu_ns=np.zeros(0, np.float64),
    tick_ns=np.zeros(0, np.float64),
)


def weighed(samples: Columns) -> Columns:
    """Return the samples that stand for CPU time; a time for each where none does.

    Hardware samples, of accesses, come at any rate while a thread runs: each stands for the usual
    time between two of a thread.
    """
    timed = samples.cpu_ns > 0
    if timed.any() or not len(samples):
        return samples.at(timed)
    order = np.lexsort((samples.t_ns, samples.tid))
    lags = np.diff(samples.t_ns[order])[np.diff(samples.tid[order]) == 0]
    usual = float(np.median(lags)) if len(lags) else 1.0
    each = np.full(len(samples), min(max(usual, 1.0), SAMPLE_NS))
    return replace(samples, cpu_ns=each, tick_ns=each)


class Thinned:
    """At most KEPT samples of all that were added, evenly chosen."""

    def __init__(self, limit: int = KEPT) -> None:
        self._limit = limit
        self._parts = [NOTHING]
        self._count = 0
        self._every = 1
        self._random = np.random.default_rng(0)

    def add(self, rows: Rows) -> None:
        """Add a batch's `access` rows."""
        sound = np.flatnonzero(_is_sound(rows))
        for first in range(0, len(sound), self._limit):
            chosen = sound[first : first + self._limit]
            if self._every > 1:
                chosen = chosen[self._random.random(len(chosen)) * self._every < 1]
            self._add(_heavier(_columns(rows.at(chosen)), self._every))

    def all(self) -> Columns:
        """Return what was kept, by ascending time."""
        together = concatenated(self._parts)
        self._parts = [together.at(np.argsort(together.t_ns, kind="stable"))]
        return self._parts[0]

    def _add(self, part: Columns) -> None:
        self._parts.append(part)
        self._count += len(part)
        if self._count > self._limit:
            self._thin()

    def _thin(self) -> None:
        # At random, not every other one: two threads' samples may well take turns.
        together = concatenated(self._parts)
        half = together.at(self._random.random(len(together)) < 0.5)
        self._every *= 2
        self._parts = [_heavier(half, 2)]
        self._count = len(half)


def _heavier(part: Columns, times: int) -> Columns:
    return replace(part, cpu_ns=part.cpu_ns * times)


def _is_sound(rows: Rows) -> Numbers:
    t_ns, tid = rows.numbers("t_ns"), rows.numbers("tid")
    in_time = (t_ns > 0) & (t_ns < np.uint64(LATEST_NS))
    sound: Numbers = in_time & (rows.numbers("tgid") > 0) & (tid > 0) & (tid <= TIDS)
    return sound


def _columns(rows: Rows) -> Columns:
    access = rows.numbers("access")
    addr = np.where((access & FETCH) == 0, rows.numbers("addr"), np.uint64(0))
    cpu_ns = np.minimum(rows.numbers("time_ns"), SAMPLE_NS).astype(np.float64)
    codes, names = rows.coded("name")
    hardware = np.array([name != OPERAND for name in names])[codes]
    codes, details = rows.coded("detail")
    known = [REASON[detail] + 1 if detail.startswith("kernel") and detail in HOW else 0
             for detail in details]  # fmt: skip
    kind = np.array(known, np.int64)[codes]
    kind = np.where((kind == USER) & ((access & KERNEL) > 0), REASON["kernel"] + 1, kind)
    return Columns(
        t_ns=rows.numbers("t_ns").astype(np.int64),
        tgid=rows.numbers("tgid"),
        tid=rows.numbers("tid"),
        ip=rows.numbers("ip"),
        addr=np.where(kind == USER, addr, np.uint64(0)),
        write=(access & WRITE) > 0,
        kind=kind,
        cpu_ns=np.where(hardware, 0.0, cpu_ns),
        tick_ns=np.where(hardware, 0.0, cpu_ns),
    )
