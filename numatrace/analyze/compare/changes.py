"""The difference of two figures, its interval, and whether it is more than chance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from numatrace.model.comparison import Change
from numatrace.model.measured import Figure

if TYPE_CHECKING:
    from numatrace.model.measured import Source

NOTABLE = 0.05
"""Shares that differ by less than this are called the same. Sampling is not the only chance: of
two recordings of a server whose threads may run anywhere, one is some points above the other."""


def change(before: Figure | None, after: Figure | None, unit: str = "share") -> Change:
    """Return the change from one figure to another of the same kind.

    Figures of different sources are put side by side and not subtracted: an operand sample counts
    reads from caches, a hardware sample only those that memory served, and an expected share
    assumes that threads read all alike.
    """
    if before is None or after is None or before.source != after.source:
        return Change(unit, before, after)
    moved = after.value - before.value
    if before.low is None and after.low is None:
        return Change(unit, before, after, moved)
    low, high = interval(before, after)
    return Change(unit, before, after, moved, low, high, low > 0 or high < 0)


def interval(before: Figure, after: Figure) -> tuple[float, float]:
    """Return the 95 % interval of after - before, from the intervals of both.

    With d the difference, and l and u the ends of each interval, it is
    d - sqrt((a - l_a)² + (u_b - b)²) to d + sqrt((u_a - a)² + (b - l_b)²): method 10 of Newcombe,
    "Interval estimation for the difference between independent proportions: comparison of eleven
    methods", Statistics in Medicine 17 (1998), 873-890. It takes Wilson's intervals, which those of
    measured shares are. A figure without an interval counts as exact.
    """
    low_b, high_b = _ends(before)
    low_a, high_a = _ends(after)
    moved = after.value - before.value
    low = moved - math.hypot(after.value - low_a, high_b - before.value)
    high = moved + math.hypot(high_a - after.value, before.value - low_b)
    return low, high


def notable(share: Change) -> bool:
    """Whether a change of a share is at least NOTABLE, and not mere chance of the samples."""
    large = share.change is not None and abs(share.change) >= NOTABLE
    return large and share.beyond_chance is not False


def exact(value: float | None, unit: str, source: Source) -> Figure | None:
    """Return a figure without an interval, or None for no value."""
    return None if value is None else Figure(value, unit, source)


def _ends(figure: Figure) -> tuple[float, float]:
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    return low, high
