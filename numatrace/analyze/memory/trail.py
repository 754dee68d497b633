"""What a trace says of one process's private memory: tensors, buffers and mappings over time.

Later things take the place of earlier ones that lie under them, and what is unmapped is gone: so a
model that is loaded again, or another one, leaves nothing of the first behind.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from numatrace.analyze.memory.mappings import AddressSpace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numatrace.analyze.memory.mappings import Mapping

MAX_ITEMS = 65_536
"""Tensors, buffers and mappings of each kind that are kept of a process; the largest models have
some 3,000 tensors."""

GONE_BYTES = 1

ADDRESS_LIMIT = (1 << 64) - 1


class TensorAt(NamedTuple):
    """A tensor was given [start, end) of the memory. `path`, `type`: "" where unknown."""

    start: int
    end: int
    t_ns: int
    name: str
    path: str
    type: str


class GgmlBuffer(NamedTuple):
    """A buffer as ggml itself describes it: `use` is any, weights or compute; `type` may be ""."""

    start: int
    end: int
    t_ns: int
    use: str
    type: str


class Change(NamedTuple):
    """A mapping came (`added`) or went."""

    t_ns: int
    added: bool
    mapping: Mapping


class Block(NamedTuple):
    """A block of the allocator, [start, end). One of GONE_BYTES says that it is there no more."""

    start: int
    end: int
    t_ns: int


Item = TypeVar("Item", TensorAt, GgmlBuffer, Block)


class Trail:
    """The state of one process's private memory after the last change."""

    def __init__(self) -> None:
        self.space = AddressSpace()
        self.tensors: list[TensorAt] = []
        self.buffers: list[GgmlBuffer] = []
        self.blocks: list[Block] = []
        self._inodes: dict[int, int] = {}

    @property
    def inodes(self) -> set[int]:
        """Inodes of the files that are mapped."""
        return set(self._inodes.values())

    def forget_before(self, t_ns: int) -> None:
        """Another program or process has the memory since then."""
        self.tensors = [item for item in self.tensors if item.t_ns >= t_ns]
        self.buffers = [item for item in self.buffers if item.t_ns >= t_ns]
        self.blocks = [item for item in self.blocks if item.t_ns >= t_ns]

    def map(self, changes: Iterable[Change]) -> None:
        """Apply changes of mappings; what lies in memory that went and did not come back goes."""
        removed: list[Mapping] = []
        for change in sorted(changes, key=lambda change: change[:2]):
            mapping = change.mapping
            if change.added and len(self.space) < MAX_ITEMS:
                removed += self.space.add(mapping, change.t_ns)
                if mapping.inode:
                    self._inodes[mapping.start] = mapping.inode
            elif not change.added:
                self.space.remove(mapping.start, mapping.end, change.t_ns)
                removed.append(mapping)
        for mapping in removed:
            if self.space.find(mapping.start) is None:
                self._inodes.pop(mapping.start, None)
        touched = _Touched(removed)
        self.tensors = [item for item in self.tensors if self._stays(item, touched)]
        self.buffers = [item for item in self.buffers if self._stays(item, touched)]
        self.blocks = [item for item in self.blocks if self._stays(item, touched)]

    def place(self, tensors: Iterable[TensorAt]) -> None:
        """Tensors were given addresses."""
        self.tensors = latest([*self.tensors, *tensors])

    def put(self, buffers: Iterable[GgmlBuffer]) -> None:
        """Buffers were seen: a tensor from before a new one that lies there is gone."""
        known = {(each.start, each.end) for each in self.buffers}
        self.buffers = latest([*self.buffers, *buffers])
        for new in self.buffers:
            if (new.start, new.end) not in known:
                self._drop_tensors(new.start, new.end, new.t_ns)

    def lay(self, blocks: Iterable[Block]) -> None:
        """The allocator's blocks were seen: a tensor from before across a new one's end is gone."""
        known = set(self.blocks)
        self.blocks = latest([*self.blocks, *blocks])
        for new in self.blocks:
            if new not in known:
                self._drop_across(new.start, new.t_ns)
                self._drop_across(new.end, new.t_ns)
        self.blocks = [each for each in self.blocks if each.end - each.start > GONE_BYTES]

    def is_private(self, start: int, end: int) -> bool:
        """Whether a range is the process's own memory that it may write to."""
        if start >= end:
            return False
        ends = self.space.find(start), self.space.find(end - 1)
        return all(
            each is not None and not each.inode and each.perms[1:2] == "w" and "p" in each.perms
            for each in ends
        )

    def is_mapped(self, start: int, end: int) -> bool:
        """Whether both ends of a range are mapped."""
        return self.space.find(start) is not None and self.space.find(end - 1) is not None

    def _stays(self, item: Item, touched: _Touched) -> bool:
        return not touched.overlap(item.start, item.end) or self.is_mapped(item.start, item.end)

    def _drop_tensors(self, start: int, end: int, t_ns: int) -> None:
        """Drop tensors from before `t_ns` that overlap a range."""
        first = bisect_right(self.tensors, start, key=lambda item: item.end)
        stop = bisect_left(self.tensors, end, key=lambda item: item.start)
        self.tensors[first:stop] = [i for i in self.tensors[first:stop] if i.t_ns >= t_ns]

    def _drop_across(self, addr: int, t_ns: int) -> None:
        """Drop the tensor from before `t_ns` that has bytes on both sides of an address."""
        place = bisect_right(self.tensors, addr, key=lambda item: item.end)
        if place < len(self.tensors):
            item = self.tensors[place]
            if item.start < addr and item.t_ns < t_ns:
                del self.tensors[place]


class _Touched:
    """Ranges, to ask whether one of them overlaps another."""

    def __init__(self, mappings: Iterable[Mapping]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted((mapping.start, mapping.end) for mapping in mappings):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(end, self._ends[-1])
            else:
                self._starts.append(start)
                self._ends.append(end)

    def overlap(self, start: int, end: int) -> bool:
        place = bisect_left(self._starts, end) - 1
        return place >= 0 and self._ends[place] > start


def latest(items: Iterable[Item]) -> list[Item]:
    """Return the items without those that lie under a later one, by ascending address."""
    ordered = sorted(items, key=lambda item: -item.t_ns)
    starts: list[int] = []
    kept: dict[int, Item] = {}
    for item in ordered:
        place = bisect_right(starts, item.start)
        before = kept[starts[place - 1]] if place else None
        after = kept[starts[place]] if place < len(starts) else None
        free = (before is None or before.end <= item.start) and (
            after is None or after.start >= item.end
        )
        if free and len(kept) < MAX_ITEMS and item.start < item.end <= ADDRESS_LIMIT:
            insort(starts, item.start)
            kept[item.start] = item
    return [kept[start] for start in starts]
