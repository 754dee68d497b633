"""Rows of a batch that tell about private memory, by process."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from numatrace.analyze.memory.mappings import Mapping
from numatrace.analyze.memory.trail import (
    ADDRESS_LIMIT,
    GONE_BYTES,
    Block,
    Change,
    GgmlBuffer,
    TensorAt,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.analyze.rows import Rows

Batch = dict[str, "Rows"]
Place = tuple[int, int, int, int]
"""Process, time, and where memory begins and ends."""

NAME_LIMIT = 256

GGML = re.compile(r"ggml (any|weights|compute)(?: (\S{1,64}))?")
"""Detail of a `buffer` row that ggml itself tells of; any other is of an allocator."""


def new_programs(batch: Batch) -> Iterator[tuple[int, int]]:
    """Yield processes that were born or that run another program, and since when."""
    forks, execs = batch.get("fork"), batch.get("exec")
    if forks is not None:
        columns = (forks.integers(name) for name in ("tgid", "ptgid", "t_ns"))
        yield from (
            (tgid, t_ns) for tgid, ptgid, t_ns in zip(*columns, strict=True) if tgid != ptgid
        )
    if execs is not None:
        yield from zip(execs.integers("tgid"), execs.integers("t_ns"), strict=True)


def map_changes(batch: Batch) -> dict[int, list[Change]]:
    """Return the changes of mappings of each process."""
    found: defaultdict[int, list[Change]] = defaultdict(list)
    for kind, added in (("unmap", False), ("map", True)):
        rows = batch.get(kind)
        if rows is None:
            continue
        inodes = rows.integers("inode") if added else [0] * len(rows)
        perms = rows.texts("detail") if added else [""] * len(rows)
        paths = rows.texts("path") if added else [""] * len(rows)
        for where, inode, perm, path in zip(_places(rows), inodes, perms, paths, strict=True):
            tgid, t_ns, start, end = where
            if tgid > 0 and start < end:
                mapping = Mapping(start, end, path, inode, perm[:8])
                found[tgid].append(Change(t_ns, added, mapping))
    return found


def tensors_at(batch: Batch) -> dict[int, list[TensorAt]]:
    """Return the tensors of each process that were given an address."""
    found: defaultdict[int, list[TensorAt]] = defaultdict(list)
    rows = batch.get("tensor_at")
    if rows is None:
        return found
    texts = (rows.texts(name) for name in ("name", "path", "detail"))
    for (tgid, t_ns, start, end), name, path, type_ in zip(_places(rows), *texts, strict=True):
        if tgid > 0 and start < end:
            found[tgid].append(TensorAt(start, end, t_ns, name[:NAME_LIMIT], path, type_[:64]))
    return found


def buffers_seen(batch: Batch) -> dict[int, list[GgmlBuffer]]:
    """Return the buffers of each process that ggml tells of."""
    found: defaultdict[int, list[GgmlBuffer]] = defaultdict(list)
    for (tgid, t_ns, start, end), match in _buffers(batch):
        if match is not None and start < end:
            found[tgid].append(GgmlBuffer(start, end, t_ns, match[1], match[2] or ""))
    return found


def blocks_seen(batch: Batch) -> dict[int, list[Block]]:
    """Return the blocks of each process's allocator."""
    found: defaultdict[int, list[Block]] = defaultdict(list)
    for (tgid, t_ns, start, end), match in _buffers(batch):
        if match is None:
            found[tgid].append(Block(start, max(end, start + GONE_BYTES), t_ns))
    return found


def _buffers(batch: Batch) -> Iterator[tuple[Place, re.Match[str] | None]]:
    rows = batch.get("buffer")
    if rows is None:
        return
    for place, detail in zip(_places(rows), rows.texts("detail"), strict=True):
        if place[0] > 0 and place[2] > 0:
            yield place, GGML.fullmatch(detail)


def _places(rows: Rows) -> list[Place]:
    """Process, time, begin and end of each row; the end is the begin where it makes no sense."""
    columns = (rows.integers(name) for name in ("tgid", "t_ns", "addr", "bytes"))
    return [
        (tgid, t_ns, addr, addr + size if addr + size <= ADDRESS_LIMIT else addr)
        for tgid, t_ns, addr, size in zip(*columns, strict=True)
    ]
