"""Where every piece of memory lies: its latest placement snapshot, and how often it changed."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from numatrace.analyze.memory.spaces import ADDRESS_LIMIT
from numatrace.model.cpulist import NODE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.analyze.rows import Rows

ABSENT = -1
"""The mem_node of pages that are not present."""
PIECES = 500_000
"""Pieces that are kept: a large model has some 2,000 tensors, a process at most 65,530 mappings."""
GONE_TOGETHER_NS = 2_000_000_000
"""A process's pieces that went within this time went with it: two intervals of the recorder."""
Z_95 = 1.96
CELL_PAGES = 4
"""The recorder looks at cells of this many neighbouring pages. Neighbours may well lie together, so
a cell counts as one draw, not as four."""


class PieceKey(NamedTuple):
    """Process, start address and tensor name (or "") of a piece."""

    tgid: int
    addr: int
    name: str


@dataclass(slots=True)
class Piece:
    """A mapping, or a tensor's part of one, and where it lies."""

    key: PieceKey
    bytes: int
    path: str
    inode: int
    offset: int
    t_ns: int
    nodes: dict[int, int] = field(default_factory=dict)
    looked_at: dict[int, int] = field(default_factory=dict)
    sampled_pages: int = 0
    piece_pages: int = 0
    changes: int = 0
    gone_ns: int | None = None
    _before: dict[int, int] | None = None

    @property
    def node_bytes(self) -> dict[int, int]:
        """Bytes on each node that holds some."""
        return {node: size for node, size in sorted(self.nodes.items()) if node >= 0 and size}

    @property
    def absent_bytes(self) -> int:
        """Bytes that are not present."""
        return self.nodes.get(ABSENT, 0)

    @property
    def census(self) -> bool:
        """Whether every page was looked at."""
        return self.sampled_pages >= self.piece_pages

    def variance(self, node: int) -> float:
        """Return the variance of the bytes on a node, in bytes squared; 0 in a census.

        0 as well where nothing at all was found: address space that is only set aside. It is that
        of a share in a sample without replacement (Cochran, Sampling Techniques, 2.5), with two
        draws added on each side (Agresti and Coull 1998) so that 0 of n is not taken as none.
        """
        if self.census or not self.node_bytes:
            return 0.0
        draws = self.sampled_pages / CELL_PAGES
        share = (self.looked_at.get(node, 0) / CELL_PAGES + 2) / (draws + 4)
        rest = (self.piece_pages - self.sampled_pages) / max(1, self.piece_pages - 1)
        return float(self.bytes) ** 2 * max(0.0, share * (1 - share) / (draws + 4) * rest)

    def snapshot(self, t_ns: int) -> None:
        """Begin a snapshot unless it is the one at hand."""
        if t_ns != self.t_ns:
            self.close()
            self.t_ns, self.nodes, self.looked_at = t_ns, {}, {}

    def close(self) -> None:
        """Compare the snapshot with the one before."""
        if self._before is not None and self._before != self.nodes:
            self.changes += 1
        self._before = dict(self.nodes)


class _Row(NamedTuple):
    t_ns: int
    tgid: int
    addr: int
    bytes: int
    mem_node: int
    node_bytes: int
    pages: int
    sampled_pages: int
    piece_pages: int
    offset: int
    inode: int
    path: str
    name: str

    @property
    def sound(self) -> bool:
        """Whether the numbers can be true."""
        node = self.mem_node == ABSENT or 0 <= self.mem_node < NODE_LIMIT
        inside = self.bytes > 0 and self.addr + self.bytes <= ADDRESS_LIMIT
        counted = self.pages <= self.sampled_pages <= max(self.piece_pages, self.sampled_pages)
        return node and inside and counted and self.node_bytes <= self.bytes and self.tgid > 0


class Places:
    """All pieces of all processes, in one pass over the batches."""

    def __init__(self) -> None:
        self._pieces: dict[PieceKey, Piece] = {}
        self._gone: deque[Piece] = deque(maxlen=PIECES // 4)
        self._starts: dict[int, list[tuple[int, str]]] = {}
        self.recorded = 0
        self.attributed = 0

    def take(self, places: Rows | None, unmaps: Rows | None) -> None:
        """Take one batch, in the order of time; at one time, unmaps come first."""
        rows = list(_place_rows(places)) if places is not None else []
        gone = list(_unmap_rows(unmaps)) if unmaps is not None else []
        self.recorded += len(rows)
        steps = sorted(
            [(row.t_ns, 1, place) for place, row in enumerate(rows)]
            + [(t_ns, 0, place) for place, (t_ns, *_) in enumerate(gone)]
        )
        for _, rank, place in steps:
            if rank:
                self.attributed += self._place(rows[place])
            else:
                self._unmap(*gone[place])

    def finish(self) -> list[Piece]:
        """Return the pieces at the end; of a process that ended, those of its end."""
        for piece in self._pieces.values():
            piece.close()
        alive = {key.tgid for key in self._pieces}
        last: dict[int, int] = {}
        for piece in self._gone:
            last[piece.key.tgid] = max(last.get(piece.key.tgid, 0), piece.gone_ns or 0)
        ended = {
            piece.key: piece
            for piece in self._gone
            if piece.key.tgid not in alive
            and (piece.gone_ns or 0) + GONE_TOGETHER_NS >= last[piece.key.tgid]
        }
        return [piece for _, piece in sorted((self._pieces | ended).items())]

    def _place(self, row: _Row) -> bool:
        key = PieceKey(row.tgid, row.addr, row.name)
        piece = self._pieces.get(key)
        if not row.sound or (piece is None and len(self._pieces) >= PIECES):
            return False
        if piece is None or piece.inode != row.inode:
            piece = self._add(key, row)
        piece.snapshot(row.t_ns)
        others = sum(piece.nodes.values()) - piece.nodes.get(row.mem_node, 0)
        # A piece cannot hold more than its size, whatever a row says.
        piece.nodes[row.mem_node] = min(row.node_bytes, max(0, row.bytes - others))
        piece.looked_at[row.mem_node] = row.pages
        piece.bytes, piece.offset = row.bytes, row.offset
        piece.sampled_pages, piece.piece_pages = row.sampled_pages, row.piece_pages
        return True

    def _add(self, key: PieceKey, row: _Row) -> Piece:
        if key not in self._pieces:
            insort(self._starts.setdefault(key.tgid, []), (key.addr, key.name))
        piece = Piece(key, row.bytes, row.path, row.inode, row.offset, row.t_ns)
        self._pieces[key] = piece
        return piece

    def _unmap(self, t_ns: int, tgid: int, addr: int, size: int) -> None:
        starts = self._starts.get(tgid, [])
        first, last = bisect_left(starts, (addr, "")), bisect_left(starts, (addr + size, ""))
        for start, name in starts[first:last]:
            piece = self._pieces.pop(PieceKey(tgid, start, name))
            piece.close()
            piece.gone_ns = t_ns
            self._gone.append(piece)
        del starts[first:last]


def error_bytes(pieces: list[Piece]) -> int:
    """Return the half width of the 95 % interval of the pieces' bytes on a node, the widest one."""
    nodes = sorted({node for piece in pieces for node in piece.nodes})
    variances = [sum(piece.variance(node) for piece in pieces) for node in nodes]
    return round(Z_95 * math.sqrt(max(variances, default=0.0)))


def add_up(pieces: list[Piece]) -> dict[int, int]:
    """Return the pieces' bytes on each node."""
    total: Counter[int] = Counter()
    for piece in pieces:
        total.update(piece.node_bytes)
    return dict(sorted(total.items()))


def _place_rows(rows: Rows) -> Iterator[_Row]:
    names = _Row._fields
    numbers = [rows.integers(name, ABSENT if name == "mem_node" else 0) for name in names[:11]]
    for values in zip(*numbers, rows.texts("path"), rows.texts("name"), strict=True):
        yield _Row(*values)


def _unmap_rows(rows: Rows) -> Iterator[tuple[int, int, int, int]]:
    numbers = [rows.integers(name) for name in ("t_ns", "tgid", "addr", "bytes")]
    yield from zip(*numbers, strict=True)
