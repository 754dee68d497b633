"""Draw a trace for Perfetto: two passes over its batches, first who is there, then what happened.

Packets are written as they come: Perfetto sorts by time, and keeps their order where times are
equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numatrace.export.perfetto.faults import Faults
from numatrace.export.perfetto.memory import Placed, ProcessMemory, free_memory
from numatrace.export.perfetto.packets import MOST, instant
from numatrace.export.perfetto.people import survey
from numatrace.export.perfetto.samples import Samples
from numatrace.export.perfetto.sched import Sched
from numatrace.export.perfetto.tracks import Tracks
from numatrace.export.rows import taken
from numatrace.model.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    import pyarrow as pa

    from numatrace.export.sink import Sink

TEXT_CHARS = 1024
REMARKS = 4096
"""Losses and notes that are drawn; the recorder writes a few."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """How many rows were drawn, and how many of these kinds were not, being nonsense."""

    rows: int
    left_out: int


def draw(
    batches: Callable[[], Iterator[pa.RecordBatch]],
    sink: Sink,
    kinds: Collection[str],
    problems: Callable[[], Sequence[str]],
) -> Drawn:
    """Draw the rows of some kinds. `batches` begins anew at each call.

    `problems` says what is missing in the trace; it is asked after the last batch.
    """
    people = survey(batches())
    drawing = Drawing(Tracks(sink, people), people.first_ns or 0, kinds)
    for batch in batches():
        drawing.take(batch)
    return drawing.finish(problems())


class Drawing:
    """All that is drawn of a trace, batch by batch."""

    def __init__(self, tracks: Tracks, first_ns: int, kinds: Collection[str]) -> None:
        self._tracks = tracks
        self._kinds = frozenset(kinds)
        self._sched = Sched(tracks, first_ns)
        self._faults = Faults(tracks)
        self._memory = ProcessMemory(tracks)
        self._samples = Samples(tracks)
        self._last_ns = first_ns
        self._remarks = 0
        self._drawn = self._nonsense = 0

    def take(self, batch: pa.RecordBatch) -> None:
        """Draw one batch."""
        self._sched_rows(batch)
        self._place_rows(batch)
        if "access" in self._kinds:
            self._drawn += self._samples.take(batch)
        for kind, columns, show in (
            ("fault", Faults.SAMPLED, self._faults.sampled),
            ("fault_count", Faults.COUNTED, self._faults.counted),
            ("system", ("t_ns", "name", "value"), self._system),
            ("loss", ("t_ns", "name", "count", "detail"), self._loss),
            ("note", ("t_ns", "name", "detail"), self._note),
        ):
            for row in self._rows(batch, kind, columns):
                self._count(show(*row))

    def finish(self, problems: Sequence[str]) -> Drawn:
        """Draw what is still open."""
        self._sched.finish()
        self._memory.finish()
        for problem in problems:
            self._remark(self._last_ns, "the trace is not whole", {"why": problem})
        self._tracks.flush()
        return Drawn(self._drawn, self._nonsense)

    def _rows(
        self, batch: pa.RecordBatch, kind: str, columns: tuple[str, ...]
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the chosen rows of a kind that have a time that Perfetto can show."""
        if kind not in self._kinds:
            return
        for row in taken(batch, kind, columns):
            if row[0] is not None and 0 < row[0] <= MOST:
                self._last_ns = max(self._last_ns, row[0])
                yield row
            else:
                self._nonsense += 1

    def _count(self, sense: bool | None) -> None:
        """Count a row that was drawn, or was nonsense; None is for one of the other rows."""
        self._drawn += sense is True
        self._nonsense += sense is False

    def _sched_rows(self, batch: pa.RecordBatch) -> None:
        steps = [
            (row[0], rank, kind, row)
            for rank, kind in enumerate(Sched.KINDS)
            for row in self._rows(batch, kind, Sched.KINDS[kind])
        ]
        drawn = self._sched.take(sorted(steps, key=lambda step: step[:2]))
        self._drawn += drawn
        self._nonsense += len(steps) - drawn

    def _place_rows(self, batch: pa.RecordBatch) -> None:
        gone = self._rows(batch, "unmap", ("t_ns", "tgid", "addr", "bytes"))
        placed = self._rows(batch, "place", Placed._fields)
        steps = [(row[0], 0, row) for row in gone] + [(row[0], 1, row) for row in placed]
        for _, is_there, row in sorted(steps, key=lambda step: step[:2]):
            if None in row[: len(Placed._fields) - 1]:
                self._count(sense=False)
            elif is_there:
                self._count(self._memory.placed(Placed(*row)))
            else:
                self._count(self._memory.unmapped(*row))

    def _system(self, t_ns: int, name: str | None, value: str | None) -> bool | None:
        return free_memory(self._tracks, t_ns, value or "") if name == "memory" else None

    def _loss(self, t_ns: int, name: str | None, count: int | None, detail: str | None) -> bool:
        lost = {"events": count, "why": detail}
        return self._remark(t_ns, f"lost: {name or ''}", lost)

    def _note(self, t_ns: int, name: str | None, detail: str | None) -> bool:
        return self._remark(t_ns, f"not recorded: {name or ''}", {"why": detail})

    def _remark(self, t_ns: int, name: str, details: dict[str, int | str | None]) -> bool:
        self._remarks += 1
        if self._remarks > REMARKS:
            return False
        shown = {
            key: printable(value, TEXT_CHARS) if isinstance(value, str) else value
            for key, value in details.items()
        }
        uuid = self._tracks.missing()
        self._tracks.put(instant(uuid, t_ns, printable(name, TEXT_CHARS), "missing", shown))
        return True
