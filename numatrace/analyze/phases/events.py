"""Keep what phases are told from beside samples: when processes began, and their mappings."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from numatrace.analyze.memory.classes import DELETED
from numatrace.analyze.memory.spaces import ADDRESS_LIMIT, PROCESSES
from numatrace.analyze.rows import alike

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numatrace.analyze.rows import Numbers, Rows

FILES = 65_536
"""Mappings of files that are kept, and tensors, and addresses of tensors."""
EXPERTS = "_exps."
CACHE = "cache_"
"""How llama.cpp's names of the caches of keys and values begin."""
CODE_BITS = 40
"""Offsets in a file of code; what is above tells files apart."""


class Area(NamedTuple):
    """Memory of a process: [start, end), from `t_ns` on."""

    tgid: int
    start: int
    end: int
    t_ns: int
    inode: int
    offset: int


class Events:
    """Beginnings of processes and mappings of files, in one pass over the batches."""

    def __init__(self) -> None:
        self.born: dict[int, int] = {}
        """When processes began or last replaced their program [ns], if in the recording."""
        self._files: dict[tuple[int, int, int], tuple[Area, str]] = {}
        self._code: dict[tuple[int, int, int], Area] = {}
        self._tensors_at: dict[tuple[int, int], Area] = {}
        self._tensors: dict[tuple[str, str], int] = {}
        self._models: set[int] = set()

    def take(self, rows: dict[str, Rows]) -> None:
        """Take a batch."""
        for kind in ("fork", "exec"):
            if kind in rows:
                self._births(rows[kind])
        if "map" in rows:
            self._map(rows["map"])
        if "tensor" in rows:
            self._table(rows["tensor"])
        if "tensor_at" in rows:
            self._placed(rows["tensor_at"])

    @property
    def weight_bytes(self) -> int:
        """Bytes of the largest model that every pass reads: its experts apart."""
        sums: dict[str, int] = {}
        for (path, _), size in self._tensors.items():
            sums[path] = sums.get(path, 0) + size
        return max(sums.values(), default=0)

    def weights(self) -> list[Area]:
        """Return the memory known to be read in each pass: mapped models, placed tensors."""
        mapped = [
            area
            for area, path in self._files.values()
            if area.inode in self._models or path.removesuffix(DELETED).endswith(".gguf")
        ]
        return [*mapped, *self._tensors_at.values()]

    def code(self, tgid: Numbers, ip: Numbers) -> Numbers:
        """Return the same number (uint64) for the same code, wherever it is mapped."""
        found = ip.copy()
        codes = by_process(self._code.values())
        for mine in alike(tgid):
            areas = codes.get(int(tgid[mine[0]]), [])
            which, inside = inside_of(areas, ip[mine])
            hits = mine[inside]
            start = np.array([area.start - area.offset for area in areas], np.int64)
            inode = np.array([area.inode for area in areas], np.uint64)
            if len(hits):
                at = which[inside]
                offset = ip[hits] - start.astype(np.uint64)[at]
                found[hits] = inode[at] << np.uint64(CODE_BITS) ^ offset
        return found

    def _births(self, rows: Rows) -> None:
        times, tgids = rows.integers("t_ns"), rows.integers("tgid")
        parents = rows.integers("ptgid") if rows.kind == "fork" else [0] * len(rows)
        for t_ns, tgid, parent in zip(times, tgids, parents, strict=True):
            if tgid > 0 and tgid != parent and (tgid in self.born or len(self.born) < PROCESSES):
                self.born[tgid] = max(t_ns, self.born.get(tgid, 0))

    def _map(self, rows: Rows) -> None:
        names = ("tgid", "addr", "bytes", "t_ns", "inode", "offset")
        for tgid, addr, size, *rest, path, perms in zip(
            *(rows.integers(name) for name in names),
            rows.texts("path"),
            rows.texts("detail"),
            strict=True,
        ):
            area = Area(tgid, addr, addr + size, *rest)
            if not area.inode or not 0 < size <= ADDRESS_LIMIT - addr:
                continue
            key = tgid, addr, size
            if "x" in perms and area.offset <= addr and len(self._code) < FILES:
                self._code[key] = area
            elif "x" not in perms and len(self._files) < FILES:
                self._files[key] = area, path

    def _table(self, rows: Rows) -> None:
        if len(self._models) < FILES:
            self._models.update(set(rows.integers("inode")[:FILES]) - {0})
        paths, names = rows.texts("path"), rows.texts("name")
        for path, name, size in zip(paths, names, rows.integers("bytes"), strict=True):
            if EXPERTS not in name and len(self._tensors) < FILES:
                self._tensors[path, name] = size

    def _placed(self, rows: Rows) -> None:
        names = ("tgid", "addr", "bytes", "t_ns")
        for tgid, addr, size, t_ns, path, name in zip(
            *(rows.integers(each) for each in names),
            rows.texts("path"),
            rows.texts("name"),
            strict=True,
        ):
            # A model's own tensors have a file. The caches of its layers are read with them.
            is_swept = path or name.startswith(CACHE)
            if is_swept and 0 < size <= ADDRESS_LIMIT - addr and len(self._tensors_at) < FILES:
                self._tensors_at[tgid, addr] = Area(tgid, addr, addr + size, t_ns, 0, 0)


def by_process(areas: Iterable[Area]) -> dict[int, list[Area]]:
    """Return the areas of each process."""
    found: dict[int, list[Area]] = {}
    for area in areas:
        found.setdefault(area.tgid, []).append(area)
    return found


def inside_of(areas: Iterable[Area], addr: Numbers) -> tuple[Numbers, Numbers]:
    """Return for each address (uint64) the number of its area, and a mask of those that have one.

    Of areas that overlap, the one that begins last counts.
    """
    listed = list(areas)
    starts = np.array([area.start for area in listed], np.uint64)
    ends = np.array([area.end for area in listed], np.uint64)
    order = np.argsort(starts, kind="stable")
    place = np.searchsorted(starts[order], addr, side="right") - 1
    if not listed:
        return np.zeros(len(addr), np.int64), np.zeros(len(addr), bool)
    which = order[np.maximum(place, 0)]
    return which, (place >= 0) & (addr < ends[which])
