"""Give every page fault to the mapping that held its address then, and keep the account."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from numatrace.analyze.mappings import AddressSpace, MapKey, Mapping
from numatrace.analyze.rows import exact_sum, group_sums

if TYPE_CHECKING:
    from numatrace.analyze.rows import Numbers, Rows

PENDING_PAGES = 262_144
"""Pages per process whose faults wait for their mapping to be reported: 1 GiB of 4 KiB pages."""
PROCESSES = 4096
"""Processes whose address spaces are kept; faults of further ones stay unattributed."""
MAPPINGS = 131_072
"""Mappings kept per process: twice the kernel's default vm.max_map_count."""
ADDRESS_LIMIT = (1 << 64) - 1
"""Mappings end at or below this: [vsyscall] of x86-64 lies in the upper half."""
KEYS = 16_384
"""Distinct mappings per process whose faults are counted apart."""
GONE_PRIVATE = MapKey("", 0, False, 0)
"""Counts the faults of anonymous mappings that are gone."""
REST = MapKey("(further files)", 0, False, 0)
"""Counts the faults of mapped files beyond KEYS."""
BUCKET_SHIFT = 12


class Change(NamedTuple):
    """A `map` (rank 1) or `unmap` (rank 0) row. Unmaps come first among equal times."""

    t_ns: int
    rank: int
    tgid: int
    mapping: Mapping


class Space:
    """One process: its address space, its faults so far, and those that wait for a mapping."""

    def __init__(self) -> None:
        self.addresses = AddressSpace()
        self.faults: Counter[MapKey] = Counter()
        self.pending: dict[int, int] = {}
        self._prune_at = KEYS

    def take(self, addrs: Numbers, weights: Numbers, t_ns: int) -> int:
        """Count faults since `t_ns` by mapping; return those that found none and cannot wait."""
        hit = self._count_hits(addrs, weights)
        for mapping in self.addresses.gone_since(t_ns) if not hit.all() else ():
            inside = ~hit & (addrs >= mapping.start) & (addrs < mapping.end)
            self._count(mapping.key, exact_sum(weights[inside]))
            hit |= inside
        return self._wait(addrs[~hit], weights[~hit])

    def change(self, change: Change) -> None:
        """Apply a mapping that came or went."""
        mapping = change.mapping
        if change.rank == 0:
            self.addresses.remove(mapping.start, mapping.end, change.t_ns)
        elif len(self.addresses) < MAPPINGS:
            self.addresses.add(mapping, change.t_ns)

    def settle(self) -> None:
        """Give waiting faults to mappings that have been reported since."""
        if not self.pending:
            return
        pages = np.fromiter(self.pending, np.uint64, len(self.pending))
        starts, inside = self.addresses.locate(pages << np.uint64(BUCKET_SHIFT))
        found = inside.astype(bool)
        for page, start in zip(pages[found].tolist(), starts[found].tolist(), strict=True):
            self._count(self.addresses.at(start).key, self.pending.pop(page))

    def _count_hits(self, addrs: Numbers, weights: Numbers) -> Numbers:
        """Count the faults whose mapping is there; return which ones these are."""
        starts, inside = self.addresses.locate(addrs)
        hit: Numbers = inside.astype(bool)
        for (start,), weight in group_sums([starts[hit]], weights[hit]):
            self._count(self.addresses.at(start).key, weight)
        return hit

    def _wait(self, addrs: Numbers, weights: Numbers) -> int:
        left = 0
        pages = addrs >> np.uint64(BUCKET_SHIFT)
        for (page,), weight in group_sums([pages], weights):
            if page in self.pending or len(self.pending) < PENDING_PAGES:
                self.pending[page] = self.pending.get(page, 0) + weight
            else:
                left += weight
        return left

    def _count(self, key: MapKey, weight: int) -> None:
        if not weight:
            return
        if key not in self.faults and len(self.faults) >= self._prune_at:
            self._prune()
        known = key in self.faults or len(self.faults) < 2 * KEYS
        self.faults[key if known else REST] += weight

    def _prune(self) -> None:
        """Count anonymous mappings that are gone as one: a server makes and drops many."""
        for key in list(self.faults):
            if key.start and self.addresses.find(key.start) is None:
                self.faults[GONE_PRIVATE] += self.faults.pop(key)
        self._prune_at = max(KEYS, len(self.faults) + KEYS // 4)


class Attribution:
    """All processes' faults, in one pass over the batches."""

    def __init__(self) -> None:
        self.spaces: dict[int, Space] = {}
        self.kept = 0
        self.unattributed = 0
        self.changes = 0

    def take(self, maps: Rows | None, unmaps: Rows | None, faults: Rows | None) -> None:
        """Take one batch: its changes of mappings and its faults, in the order of time."""
        changes = sorted([*_changes(maps, 1), *_changes(unmaps, 0)], key=lambda change: change[:2])
        columns = _fault_columns(faults) if faults is not None else None
        if columns is not None:
            self.kept += exact_sum(columns[3])
        done = 0
        for change in changes:
            if columns is not None:
                upto = int(np.searchsorted(columns[0], np.uint64(change.t_ns), side="left"))
                self._faults([column[done:upto] for column in columns])
                done = max(done, upto)
            space = self._space(change.tgid)
            if space is not None:
                space.change(change)
                self.changes += 1
        if columns is not None:
            self._faults([column[done:] for column in columns])
        for tgid in sorted({change.tgid for change in changes}):
            if tgid in self.spaces:
                self.spaces[tgid].settle()

    def finish(self) -> None:
        """Faults that still wait belong to no mapping that was ever reported."""
        for space in self.spaces.values():
            space.settle()
            self.unattributed += sum(space.pending.values())
            space.pending = {}

    @property
    def attributed(self) -> int:
        """Faults given to a mapping so far."""
        return sum(sum(space.faults.values()) for space in self.spaces.values())

    def find(self, tgid: int, addr: int) -> Mapping | None:
        """Return the mapping that holds an address of a process now."""
        space = self.spaces.get(tgid)
        return space.addresses.find(addr) if space is not None else None

    def _faults(self, columns: list[Numbers]) -> None:
        times, tgids, addrs, weights = columns
        for tgid in np.unique(tgids).tolist():
            mine = tgids == tgid
            space = self._space(tgid)
            if space is None:
                self.unattributed += exact_sum(weights[mine])
            else:
                oldest = int(times[mine][0])
                self.unattributed += space.take(addrs[mine], weights[mine], oldest)

    def _space(self, tgid: int) -> Space | None:
        space = self.spaces.get(tgid)
        if space is None and tgid > 0 and len(self.spaces) < PROCESSES:
            space = self.spaces[tgid] = Space()
        return space


def _fault_columns(faults: Rows) -> list[Numbers]:
    """Time, process, address and weight of the faults, in the order of time."""
    times = faults.numbers("t_ns")
    order = np.argsort(times, kind="stable")
    columns = [times, faults.numbers("tgid"), faults.numbers("addr"), faults.numbers("weight", 1)]
    return [column[order] for column in columns]


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
