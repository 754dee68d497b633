"""Samples of memory accesses as counters of each process: to memory of the own node, and others.

They only grow, so the slope of one against that of both is the remote share. Samples of which the
node of the CPU or of the memory is not known are left out.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from numatrace.export.perfetto.packets import MOST, counter_value
from numatrace.export.rows import numbers, of_kind

if TYPE_CHECKING:
    import pyarrow as pa

    from numatrace.export.perfetto.tracks import Tracks
    from numatrace.export.rows import Numbers

COLUMNS = ("t_ns", "tgid", "node", "mem_node", "time_ns", "weight")
NAMES = {
    "time_ns": ("sampled time in own node's memory", "sampled time in remote memory", "ns"),
    "weight": ("sampled reads of own node's memory", "sampled reads of remote memory", "count"),
}
"""By what a sample stands for: time, or events where the hardware took it."""


class Samples:
    """Draws the rows of the family access: a point of each counter for every batch."""

    def __init__(self, tracks: Tracks) -> None:
        self._tracks = tracks
        self._totals: Counter[int] = Counter()
        self._last_ns: dict[int, int] = {}

    def take(self, batch: pa.RecordBatch) -> int:
        """Draw the samples of a batch; return how many of them are drawn."""
        rows = of_kind(batch, "access", COLUMNS)
        rows = rows.filter(_is_known(rows)) if rows.num_rows else rows
        tgid = numbers(rows, "tgid")
        return sum(
            self._process(process, rows.filter(pc.equal(rows.column("tgid"), process)))
            for process in np.unique(tgid).tolist()
        )

    def _process(self, tgid: int, rows: pa.RecordBatch) -> int:
        parent = self._tracks.processes.get(tgid)
        if parent is None:
            return 0
        remote = numbers(rows, "node") != numbers(rows, "mem_node")
        timed = numbers(rows, "time_ns") > 0
        times = numbers(rows, "t_ns")
        for basis, chosen in (("time_ns", timed), ("weight", ~timed)):
            values = numbers(rows, basis)
            if chosen.any():
                span = int(times[chosen].min()), int(times[chosen].max())
                own, other, unit = NAMES[basis]
                self._add(parent, own, unit, span, values[chosen & ~remote])
                self._add(parent, other, unit, span, values[chosen & remote])
        return len(remote)

    def _add(
        self, parent: int, name: str, unit: str, span: tuple[int, int], values: Numbers
    ) -> None:
        uuid = self._tracks.counter(parent, name, unit)
        if uuid is None:
            return
        if uuid not in self._totals:
            self._tracks.put(counter_value(uuid, span[0], 0))
        # Batches may overlap a little: a counter that only grows must do so in the order of time.
        self._last_ns[uuid] = max(self._last_ns.get(uuid, 0), span[1])
        self._totals[uuid] += sum(values.tolist())
        self._tracks.put(counter_value(uuid, self._last_ns[uuid], self._totals[uuid]))


def _is_known(rows: pa.RecordBatch) -> pa.Array:
    """Whether each row has a time, and both of its nodes."""
    times = numbers(rows, "t_ns")
    sound = pc.and_(pc.greater_equal(rows["node"], 0), pc.greater_equal(rows["mem_node"], 0))
    return pc.and_(pc.fill_null(sound, False), (times > 0) & (times <= MOST))
