"""Page faults by the place that they hit, and the account of those that hit none."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from numatrace.analyze.memory.locate import NOWHERE
from numatrace.analyze.rows import exact_sum, group_sums
from numatrace.analyze.samples.waiting import Waiting

if TYPE_CHECKING:
    from numatrace.analyze.memory.locate import Locator
    from numatrace.analyze.rows import Numbers, Rows


class Faults:
    """All processes' faults, in one pass over the batches."""

    def __init__(self) -> None:
        self.by_place: Counter[int] = Counter()
        self.kept = 0
        self.unattributed = 0
        self._waiting = Waiting()

    @property
    def attributed(self) -> int:
        """Faults given to a place so far."""
        return sum(self.by_place.values())

    def take(self, rows: Rows, places: Numbers) -> None:
        """Take a batch's faults, each with its place or NOWHERE."""
        weights = rows.numbers("weight", 1)
        self.kept += exact_sum(weights)
        found = places != NOWHERE
        self._count(places[found], weights[found])
        columns = [rows.numbers(name)[~found] for name in ("t_ns", "tgid", "addr")]
        left = self._waiting.add(*columns, weights[~found])
        self.unattributed += exact_sum(weights[~found][left])

    def settle(self, locator: Locator, now_ns: int) -> None:
        """Give waiting faults to mappings that have been reported since."""
        found, late = self._waiting.settle(locator, now_ns)
        if found:
            self._count(*found)
        if late:
            self.unattributed += exact_sum(late[1])

    def finish(self) -> None:
        """Faults that still wait belong to no mapping that was ever reported."""
        for weights in self._waiting.finish():
            self.unattributed += exact_sum(weights)

    def _count(self, places: Numbers, weights: Numbers) -> None:
        for (place,), weight in group_sums([places], weights):
            self.by_place[place] += weight
