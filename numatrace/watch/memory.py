"""Bytes of the followed processes on each node, and of the model files that they map."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Hashable, Iterable, Mapping

    from numatrace.record.memory.placement import PlaceRow


@dataclass(frozen=True, slots=True)
class NodeBytes:
    """Bytes by node."""

    all: Counter[int] = field(default_factory=Counter)
    model: Counter[int] = field(default_factory=Counter)


def node_bytes(spaces: Mapping[int, Iterable[PlaceRow]], models: Container[int]) -> NodeBytes:
    """Sum up where the pages of processes lie.

    `spaces`: the last snapshot of each process; `models`: inodes of model files. What several
    processes map of a file counts once, as the one sees it that has most of it.
    """
    found = NodeBytes()
    for rows in _pieces(spaces).values():
        is_model = rows[0].inode != 0 and rows[0].inode in models
        for row in rows:
            if row.mem_node >= 0:
                found.all[row.mem_node] += row.node_bytes
                found.model[row.mem_node] += row.node_bytes * is_model
    return found


def _pieces(spaces: Mapping[int, Iterable[PlaceRow]]) -> dict[Hashable, list[PlaceRow]]:
    kept: dict[Hashable, list[PlaceRow]] = {}
    for tgid, rows in spaces.items():
        mine: dict[Hashable, list[PlaceRow]] = {}
        for row in rows:
            mine.setdefault(_key(tgid, row), []).append(row)
        for key, piece in mine.items():
            if key not in kept or _present(piece) > _present(kept[key]):
                kept[key] = piece
    return kept


def _key(tgid: int, row: PlaceRow) -> Hashable:
    """Name a piece: of a file by what it is of the file, else by where it is in its process."""
    if row.inode:
        return (row.inode, row.path, row.offset, row.bytes)
    return (tgid, row.addr)


def _present(piece: Iterable[PlaceRow]) -> int:
    return sum(row.node_bytes for row in piece if row.mem_node >= 0)
