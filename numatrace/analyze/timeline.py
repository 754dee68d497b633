"""What happened when: CPU time by node, moves, faults and remote shares, in equal steps of time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.rows import group_sums
from numatrace.analyze.samples.columns import SAMPLE_NS
from numatrace.analyze.samples.intervals import LEAST_SAMPLES
from numatrace.model.cpulist import NODE_LIMIT
from numatrace.model.measured import NodeSteps, ShareSpan, TimelineView

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.analyze.load import Loaded
    from numatrace.analyze.phases.phases import Phases
    from numatrace.analyze.rows import Numbers, Rows
    from numatrace.analyze.samples.intervals import Weighed
    from numatrace.analyze.samples.measure import Measure

STEPS = 160
"""Steps of a timeline: as many as a drawing of usual width can show."""
PERIODS = 4
"""A step is at least so many sampling periods long, lest it show the sampling."""
SPANS = 40
"""Spans of the remote share, which needs many samples for each."""
SERIES = 1024
"""Processes times nodes that are kept apart; further ones count together as process 0."""
MOSTLY = 0.5
"""CPU time is drawn from samples where they stand for at least this part of the counted time."""
Key = tuple[int, int]


class Timeline:
    """Sums by process, node and step, in one pass; the recording's length is known before it."""

    def __init__(self, phases: Phases) -> None:
        spans = phases.spans
        self.first_ns = spans[0].start_ns if spans else 0
        last_ns = spans[-1].end_ns if spans else 0
        self.step_ns = max(1, -(-(last_ns - self.first_ns + 1) // STEPS))
        self.steps = -(-(last_ns - self.first_ns + 1) // self.step_ns) if spans else 0
        self.counted: dict[Key, Numbers] = {}
        """CPU time by the kernel's account, spread evenly since the reading before [ns]."""
        self.sampled: dict[Key, Numbers] = {}
        """CPU time that operand samples stand for [ns]."""
        self.moves: dict[Key, Numbers] = {}
        self.faults: dict[Key, Numbers] = {}
        """Page faults, from the sampled ones."""
        self._reads = (self.first_ns, self.first_ns)
        """When time on CPU was read, the last two times."""
        self._parts = np.zeros(self.steps)

    def take(self, rows: dict[str, Rows]) -> None:
        """Take a batch."""
        if not self.steps:
            return
        for kind, series in (("move", self.moves), ("fault", self.faults)):
            if kind in rows:
                weights = rows[kind].numbers("weight", 1) if kind == "fault" else None
                self._add(series, rows[kind], weights)
        if "access" in rows:
            self._add(self.sampled, rows["access"], rows["access"].numbers("time_ns"))
        if "oncpu" in rows:
            self._spread(rows["oncpu"])

    def _add(self, series: dict[Key, Numbers], rows: Rows, weights: Numbers | None) -> None:
        tgid, node, t_ns = (rows.numbers(name) for name in ("tgid", "node", "t_ns"))
        step = (t_ns.astype(np.int64) - self.first_ns) // self.step_ns
        sound = (tgid > 0) & (node >= 0) & (node < NODE_LIMIT) & (step >= 0) & (step < self.steps)
        weight = np.ones(len(tgid)) if weights is None else np.minimum(weights, SAMPLE_NS)
        pairs = tgid * NODE_LIMIT + node
        for pair in np.unique(pairs[sound]).tolist():
            mine = sound & (pairs == pair)
            part = np.bincount(step[mine], weight[mine].astype(np.float64), self.steps)
            self._series(series, divmod(pair, NODE_LIMIT))[:] += part

    def _spread(self, rows: Rows) -> None:
        t_ns, tgid, node = (rows.numbers(name) for name in ("t_ns", "tgid", "node"))
        sound = (tgid > 0) & (node >= 0) & (node < NODE_LIMIT) & (t_ns > np.uint64(self.first_ns))
        keys = [each[sound] for each in (t_ns, tgid, node)]
        for (at_ns, group, where), ns in group_sums(keys, rows.numbers("oncpu_ns")[sound]):
            if at_ns != self._reads[1]:
                self._reads = self._reads[1], at_ns
                self._parts = self._overlap(*self._reads)
            self._series(self.counted, (group, where))[:] += ns * self._parts

    def _overlap(self, since_ns: int, until_ns: int) -> Numbers:
        """Return the part of the time between two readings that each step has."""
        edges = self.first_ns + self.step_ns * np.arange(self.steps + 1, dtype=np.float64)
        since_ns = min(since_ns, until_ns - 1)
        inside = np.minimum(edges[1:], until_ns) - np.maximum(edges[:-1], since_ns)
        parts: Numbers = np.maximum(inside, 0.0) / (until_ns - since_ns)
        return parts

    def _series(self, series: dict[Key, Numbers], key: Key) -> Numbers:
        if key not in series and len(series) >= SERIES:
            key = (0, 0)
        return series.setdefault(key, np.zeros(self.steps))


def timeline_view(loaded: Loaded, measured: Measure, tgid: int | None) -> TimelineView | None:
    """Return what a process did when, or all processes; None for a trace without events."""
    line = loaded.timeline
    if not line.steps:
        return None
    counted, sampled = (_by_node(series, tgid) for series in (line.counted, line.sampled))
    enough = sum(map(np.sum, sampled.values())) >= MOSTLY * sum(map(np.sum, counted.values()))
    from_samples = bool(sampled) and bool(enough)
    period_ns = max((rate.period_ns for rate in loaded.rates.rates), default=0)
    width = -(-PERIODS * period_ns // line.step_ns) if from_samples else 1
    width = min(max(width, 1), line.steps)
    starts = np.arange(0, line.steps, width)
    middles = line.first_ns + line.step_ns * (2 * starts + width) // 2
    phase = loaded.phases.at(middles.astype(np.uint64)).tolist()

    def steps(sums: Numbers) -> tuple[int, ...]:
        return tuple(map(round, np.add.reduceat(sums, starts).tolist()))

    return TimelineView(
        step_ns=line.step_ns * width,
        phases=tuple(loaded.phases.names[each] for each in phase),
        nodes=tuple(
            NodeSteps(node, steps(sums))
            for node, sums in sorted((sampled if from_samples else counted).items())
        ),
        source="operand sample" if from_samples else "counter",
        moves=steps(_total(line.moves, tgid, line.steps)),
        faults=steps(_total(line.faults, tgid, line.steps)),
        shares=tuple(_shares(loaded, measured, tgid)),
    )


def _by_node(series: dict[Key, Numbers], tgid: int | None) -> dict[int, Numbers]:
    found: dict[int, Numbers] = {}
    for (group, node), sums in sorted(series.items()):
        if tgid in (None, group):
            found[node] = found[node] + sums if node in found else sums
    return found


def _total(series: dict[Key, Numbers], tgid: int | None, steps: int) -> Numbers:
    return sum(_by_node(series, tgid).values(), np.zeros(steps))


def _shares(loaded: Loaded, measured: Measure, tgid: int | None) -> Iterator[ShareSpan]:
    """Yield spans that have samples enough for a share; where they are too few, one without."""
    slots = np.arange(len(measured.slot_tgids))
    mine = slots if tgid is None else np.flatnonzero(measured.slot_tgids == tgid)
    blocks, near = loaded.access.blocks[measured.hardware].over_time(mine)
    least_ns = loaded.timeline.step_ns * loaded.timeline.steps / SPANS
    first_ns, effect = loaded.timeline.first_ns, near or measured.pool_effect or 1.0
    found: list[tuple[int, int, Weighed]] = []
    for start_ns, end_ns, weighed in blocks:
        full = found and (
            found[-1][1] - found[-1][0] >= least_ns
            and found[-1][2].independent(effect) >= LEAST_SAMPLES
        )
        if found and not full:
            start_ns, _, before = found.pop()
            weighed = before + weighed
        found.append((start_ns, end_ns, weighed))
    if len(found) > 1 and found[-1][2].independent(effect) < LEAST_SAMPLES:
        _, end_ns, last = found.pop()
        start_ns, _, before = found.pop()
        found.append((start_ns, end_ns, before + last))
    for start_ns, end_ns, weighed in found:
        bounds = (max(0, start_ns - first_ns), max(0, end_ns - first_ns))
        yield ShareSpan(*bounds, measured.share(weighed, effect=effect))
