"""Who reads what: the report's tables of measured accesses."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from numatrace.analyze.packing import Packing
from numatrace.analyze.samples.columns import UNKNOWN
from numatrace.model.measured import GridView, ReadView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numatrace.analyze.load import Loaded
    from numatrace.analyze.memory.regions import Regions
    from numatrace.analyze.rows import Numbers
    from numatrace.analyze.samples.intervals import Weighed
    from numatrace.analyze.samples.measure import Measure

READS = 5000
"""Rows of the matrix in a report; the smallest beyond are one row."""
HOT = 100
"""Rows of the list of the most expensive reads."""
GRID = 4000
"""Cells of the map of threads by layers and regions; the smallest beyond are one cell."""
ROW = Packing(line=20, slot=17, cpu=11, mem=11, phase=4)
"""A row of the matrix; nodes are one higher than they are, so that an unknown one is 0."""
REST = "(all further ones)"


class Line(NamedTuple):
    """What a row of the matrix reads: a layer of a model, or a region."""

    tgid: int
    region: str
    path: str
    layer: int | None


class Reads:
    """The matrix by lines."""

    def __init__(self, loaded: Loaded, regions: Regions, measured: Measure) -> None:
        self._loaded = loaded
        self._measured = measured
        self._lines: list[Line] = []
        ids: dict[Line, int] = {}
        of_place = []
        for number, place in enumerate(loaded.locator.places):
            region = regions.by_place[number]
            path = place.model or region.key.path
            line = Line(place.tgid, region.label, path, place.layer)
            if line not in ids:
                ids[line] = len(ids)
                self._lines.append(line)
            of_place.append(ids[line])
        self._line = np.array(of_place, np.int64)[measured.cells.place]

    def rows(self) -> tuple[ReadView, ...]:
        """Return the whole matrix; what does not fit is one row, so that the totals stay."""
        every = np.ones(len(self._measured.cells), bool)
        sums = self._sums(self._measured.cells.phase, every)
        ordered = sorted(sums.items(), key=_cost)
        names = self._loaded.phases.names
        rows = self._views(ordered[:READS], names)
        rest = [each for _, each in ordered[READS:]]
        if rest:
            samples, time_ns = (sum(each.samples for each in rest), sum(e.time_ns for e in rest))
            lost_ns = round(sum(each.lost_ns for each in rest))
            rows.append(ReadView(0, 0, REST, "", None, None, None, "", samples, time_ns, lost_ns))
        return tuple(rows)

    def hot(self, tgid: int | None) -> tuple[ReadView, ...]:
        """Return a process's most expensive remote reads outside of loading, the worst first."""
        measured = self._measured
        if measured.rung == "placement":
            return ()
        cells = measured.cells
        mine = (measured.slot_tgids == tgid)[cells.slot] & measured.working
        sums = self._sums(np.zeros(len(cells), np.int64), mine & (cells.lost_ns > 0))
        return tuple(self._views(sorted(sums.items(), key=_cost)[:HOT], ("",)))

    def grid(self) -> tuple[GridView, ...]:
        """Return threads by layers and regions, loading left out; the worst first."""
        cells, every = self._measured.cells, np.zeros(len(self._measured.cells), np.int64)
        keys = ROW.pack(line=self._line, slot=cells.slot, cpu=every, mem=every, phase=every)
        sums = cells.sums(keys.astype(np.int64), self._measured.working)
        ordered = sorted(sums.items(), key=_cost)
        rest = [each for _, each in ordered[GRID:]]
        rows = [self._cell(key, each) for key, each in ordered[:GRID]]
        if rest:
            samples, read_ns = sum(each.samples for each in rest), sum(e.time_ns for e in rest)
            lost_ns = round(sum(each.lost_ns for each in rest))
            rows.append(GridView(0, 0, REST, "", None, samples, read_ns, None, lost_ns))
        return tuple(rows)

    def _cell(self, key: int, each: Weighed) -> GridView:
        number = np.array([key], np.uint64)
        what = self._lines[int(ROW.field(number, "line")[0])]
        tgid, tid = self._loaded.access.slots.keys[int(ROW.field(number, "slot")[0])]
        trio = self._measured.trio(each, thread=True)
        return GridView(tgid, tid, what.region, what.path, what.layer, each.samples, *trio)

    def _sums(self, phase: Numbers, chosen: Numbers) -> dict[int, Weighed]:
        cells = self._measured.cells
        keys = ROW.pack(
            line=self._line,
            slot=cells.slot,
            cpu=cells.cpu - UNKNOWN,
            mem=cells.mem - UNKNOWN,
            phase=phase,
        )
        return cells.sums(keys.astype(np.int64), chosen)

    def _views(self, sums: Sequence[tuple[int, Weighed]], names: Sequence[str]) -> list[ReadView]:
        keys = np.array([key for key, _ in sums], np.uint64)
        columns = [ROW.field(keys, name).tolist() for name in ("line", "slot", "phase")]
        columns += [(ROW.field(keys, name) + UNKNOWN).tolist() for name in ("cpu", "mem")]
        views = []
        for line, slot, phase, cpu, mem, (_, each) in zip(*columns, sums, strict=True):
            tgid, tid = self._loaded.access.slots.keys[slot]
            what = self._lines[line]
            views.append(
                ReadView(
                    tgid=tgid,
                    tid=tid,
                    region=what.region,
                    path=what.path,
                    layer=what.layer,
                    cpu_node=None if cpu == UNKNOWN else cpu,
                    mem_node=None if mem == UNKNOWN else mem,
                    phase=names[phase],
                    samples=each.samples,
                    time_ns=each.time_ns,
                    lost_ns=round(each.lost_ns),
                )
            )
        return views


def _cost(item: tuple[int, Weighed]) -> tuple[float, int, int]:
    """Order: by falling time lost, then by falling time."""
    key, each = item
    return -each.lost_ns, -each.time_ns, key
