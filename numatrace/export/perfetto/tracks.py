"""The tracks of a drawing: each is described once, before the first packet on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.export.perfetto import packets

if TYPE_CHECKING:
    from numatrace.export.perfetto.people import Key, People
    from numatrace.export.sink import Sink

TRACKS = 262_144
"""Counters that are drawn: more than that, nobody looks at."""
PIECE_BYTES = 1 << 20
"""Packets are written when so many bytes wait."""
MISSING = "numatrace: what is missing"


class Tracks:
    """Numbers tracks from 1 in the order of their first use, so the same trace gives the same."""

    def __init__(self, sink: Sink, people: People) -> None:
        self._sink = sink
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._count = 0
        self.put(packets.clock_snapshot(people.first_ns or 0))
        self.processes = {tgid: self._next() for tgid in sorted(people.processes)}
        self.threads = {key: self._next() for key in sorted(people.threads)}
        for tgid, uuid in self.processes.items():
            self.put(packets.process_track(uuid, tgid, people.processes[tgid]))
        for (tgid, tid), uuid in self.threads.items():
            parent = self.processes.get(tgid, 0)
            self.put(packets.thread_track(uuid, parent, tgid, tid, people.threads[tgid, tid]))
        self._counters: dict[tuple[int, str], int] = {}
        self._missing = 0

    def thread(self, key: Key) -> int | None:
        """Return the track of a thread; None for one too many or that cannot be."""
        return self.threads.get(key)

    def counter(self, parent: int, name: str, unit: str) -> int | None:
        """Return the track of a counter below a process or thread, or the machine's with 0."""
        key = parent, name
        if key not in self._counters:
            if len(self._counters) >= TRACKS:
                return None
            self._counters[key] = self._next()
            self.put(packets.counter_track(self._counters[key], parent, name, unit))
        return self._counters[key]

    def missing(self) -> int:
        """Return the track of losses and notes."""
        if not self._missing:
            self._missing = self._next()
            self.put(packets.plain_track(self._missing, MISSING))
        return self._missing

    def put(self, packet: bytes) -> None:
        """Write a packet, soon."""
        self._waiting.append(packet)
        self._waiting_bytes += len(packet)
        if self._waiting_bytes >= PIECE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        self._sink.write(b"".join(self._waiting))
        self._waiting, self._waiting_bytes = [], 0

    def _next(self) -> int:
        self._count += 1
        return self._count
