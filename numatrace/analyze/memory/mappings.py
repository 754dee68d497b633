"""The address space of one process over time: which mapping holds an address."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numatrace.analyze.rows import Numbers

GONE_KEPT = 256
"""Mappings that are remembered after they went, for faults that arrive later than the unmapping."""


class MapKey(NamedTuple):
    """What faults are counted by: a mapped file and its use, or an anonymous mapping."""

    path: str
    inode: int
    executable: bool
    start: int
    """Start of an anonymous mapping; 0 for files, whose mappings count together."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """One mapping, [start, end), as in /proc/PID/maps."""

    start: int
    end: int
    path: str
    inode: int
    perms: str
    offset: int = 0

    @property
    def key(self) -> MapKey:
        """What its faults are counted by."""
        start = 0 if self.path else self.start
        return MapKey(self.path, self.inode, "x" in self.perms, start)


class AddressSpace:
    """The mappings of a process that are there now, and the last ones that went."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._mappings: dict[int, Mapping] = {}
        self._gone: deque[tuple[int, Mapping]] = deque(maxlen=GONE_KEPT)
        self._index: tuple[Numbers, Numbers] | None = None

    def __len__(self) -> int:
        """Return how many mappings are there."""
        return len(self._starts)

    def add(self, mapping: Mapping, t_ns: int) -> list[Mapping]:
        """Put a mapping in; what it covers is taken out and returned."""
        covered = [self._mappings[start] for start in self._overlapping(mapping.start, mapping.end)]
        for old in covered:
            self._take_out(old, t_ns)
        insort(self._starts, mapping.start)
        self._mappings[mapping.start] = mapping
        self._index = None
        return covered

    def remove(self, start: int, end: int, t_ns: int) -> Mapping | None:
        """Take out the mapping that has exactly these bounds, and return it."""
        mapping = self._mappings.get(start)
        if mapping is None or mapping.end != end:
            return None
        self._take_out(mapping, t_ns)
        return mapping

    def find(self, addr: int) -> Mapping | None:
        """Return the mapping that holds an address now."""
        place = bisect_right(self._starts, addr) - 1
        mapping = self._mappings[self._starts[place]] if place >= 0 else None
        return mapping if mapping is not None and addr < mapping.end else None

    def locate(self, addrs: Numbers) -> Numbers:
        """Return for each address the start of its mapping and whether it has one.

        The result has two rows of the length of `addrs`: starts, and 1 or 0.
        """
        if self._index is None:
            last = [self._mappings[start].end for start in self._starts]
            self._index = np.array(self._starts, np.uint64), np.array(last, np.uint64)
        starts, ends = self._index
        if not len(starts):
            return np.zeros((2, len(addrs)), np.uint64)
        place = np.searchsorted(starts, addrs, side="right").astype(np.int64) - 1
        safe = np.maximum(place, 0)
        inside = (place >= 0) & (addrs < ends[safe])
        return np.stack([starts[safe], inside.astype(np.uint64)])

    def at(self, start: int) -> Mapping:
        """Return the mapping that starts there."""
        return self._mappings[start]

    def paths(self) -> list[str]:
        """Return the files of the mappings that are there now."""
        return [mapping.path for mapping in self._mappings.values() if mapping.path]

    def gone_since(self, t_ns: int) -> list[Mapping]:
        """Return remembered mappings that went after `t_ns`, the last one first."""
        return [mapping for gone_ns, mapping in reversed(self._gone) if gone_ns > t_ns]

    def _overlapping(self, start: int, end: int) -> list[int]:
        first = max(0, bisect_right(self._starts, start) - 1)
        found = self._starts[first : bisect_left(self._starts, end)]
        return [place for place in found if self._mappings[place].end > start]

    def _take_out(self, mapping: Mapping, t_ns: int) -> None:
        del self._starts[bisect_left(self._starts, mapping.start)]
        del self._mappings[mapping.start]
        self._gone.append((t_ns, mapping))
        self._index = None
