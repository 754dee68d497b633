"""Modes that take turns all the time are operations of one kind of work."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from numatrace.analyze.phases.segments import Segment

AMID = 0.5
"""A mode belongs to a group if this share of its stretches have others of the group on both sides
..."""
AMID_LEAST = 3
"""... and so many of them."""
OUTSIDE = -1


def group_modes(segments: list[Segment], modes: AbstractSet[int]) -> list[set[int]]:
    """Return the modes in groups. A slow pass is one mode in attention, and another after it.

    `segments`: all stretches, in order of time.
    """
    group = {mode: mode for mode in modes}
    while True:
        found = _joining(segments, group)
        if found is None:
            break
        mine, other = found
        group = {mode: other if each == mine else each for mode, each in group.items()}
    return [{mode for mode in modes if group[mode] == name} for name in sorted({*group.values()})]


def _joining(segments: list[Segment], group: dict[int, int]) -> tuple[int, int] | None:
    """Return a group that is amid the stretches of another one, and that one; the clearest case."""
    runs = [
        (burst, name)
        for (burst, name), _ in itertools.groupby(
            (segment.burst, group.get(segment.mode, OUTSIDE)) for segment in segments
        )
    ]
    total = Counter(name for _, name in runs)
    amid = Counter(
        (name, left)
        for (first, left), (burst, name), (last, right) in zip(
            runs, runs[1:], runs[2:], strict=False
        )
        if first == burst == last and left == right != OUTSIDE != name
    )
    found = [
        (count, mine, other)
        for (mine, other), count in amid.items()
        if count >= max(AMID_LEAST, AMID * total[mine])
    ]
    return max(found)[1:] if found else None
