"""One pass over a trace's batches: what all further steps work on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.attribution import Attribution
from numatrace.analyze.documents import Documents
from numatrace.analyze.places import Places
from numatrace.analyze.residency import Residency
from numatrace.analyze.rows import split
from numatrace.model.events import EVENTS, FAMILIES
from numatrace.model.report import LossView

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from numatrace.analyze.places import Piece
    from numatrace.analyze.rows import Rows

TIMED = frozenset(event.kind for event in EVENTS if event.family in ("fault", "sched", "place"))
"""Kinds whose times span the recording; documents may be older."""


@dataclass(slots=True)
class Loaded:
    """A trace, reduced to sums per thread, region and node."""

    documents: Documents = field(default_factory=Documents)
    residency: Residency = field(default_factory=Residency)
    attribution: Attribution = field(default_factory=Attribution)
    places: Places = field(default_factory=Places)
    pieces: list[Piece] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    first_ns: int | None = None
    last_ns: int = 0

    @property
    def duration_ns(self) -> int:
        """Time from the first to the last event."""
        return 0 if self.first_ns is None else self.last_ns - self.first_ns

    def losses(self) -> tuple[LossView, ...]:
        """Return the account of every family that has one, checked."""
        views = [self._faults(), self._sched(), self._place(), self._map(), self._system()]
        kept = [view for view in views if view.recorded]
        known = {view.family for view in views}
        for family in sorted(set(self.documents.losses) - known):
            lost = self.documents.losses[family]
            kept.append(LossView(family, lost, 0, 0, lost))
        for view in kept:
            view.check()
        return tuple(kept)

    def _faults(self) -> LossView:
        """Faults in the exact counts that no sampled row stands for are unattributed."""
        attributed, lost = self.attribution.attributed, self.documents.losses["fault"]
        kept = self.attribution.kept
        recorded = max(self.residency.exact_faults, kept + lost)
        rest = recorded - kept - lost
        return LossView("fault", recorded, attributed, self.attribution.unattributed + rest, lost)

    def _sched(self) -> LossView:
        return self._account("sched", self.residency.recorded, self.residency.attributed)

    def _place(self) -> LossView:
        return self._account("place", self.places.recorded, self.places.attributed)

    def _map(self) -> LossView:
        # Every map and unmap row changes an address space or is nonsense, which take() left out.
        mapped = self.rows["map"] + self.rows["unmap"]
        documents = self.documents
        recorded = mapped + documents.recorded["map"]
        attributed = self.attribution.changes + documents.attributed["map"]
        return self._account("map", recorded, attributed)

    def _system(self) -> LossView:
        documents = self.documents
        return self._account("system", documents.recorded["system"], documents.attributed["system"])

    def _account(self, family: str, kept: int, attributed: int) -> LossView:
        lost = self.documents.losses[family]
        return LossView(family, kept + lost, attributed, kept - attributed, lost)


def load(batches: Iterable[pa.RecordBatch]) -> Loaded:
    """Read all batches, once, with memory that does not grow with their number."""
    loaded = Loaded()
    for batch in batches:
        rows = split(batch)
        for kind, part in rows.items():
            loaded.rows[kind] += len(part)
            if kind in TIMED:
                _span(loaded, part)
        loaded.documents.take(rows)
        loaded.attribution.take(rows.get("map"), rows.get("unmap"), rows.get("fault"))
        loaded.residency.take(rows)
        loaded.places.take(rows.get("place"), rows.get("unmap"))
    loaded.attribution.finish()
    loaded.pieces = loaded.places.finish()
    return loaded


def _span(loaded: Loaded, rows: Rows) -> None:
    times = rows.numbers("t_ns")
    times = times[times > 0]
    if len(times):
        first, last = int(np.min(times)), int(np.max(times))
        loaded.first_ns = first if loaded.first_ns is None else min(first, loaded.first_ns)
        loaded.last_ns = max(last, loaded.last_ns)


assert {"fault", "sched", "place", "map", "system"} <= set(FAMILIES)
