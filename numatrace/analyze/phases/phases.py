"""What the server was doing when: loading, a prompt, decoding, computing, nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from numatrace.analyze.phases.absorb import absorb
from numatrace.analyze.phases.events import Events
from numatrace.analyze.phases.load import mark_loads
from numatrace.analyze.phases.names import name_work
from numatrace.analyze.phases.samples import LATEST_NS, Thinned, weighed
from numatrace.analyze.phases.segments import segments
from numatrace.analyze.phases.ticks import Ticks
from numatrace.model.events import EVENTS
from numatrace.model.measured import PHASES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numatrace.analyze.phases.samples import Columns
    from numatrace.analyze.rows import Numbers, Rows

TIMED = tuple(
    event.kind for event in EVENTS if event.family in ("fault", "sched", "access", "place")
)
"""Kinds whose times span the recording."""
NO_SAMPLES = "no accesses were sampled, only the time on CPUs is known"
NOT_ALL = "some work is too short, or too unlike the rest, to tell whether it is a prompt"


class PhaseSpan(NamedTuple):
    """A phase from `start_ns` to before `end_ns`, CLOCK_MONOTONIC."""

    start_ns: int
    end_ns: int
    phase: str


@dataclass(frozen=True, slots=True)
class Phases:
    """The phases of a recording, one after the other without a gap; what lies outside is idle.

    `compute` is a prompt or decoding: `notes` say why they are not told apart.
    """

    names: ClassVar[tuple[str, ...]] = PHASES
    spans: tuple[PhaseSpan, ...] = ()
    notes: tuple[str, ...] = ()

    def at(self, t_ns: Numbers) -> Numbers:
        """Return for each time (uint64) the index of its phase in `names`, as uint8.

        The last span holds its end, too: it is the time of the last event.
        """
        idle = self.names.index("idle")
        if not self.spans:
            return np.full(len(t_ns), idle, np.uint8)
        starts = np.array([span.start_ns for span in self.spans], np.uint64)
        phases = [idle, *(self.names.index(span.phase) for span in self.spans)]
        found = np.array(phases, np.uint8)[np.searchsorted(starts, t_ns, side="right")]
        return np.where(t_ns > np.uint64(self.spans[-1].end_ns), np.uint8(idle), found)


class Survey:
    """Finds the phases, in one pass over the batches that keeps what they are told from."""

    def __init__(self) -> None:
        self._samples = Thinned()
        self._events = Events()
        self._ticks = Ticks()
        self._first = LATEST_NS
        self._last = 0

    def take(self, rows: dict[str, Rows]) -> None:
        """Take a batch."""
        for kind in TIMED:
            times = rows[kind].numbers("t_ns") if kind in rows else np.zeros(0, np.uint64)
            times = times[(times > 0) & (times < np.uint64(LATEST_NS))]
            if len(times):
                self._first = min(self._first, int(times.min()))
                self._last = max(self._last, int(times.max()))
        self._events.take(rows)
        self._ticks.take(rows.get("oncpu"))
        if "access" in rows:
            self._samples.add(rows["access"])

    def finish(self) -> Phases:
        """Return the phases."""
        if not self._last:
            return Phases()
        samples = self._samples.all()
        if len(samples):
            painted, notes = self._told(samples)
        else:
            painted = [(start, end, "compute") for start, end in self._ticks.busy()]
            notes = (NO_SAMPLES,)
        is_told = any(phase == "compute" for *_, phase in painted)
        reasons = (notes or (NOT_ALL,)) if is_told else ()
        return Phases(_spans(self._first, self._last, painted), reasons)

    def _told(self, samples: Columns) -> tuple[list[tuple[int, int, str]], tuple[str, ...]]:
        """Return stretches with their phases, the later above the earlier; and why `compute`."""
        weights = self._events.weights()
        samples = weighed(samples)
        mine = samples.at(_of_servers(samples, {area.tgid for area in weights}))
        found, sweeps = segments(mine, self._events, weights)
        loads = mark_loads(found, self._events.born, weights)
        others = [segment for segment in found if segment.phase]
        work = [segment for segment in found if not segment.phase]
        named, notes = name_work(sweeps, work, self._events.weight_bytes)
        found = sorted([*others, *named], key=lambda segment: segment.start_ns)
        absorb(found)
        painted = [(start, end, "load") for start, end in loads]
        painted += [(segment.start_ns, segment.end_ns, segment.phase) for segment in found]
        return painted, notes


def _of_servers(samples: Columns, servers: Iterable[int]) -> Numbers:
    """Return which samples are the servers': of processes that hold weights, or of the busiest."""
    mine = np.isin(samples.tgid, list(servers))
    if not mine.any():
        tgids, which = np.unique(samples.tgid, return_inverse=True)
        cpu_ns = np.bincount(which.reshape(-1), samples.cpu_ns)
        mine = samples.tgid == tgids[np.argmax(cpu_ns)]
    return mine


def _spans(
    first_ns: int, last_ns: int, painted: list[tuple[int, int, str]]
) -> tuple[PhaseSpan, ...]:
    """Return [first, last] in parts: what was painted last counts, and nothing is idle."""
    edges = {first_ns, last_ns}
    edges.update(edge for start, end, _ in painted for edge in (start, end))
    cuts = np.array(sorted(edge for edge in edges if first_ns <= edge <= last_ns), np.int64)
    phase = np.full(len(cuts), Phases.names.index("idle"), np.uint8)
    for start, end, name in painted:
        low, high = np.searchsorted(cuts, [start, end])
        phase[low:high] = Phases.names.index(name)
    bounds = cuts.tolist()
    if len(bounds) == 1:
        bounds, phase = [first_ns, first_ns], phase[:1].repeat(2)
    spans: list[PhaseSpan] = []
    for start, end, number in zip(bounds, bounds[1:], phase[:-1].tolist(), strict=False):
        name = Phases.names[number]
        if spans and spans[-1].phase == name:
            start = spans.pop().start_ns
        spans.append(PhaseSpan(start, end, name))
    return tuple(spans)
