"""The address spaces of all processes over time: one order of changes and of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from numatrace.analyze.memory.mappings import AddressSpace, Mapping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.analyze.rows import Numbers, Rows

PROCESSES = 4096
"""Processes whose address spaces are kept; samples of further ones find no mapping."""
MAPPINGS = 131_072
"""Mappings kept per process: twice the kernel's default vm.max_map_count."""
ADDRESS_LIMIT = (1 << 64) - 1
"""Mappings end at or below this: [vsyscall] of x86-64 lies in the upper half."""


class Change(NamedTuple):
    """A `map` (rank 1) or `unmap` (rank 0) row. Unmaps come first among equal times."""

    t_ns: int
    rank: int
    tgid: int
    mapping: Mapping


class Spaces:
    """Which mappings each process has; `steps` takes a batch's changes, in the order of time."""

    def __init__(self) -> None:
        self.spaces: dict[int, AddressSpace] = {}
        self.changes = 0

    def steps(
        self, maps: Rows | None, unmaps: Rows | None, times: Numbers
    ) -> Iterator[tuple[int, int]]:
        """Yield parts [first, last) of sorted `times` between which the address spaces change.

        At each, the spaces are as they were then. Without any change there is one part.
        """
        changes = sorted([*_changes(maps, 1), *_changes(unmaps, 0)], key=lambda change: change[:2])
        done = 0
        for change in changes:
            upto = int(np.searchsorted(times, np.uint64(change.t_ns), side="left"))
            if upto > done:
                yield done, upto
                done = upto
            self._apply(change)
        if len(times) > done:
            yield done, len(times)

    def get(self, tgid: int) -> AddressSpace | None:
        """Return a process's mappings as they are now."""
        return self.spaces.get(tgid)

    def find(self, tgid: int, addr: int) -> Mapping | None:
        """Return the mapping that holds an address of a process now."""
        space = self.spaces.get(tgid)
        return space.find(addr) if space is not None else None

    def _apply(self, change: Change) -> None:
        space = self.spaces.get(change.tgid)
        if space is None:
            if change.tgid <= 0 or len(self.spaces) >= PROCESSES:
                return
            space = self.spaces[change.tgid] = AddressSpace()
        self.changes += 1
        mapping = change.mapping
        if change.rank == 0:
            space.remove(mapping.start, mapping.end, change.t_ns)
        elif len(space) < MAPPINGS:
            space.add(mapping, change.t_ns)


def _changes(rows: Rows | None, rank: int) -> list[Change]:
    if rows is None:
        return []
    numbers = [rows.integers(name) for name in ("t_ns", "tgid", "addr", "bytes")]
    count = len(rows)
    files = [[0] * count, [0] * count]
    texts = [[""] * count, [""] * count]
    if rank:
        files = [rows.integers("inode"), rows.integers("offset")]
        texts = [rows.texts("path"), rows.texts("detail")]
    return [
        Change(t_ns, rank, tgid, Mapping(addr, addr + size, path, inode, perms[:8], offset))
        for t_ns, tgid, addr, size, inode, offset, path, perms in zip(
            *numbers, *files, *texts, strict=True
        )
        if size > 0 and addr + size <= ADDRESS_LIMIT
    ]
