"""Phases of a recording without samples: whether CPU time was used at all, by exact accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.phases.samples import LATEST_NS

if TYPE_CHECKING:
    from numatrace.analyze.rows import Rows

TICK_NS = 1 << 30
"""The recorder writes accounts once a second."""
TICKS = 16_384
"""Ticks kept; when there are more, they are made twice as long."""
BUSY = 0.05
"""CPUs in use from which a tick is work."""


class Ticks:
    """CPU time of all threads by time."""

    def __init__(self, limit: int = TICKS) -> None:
        self._limit = limit
        self._width_ns = TICK_NS
        self._sums: dict[int, int] = {}

    def take(self, rows: Rows | None) -> None:
        """Take a batch's `oncpu` rows."""
        if rows is None:
            return
        t_ns, oncpu_ns = rows.numbers("t_ns"), rows.numbers("oncpu_ns")
        sound = (t_ns > 0) & (t_ns < np.uint64(LATEST_NS))
        ticks, which = np.unique(t_ns[sound] // np.uint64(self._width_ns), return_inverse=True)
        sums = np.bincount(which.reshape(-1), oncpu_ns[sound].astype(np.float64), len(ticks))
        for tick, oncpu in zip(ticks.tolist(), sums.tolist(), strict=True):
            self._sums[tick] = self._sums.get(tick, 0) + int(oncpu)
        while len(self._sums) > self._limit:
            self._widen()

    def busy(self) -> list[tuple[int, int]]:
        """Return the stretches [start, end), ns, in which CPU time was used; in order of time.

        A row tells of the time before it, so a stretch begins a tick early.
        """
        used = [
            tick for tick, oncpu in sorted(self._sums.items()) if oncpu >= BUSY * self._width_ns
        ]
        found: list[tuple[int, int]] = []
        for tick in used:
            start_ns, end_ns = (tick - 1) * self._width_ns, (tick + 1) * self._width_ns
            if found and found[-1][1] >= start_ns:
                start_ns = found.pop()[0]
            found.append((start_ns, end_ns))
        return found

    def _widen(self) -> None:
        self._width_ns *= 2
        wide: dict[int, int] = {}
        for tick, oncpu in self._sums.items():
            wide[tick // 2] = wide.get(tick // 2, 0) + oncpu
        self._sums = wide
