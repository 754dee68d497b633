"""Who and when: the processes and threads of a trace with their names, and its first moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numatrace.export.perfetto.packets import MOST
from numatrace.export.rows import numbers, of_kind, taken
from numatrace.model.events import EVENTS
from numatrace.model.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

Key = tuple[int, int]
"""Process and thread."""

THREADS = 65_536
"""Threads, and processes, that are drawn."""
NAME_CHARS = 256
THREADED = tuple(
    event.kind for event in EVENTS if "tid" in event.columns and event.kind != "counter"
)
TIMED = frozenset(
    event.kind
    for event in EVENTS
    if event.family in ("fault", "sched", "access", "place") or event.kind in ("system", "rate")
)
"""Kinds whose times lie within the recording."""


class People:
    """Filled in one pass over the batches."""

    def __init__(self) -> None:
        self.threads: dict[Key, str] = {}
        self.processes: dict[int, str] = {}
        self.first_ns: int | None = None

    def take(self, batch: pa.RecordBatch) -> None:
        """Take one batch; the latest name of a process or thread is kept."""
        for kind in THREADED:
            self._threads(of_kind(batch, kind, ("tgid", "tid")))
        for tgid, tid, name in taken(batch, "thread", ("tgid", "tid", "name")):
            if (tgid, tid) in self.threads and name:
                self.threads[tgid, tid] = printable(name, NAME_CHARS)
        for tgid, name in taken(batch, "process", ("tgid", "name")):
            self._process(tgid, name)
        for tgid in np.unique(numbers(of_kind(batch, "place", ("tgid",)), "tgid")).tolist():
            self._process(tgid, "")
        self._times(batch)

    def _threads(self, rows: pa.RecordBatch) -> None:
        tgids, tids = (numbers(rows, name).astype(np.int64) for name in ("tgid", "tid"))
        sound = (tgids > 0) & (tids > 0)
        for pair in np.unique(tgids[sound] << 32 | tids[sound]).tolist():
            key = pair >> 32, pair & 0xFFFFFFFF
            if len(self.threads) < THREADS:
                self.threads.setdefault(key, "")
                self._process(key[0], "")

    def _process(self, tgid: int | None, name: str | None) -> None:
        if tgid is None or tgid <= 0 or (not name and tgid in self.processes):
            return
        if tgid in self.processes or len(self.processes) < THREADS:
            self.processes[tgid] = printable(name or "", NAME_CHARS)

    def _times(self, batch: pa.RecordBatch) -> None:
        for kind in TIMED:
            times = numbers(of_kind(batch, kind, ("t_ns",)), "t_ns")
            times = times[(times > 0) & (times <= MOST)]
            if len(times):
                first = int(times.min())
                self.first_ns = first if self.first_ns is None else min(first, self.first_ns)


def survey(batches: Iterable[pa.RecordBatch]) -> People:
    """Return the people of a whole trace."""
    people = People()
    for batch in batches:
        people.take(batch)
    return people
