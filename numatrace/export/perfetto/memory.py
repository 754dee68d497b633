"""Memory over time: bytes of each process on each node, and what is free there."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from numatrace.export.perfetto.packets import counter_value
from numatrace.model.cpulist import NODE_LIMIT
from numatrace.model.document import loads
from numatrace.model.errors import TraceError
from numatrace.model.machine import Memory

if TYPE_CHECKING:
    from numatrace.export.perfetto.tracks import Tracks

ABSENT = -1
"""The mem_node of pages that are not present."""
PIECES = 500_000
"""Pieces of memory that are kept apart; a process has at most 65,530 mappings."""


class Placed(NamedTuple):
    """A row of a snapshot: the columns of a row `place` that are drawn."""

    t_ns: int
    tgid: int
    addr: int
    bytes: int
    mem_node: int
    node_bytes: int
    name: str | None


class _Piece(NamedTuple):
    t_ns: int
    nodes: dict[int, int]


class ProcessMemory:
    """Follows the snapshots of every piece. Call in the order of time."""

    def __init__(self, tracks: Tracks) -> None:
        self._tracks = tracks
        self._pieces: dict[tuple[int, int, str], _Piece] = {}
        self._starts: dict[int, list[tuple[int, str]]] = {}
        self._bytes: Counter[tuple[int, int]] = Counter()
        self._changed: dict[tuple[int, int], None] = {}
        self._t_ns = 0

    def placed(self, row: Placed) -> bool:
        """The piece has so many bytes on the node, or ABSENT."""
        key = row.tgid, row.addr, row.name or ""
        if not self._is_sound(row) or (key not in self._pieces and len(self._pieces) >= PIECES):
            return False
        self._at(row.t_ns)
        if key not in self._pieces:
            insort(self._starts.setdefault(row.tgid, []), key[1:])
        elif self._pieces[key].t_ns != row.t_ns:
            self._drop(key)
        nodes = self._pieces.setdefault(key, _Piece(row.t_ns, {})).nodes
        before = nodes.get(row.mem_node, 0)
        # A piece cannot hold more than its size, whatever its rows say.
        most = row.bytes - (sum(nodes.values()) - before)
        nodes[row.mem_node] = max(0, min(row.node_bytes, most))
        self._add(row.tgid, row.mem_node, nodes[row.mem_node] - before)
        return True

    def _is_sound(self, row: Placed) -> bool:
        node = ABSENT <= row.mem_node < NODE_LIMIT
        return node and row.node_bytes <= row.bytes and row.tgid in self._tracks.processes

    def unmapped(self, t_ns: int, tgid: int, addr: int, size: int) -> bool | None:
        """Memory is gone; None if no snapshot had it."""
        starts = self._starts.get(tgid, [])
        first, last = bisect_left(starts, (addr, "")), bisect_left(starts, (addr + size, ""))
        if first < last:
            self._at(t_ns)
        for start, name in starts[first:last]:
            self._drop((tgid, start, name))
        del starts[first:last]
        return True if first < last else None

    def finish(self) -> None:
        """Draw what is still to be drawn."""
        self._at(0)

    def _at(self, t_ns: int) -> None:
        """Draw what changed, once the time is another."""
        if t_ns == self._t_ns:
            return
        for tgid, node in sorted(self._changed):
            name = f"memory on node {node}"
            uuid = self._tracks.counter(self._tracks.processes[tgid], name, "bytes")
            if uuid is not None:
                value = self._bytes[tgid, node]
                self._tracks.put(counter_value(uuid, self._t_ns, value))
        self._changed, self._t_ns = {}, t_ns

    def _drop(self, key: tuple[int, int, str]) -> None:
        for node, held in self._pieces.pop(key).nodes.items():
            self._add(key[0], node, -held)

    def _add(self, tgid: int, node: int, held: int) -> None:
        if held and node != ABSENT:
            self._bytes[tgid, node] += held
            self._changed[tgid, node] = None


def free_memory(tracks: Tracks, t_ns: int, value: str) -> bool:
    """Draw a document of the machine's memory; return whether it is one that makes sense."""
    try:
        memory = Memory.from_json(loads(value, "memory"))
    except TraceError:
        return False
    for node, each in sorted(memory.nodes.items()):
        uuid = tracks.counter(0, f"node {node}: free memory", "bytes")
        if uuid is not None:
            tracks.put(counter_value(uuid, t_ns, each.free_bytes))
    return True
