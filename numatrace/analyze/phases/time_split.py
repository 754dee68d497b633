"""Divide time that was counted over an interval among the phases that the interval saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numatrace.analyze.phases.phases import Phases

IDLE_PART = 0.05
"""What an idle moment counts, against one of any other phase: a server that waits for requests
takes little CPU time, and what there is in an interval was used in its other phases."""


class TimeSplit:
    """CPU time by phase, from totals that are read at intervals."""

    def __init__(self, phases: Phases) -> None:
        self._names = phases.names
        self._starts = np.array([span.start_ns for span in phases.spans], np.float64)
        self._ends = np.array([span.end_ns for span in phases.spans], np.float64)
        self._phases = np.array([self._names.index(span.phase) for span in phases.spans], np.int64)
        self._weights = np.where(self._phases == self._names.index("idle"), IDLE_PART, 1.0)
        self._at = phases.at
        self._parts: tuple[tuple[int, int], list[tuple[int, float]]] = ((-1, -1), [])

    def split(self, since_ns: int, t_ns: int, oncpu_ns: int) -> list[tuple[str, int]]:
        """Return a total's part in each phase between two moments; together they are the total."""
        if self._parts[0] != (since_ns, t_ns):
            self._parts = (since_ns, t_ns), self._shares(since_ns, t_ns)
        found, left = [], oncpu_ns
        for phase, share in self._parts[1][:-1]:
            part = min(left, round(oncpu_ns * share))
            found.append((self._names[phase], part))
            left -= part
        return [*found, (self._names[self._parts[1][-1][0]], left)]

    def _shares(self, since_ns: int, t_ns: int) -> list[tuple[int, float]]:
        overlap = np.minimum(self._ends, t_ns) - np.maximum(self._starts, since_ns)
        weighed = np.maximum(overlap, 0.0) * self._weights
        sums = np.bincount(self._phases, weighed, len(self._names))
        total = float(sums.sum())
        if total <= 0:
            return [(int(self._at(np.array([t_ns], np.uint64))[0]), 1.0)]
        return [(int(phase), float(sums[phase]) / total) for phase in np.flatnonzero(sums)]
