"""Two passes over a trace's batches: what happened when, then all sums by thread and place."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.documents import Documents
from numatrace.analyze.memory.anonymous import NamedMemory
from numatrace.analyze.memory.faults import Faults
from numatrace.analyze.memory.locate import Locator
from numatrace.analyze.memory.modelfiles import ModelFiles
from numatrace.analyze.memory.places import Places
from numatrace.analyze.phases.phases import Phases, Survey
from numatrace.analyze.rows import split
from numatrace.analyze.samples.access import Access
from numatrace.analyze.samples.rates import Rates
from numatrace.analyze.threads.residency import Residency
from numatrace.analyze.timeline import Timeline
from numatrace.model.events import EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow as pa

    from numatrace.analyze.memory.places import Piece
    from numatrace.analyze.rows import Numbers, Rows

TIMED = frozenset(
    event.kind for event in EVENTS if event.family in ("fault", "sched", "access", "place")
)
"""Kinds whose times span the recording; documents may be older."""
LOCATED = ("fault", "access")
"""Kinds whose addresses are looked up."""


@dataclass(slots=True)
class Loaded:
    """A trace, reduced to sums per thread, place and node."""

    documents: Documents
    phases: Phases
    locator: Locator
    residency: Residency
    access: Access
    timeline: Timeline
    faults: Faults = field(default_factory=Faults)
    places: Places = field(default_factory=Places)
    rates: Rates = field(default_factory=Rates)
    pieces: list[Piece] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    named: int = 0
    """Rows of the kinds tensor_at and buffer that make sense."""
    first_ns: int | None = None
    last_ns: int = 0

    @property
    def duration_ns(self) -> int:
        """Time from the first to the last event."""
        return 0 if self.first_ns is None else self.last_ns - self.first_ns


def load(batches: Iterable[pa.RecordBatch]) -> Loaded:
    """Read all batches twice, with memory that does not grow with their number.

    `batches` can be iterated again: a list, or an object that reads the file anew.
    """
    loaded = _survey(batches)
    for batch in _ahead(batches):
        _take(loaded, split(batch))
    loaded.faults.settle(loaded.locator, 0)
    loaded.access.settle(loaded.locator, 0)
    loaded.faults.finish()
    loaded.access.finish()
    loaded.pieces = loaded.places.finish()
    return loaded


def _ahead(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the batches, each next one being read while the last one is worked on."""
    left = iter(batches)
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(next, left, None)
        while (batch := following.result()) is not None:
            following = reader.submit(next, left, None)
            yield batch


def _survey(batches: Iterable[pa.RecordBatch]) -> Loaded:
    """Take documents, tensor tables and phases, which samples before them need, too."""
    documents, survey = Documents(), Survey()
    for batch in _ahead(batches):
        rows = split(batch)
        documents.take(rows)
        survey.take(rows)
    phases = survey.finish()
    residency = Residency(phases)
    tensors = documents.tensors.values()
    locator = Locator(ModelFiles(tensors), NamedMemory(tensors))
    return Loaded(documents, phases, locator, residency, Access(residency), Timeline(phases))


def _take(loaded: Loaded, rows: dict[str, Rows]) -> None:
    for kind, part in rows.items():
        loaded.rows[kind] += len(part)
        if kind in TIMED:
            _span(loaded, part)
        if kind in ("tensor_at", "buffer"):
            loaded.named += _sound(part)
    loaded.residency.take(rows)
    loaded.timeline.take(rows)
    loaded.places.take(rows.get("place"), rows.get("unmap"))
    loaded.rates.take(rows.get("rate"))
    places = _locate(loaded.locator, rows)
    if "fault" in rows:
        loaded.faults.take(rows["fault"], places["fault"])
    if "access" in rows:
        loaded.access.take(rows["access"], places["access"], loaded.phases)
        loaded.access.trim(loaded.locator)
    if "map" in rows:
        loaded.faults.settle(loaded.locator, loaded.last_ns)
        loaded.access.settle(loaded.locator, loaded.last_ns)


def _locate(locator: Locator, rows: dict[str, Rows]) -> dict[str, Numbers]:
    """Return the places of the rows of all LOCATED kinds, looked up in one order of time."""
    parts = [rows[kind] for kind in LOCATED if kind in rows]
    columns = [
        np.concatenate([np.zeros(0, type_), *(part.numbers(name) for part in parts)])
        for name, type_ in (("t_ns", np.uint64), ("tgid", np.int64), ("addr", np.uint64))
    ]
    places = locator.take(rows, *columns)
    cuts = np.cumsum([len(part) for part in parts])[:-1].astype(np.int64)
    return {part.kind: found for part, found in zip(parts, np.split(places, cuts), strict=False)}


def _sound(rows: Rows) -> int:
    """Return how many rows name memory that a process can have."""
    return int(((rows.numbers("tgid") > 0) & (rows.numbers("addr") > 0)).sum())


def _span(loaded: Loaded, rows: Rows) -> None:
    times = rows.numbers("t_ns")
    times = times[times > 0]
    if len(times):
        first, last = int(np.min(times)), int(np.max(times))
        loaded.first_ns = first if loaded.first_ns is None else min(first, loaded.first_ns)
        loaded.last_ns = max(last, loaded.last_ns)
