"""Which node each thread ran on: a slice from one move to the next, and exact time as counters.

Moves are known to the nanosecond; time on CPU is known exactly too, but only as a sum, read about
once a second. So a slice says where a thread ran, not that it ran all the time: it begins with a
move, or with the reading before the first one that has time of the thread, and ends with the next
move, with the thread, or with the last reading that has time of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from numatrace.export.perfetto.packets import MOST, counter_value, slice_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numatrace.export.perfetto.people import Key
    from numatrace.export.perfetto.tracks import Tracks

CATEGORY = "node"


@dataclass(slots=True)
class _Thread:
    uuid: int
    node: int | None = None
    """Of the open slice; None if there is none."""
    start_ns: int = 0
    seen_ns: int = 0
    """When it is last known to have run."""
    moved_ns: int = 0
    left: tuple[int, int] | None = None
    """Node and time of a move after a reading without any time of the thread: the next reading
    tells whether it ran there first."""
    birth_ns: int = 0
    end_ns: int = MOST
    totals: Counter[int] = field(default_factory=Counter)
    """Time on CPU so far, by node."""


class Residency:
    """Draws the slices of all threads. Call in the order of time, `reading` after the moves."""

    def __init__(self, tracks: Tracks, first_ns: int) -> None:
        self._tracks = tracks
        self._threads: dict[Key, _Thread] = {}
        self._since_ns = self._read_ns = first_ns
        """The readings before this one, and this one, whose rows may come in several parts."""

    def born(self, t_ns: int, key: Key) -> None:
        """A thread began; one of the same number is gone."""
        thread = self._thread(key)
        if thread is not None:
            self._close(thread, thread.seen_ns)
            thread.birth_ns, thread.end_ns = t_ns, MOST

    def ended(self, t_ns: int, key: Key) -> None:
        """A thread ended; the reading that has its last time on CPU may be to come."""
        thread = self._thread(key)
        if thread is not None:
            thread.end_ns = t_ns

    def moved(self, t_ns: int, key: Key, node: int, from_node: int) -> None:
        """A thread began to run on another node; -1 where it is not known from which."""
        thread = self._thread(key)
        if thread is None:
            return
        if thread.node is None and from_node >= 0:
            _open(thread, from_node, self._read_ns)
            thread.seen_ns = t_ns
        ran = thread.seen_ns >= self._read_ns
        if not ran and thread.node is not None:
            thread.left = thread.node, t_ns
        self._close(thread, t_ns if ran else thread.seen_ns)
        _open(thread, node, t_ns)
        thread.moved_ns, thread.seen_ns = t_ns, max(thread.seen_ns, t_ns)

    def reading(self, t_ns: int, rows: Iterable[tuple[Key, int, int]]) -> int:
        """Time on CPU was read: process and thread, node, ns. Return how many rows are drawn."""
        found: dict[Key, Counter[int]] = {}
        drawn = 0
        for key, node, ns in rows:
            if self._thread(key) is not None:
                found.setdefault(key, Counter())[node] += ns
                drawn += 1
        if t_ns > self._read_ns:
            self._since_ns, self._read_ns = self._read_ns, t_ns
        for key, node_ns in found.items():
            self._ran(self._threads[key], t_ns, node_ns)
        return drawn

    def finish(self) -> None:
        """Draw what is still open."""
        for thread in self._threads.values():
            self._close(thread, thread.seen_ns)

    def _thread(self, key: Key) -> _Thread | None:
        if key not in self._threads:
            uuid = self._tracks.thread(key)
            if uuid is None:
                return None
            self._threads[key] = _Thread(uuid)
        return self._threads[key]

    def _ran(self, thread: _Thread, t_ns: int, node_ns: Counter[int]) -> None:
        since_ns = self._since_ns
        self._count(thread, since_ns, t_ns, node_ns)
        if thread.left and thread.left[0] in node_ns:
            self._put(thread, thread.left[0], max(since_ns, thread.birth_ns), thread.left[1])
        thread.left = None
        most = max(node_ns, key=lambda node: (node_ns[node], -node))
        # Moves of this interval say more than sums; sums tell where the thread was without any,
        # and where moves were lost.
        settled = thread.node in node_ns or thread.moved_ns > since_ns
        if thread.node is None or thread.seen_ns < since_ns or not settled:
            node = thread.node if thread.node is not None and settled else most
            self._close(thread, min(thread.seen_ns, since_ns))
            _open(thread, node, since_ns)
        thread.seen_ns = max(thread.seen_ns, t_ns)
        if thread.end_ns <= t_ns:
            self._close(thread, thread.seen_ns)

    def _count(self, thread: _Thread, since_ns: int, t_ns: int, node_ns: Counter[int]) -> None:
        for node, ns in sorted(node_ns.items()):
            uuid = self._tracks.counter(thread.uuid, f"CPU time on node {node}", "ns")
            if uuid is None:
                continue
            if node not in thread.totals:
                self._tracks.put(counter_value(uuid, min(since_ns, t_ns), 0))
            thread.totals[node] += ns
            self._tracks.put(counter_value(uuid, t_ns, thread.totals[node]))

    def _close(self, thread: _Thread, end_ns: int) -> None:
        end_ns = min(end_ns, thread.end_ns)
        if thread.node is not None and end_ns > thread.start_ns:
            self._put(thread, thread.node, thread.start_ns, end_ns)
            thread.start_ns = end_ns
        thread.node = None

    def _put(self, thread: _Thread, node: int, start_ns: int, end_ns: int) -> None:
        self._tracks.put(slice_of(thread.uuid, start_ns, end_ns, f"node {node}", CATEGORY))


def _open(thread: _Thread, node: int, start_ns: int) -> None:
    """Begin a slice, not before the thread's birth and the end of its last one."""
    thread.node, thread.start_ns = node, max(start_ns, thread.birth_ns, thread.start_ns)
