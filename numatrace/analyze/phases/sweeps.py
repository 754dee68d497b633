"""Samples of memory that a model sweeps: its weights, wherever they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.phases.dwell import (
    GRANULE_SHIFT,
    UNKNOWN,
    Pace,
    blocks,
    moments,
    pace,
    swept,
)
from numatrace.analyze.phases.events import by_process, inside_of
from numatrace.analyze.phases.samples import USER
from numatrace.analyze.rows import alike

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numatrace.analyze.phases.events import Area
    from numatrace.analyze.phases.samples import Columns
    from numatrace.analyze.phases.segments import Segment
    from numatrace.analyze.rows import Numbers

NEAR_NS = 200_000_000
"""Stretches that are further apart have no pairs in common: other requests use other caches."""
WINDOW_SWEEPS = 96
WINDOWS = 64
"""A stretch is judged in parts that have so many sweeps, and at most so many parts."""
LITTLE = 0.25
"""A block that is read less than this part of what is usual holds no weights, or only at its
edge."""
KNOWN_SAMPLES = 64
KNOWN_SHARE = 0.15
"""If so many samples, and such a share of those in memory that looks swept, are in memory that is
known to hold weights, that passes are fast is judged by them alone: other memory may hide a slow
one."""


@dataclass(frozen=True, slots=True)
class Sweeps:
    """Samples in swept memory, by their place among all samples."""

    sample: Numbers
    t_ns: Numbers
    addr: Numbers
    block: Numbers
    is_weight: Numbers
    """Whether each is in memory that is known to hold weights."""
    is_known: bool
    """Whether these are so many that speed is judged by them alone."""
    apart_ns: float
    """Samples less than this apart are of the same moment."""

    def inside(self, chosen: Sequence[Segment]) -> Numbers:
        """Return which sweeps are in the chosen stretches (in order of time), as indices."""
        parts = [
            np.arange(*np.searchsorted(self.sample, [segment.first, segment.last]).tolist())
            for segment in chosen
        ]
        return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)

    def at(self, chosen: Numbers) -> Sweeps:
        """Return the chosen ones, a mask."""
        return Sweeps(
            self.sample[chosen],
            self.t_ns[chosen],
            self.addr[chosen],
            self.block[chosen],
            self.is_weight[chosen],
            self.is_known,
            self.apart_ns,
        )


@dataclass(frozen=True, slots=True)
class Measure:
    """What is known of some stretches together."""

    pace: Pace
    density: float
    """Sweeps for each second of CPU time."""
    length_ns: float
    """How long a stretch is, on average over the time that they take."""
    granules: float
    """How many granules the sweeps hit, as many as equal ones would be; from how often two samples
    hit the same."""


def find_sweeps(samples: Columns, inside: Numbers, weights: Sequence[Area]) -> Sweeps:
    """Return the sweeps among the samples of a mask."""
    data = np.flatnonzero(inside & (samples.kind == USER) & (samples.addr > 0))
    addr, write, tgid = samples.addr[data], samples.write[data], samples.tgid[data]
    known = np.zeros(len(data), bool)
    areas = by_process(weights)
    for mine in alike(tgid):
        known[mine] = inside_of(areas.get(int(tgid[mine[0]]), []), addr[mine])[1]
    chosen = (known | swept(addr, write)) & ~write
    found, known = data[chosen], known[chosen]
    return Sweeps(
        sample=found,
        t_ns=samples.t_ns[found],
        addr=addr[chosen],
        block=blocks(addr[chosen], addr[chosen]) if len(found) else np.zeros(0, np.int64),
        is_weight=known,
        is_known=bool(known.sum() >= max(KNOWN_SAMPLES, KNOWN_SHARE * len(known))),
        apart_ns=samples.apart_ns,
    )


def where(sweeps: Sweeps, reference: Sequence[Segment]) -> Sweeps:
    """Return the sweeps in memory that some stretches read as much as other memory, or more.

    Blocks are new ones: parts of that memory that the stretches read equally.
    """
    inside = sweeps.inside(reference)
    block, counts = np.unique(sweeps.block[inside], return_counts=True)
    usual = np.median(np.repeat(counts, counts)) if len(counts) else 0.0
    chosen = np.isin(sweeps.block, block[counts >= max(2.0, LITTLE * usual)])
    chosen |= sweeps.is_weight & sweeps.is_known
    usual_addr = sweeps.addr[inside[chosen[inside]]]
    if not len(usual_addr):
        return sweeps.at(np.zeros(len(sweeps.block), bool))
    found = sweeps.at(chosen)
    return replace(found, block=blocks(found.addr, usual_addr))


def windows(sweeps: Sweeps, segment: Segment, least_ns: float) -> list[Segment]:
    """Return a stretch in parts that have WINDOW_SWEEPS, or more, and are `least_ns` long."""
    inside = sweeps.inside([segment])
    fitting = min(len(inside) / WINDOW_SWEEPS, segment.duration_ns / max(least_ns, 1.0))
    count = max(1, min(int(fitting), WINDOWS))
    cuts_ns = np.linspace(segment.start_ns, segment.end_ns, count + 1).astype(np.int64)
    times = sweeps.t_ns[inside]
    samples = sweeps.sample[inside]
    edges = [segment.first]
    for cut_ns in cuts_ns[1:-1].tolist():
        place = int(np.searchsorted(times, cut_ns))
        edges.append(int(samples[place]) if place < len(samples) else segment.last)
    edges.append(segment.last)
    return [
        replace(
            segment,
            start_ns=int(cuts_ns[number]),
            end_ns=int(cuts_ns[number + 1]),
            first=edges[number],
            last=edges[number + 1],
            cpu_ns=segment.cpu_ns / count,
        )
        for number in range(count)
    ]


def measure(sweeps: Sweeps, chosen: Sequence[Segment]) -> Measure:
    """Return what is known of stretches, in order of time."""
    inside = sweeps.inside(chosen)
    weights = inside[sweeps.is_weight[inside]] if sweeps.is_known else inside
    cpu_ns = sum(segment.cpu_ns for segment in chosen)
    took_ns = [float(segment.duration_ns) for segment in chosen]
    length_ns = sum(each**2 for each in took_ns) / max(sum(took_ns), 1.0)
    found = _pace(sweeps, chosen, weights)
    if len(weights) < len(inside):
        low = max(found.low, _pace(sweeps, chosen, inside).low)
        found = Pace(low, max(low, found.high))
    density = len(weights) / max(cpu_ns, 1.0) * 1e9
    return Measure(found, density, length_ns, _granules(sweeps, weights))


def _granules(sweeps: Sweeps, inside: Numbers) -> float:
    granule = (sweeps.addr[inside] >> np.uint64(GRANULE_SHIFT)).astype(np.int64)
    granule = granule[moments(sweeps.t_ns[inside], granule, sweeps.apart_ns)]
    counts = np.unique(granule, return_counts=True)[1].astype(np.float64)
    pairs = float((counts * (counts - 1)).sum())
    return len(granule) ** 2 / max(pairs, 1.0)


def _pace(sweeps: Sweeps, chosen: Sequence[Segment], inside: Numbers) -> Pace:
    if not len(inside):
        return UNKNOWN
    firsts = np.array([segment.first for segment in chosen], np.int64)
    starts = np.array([segment.start_ns for segment in chosen], np.int64)
    ends = np.array([segment.end_ns for segment in chosen], np.int64)
    far = np.cumsum(np.concatenate([[False], starts[1:] - ends[:-1] > NEAR_NS]))
    stretch = far[np.searchsorted(firsts, sweeps.sample[inside], side="right") - 1]
    return pace(sweeps.t_ns[inside], sweeps.addr[inside], stretch, sweeps.apart_ns)
