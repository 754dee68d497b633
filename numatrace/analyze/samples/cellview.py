"""The cells of one source as columns, and sums of them by whatever is asked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.samples.access import CELL
from numatrace.analyze.samples.columns import (
    CYCLES,
    EVENTS,
    LOCAL,
    OPERAND_TIME,
    REMOTE,
    SAMPLES,
    SQUARES,
    TIME_NS,
    TIMED,
    UNKNOWN,
)
from numatrace.analyze.samples.intervals import Weighed

if TYPE_CHECKING:
    from numatrace.analyze.rows import Numbers
    from numatrace.analyze.samples.access import Access


@dataclass(slots=True)
class CellView:
    """Columns of equal length, one row for each cell; all of operand samples or all of hardware."""

    place: Numbers
    slot: Numbers
    cpu: Numbers
    mem: Numbers
    phase: Numbers
    served: Numbers
    samples: Numbers
    time_ns: Numbers
    """Time in nanoseconds, as floats: that of hardware samples is shared out."""
    weight: Numbers
    squares: Numbers
    timed: Numbers
    """Events whose latency was measured."""
    cycles: Numbers
    """Latency times events."""
    lost_ns: Numbers

    known: Numbers
    """Which cells tell local and remote memory apart."""
    remote: Numbers
    """Which of them are remote."""

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.place)

    def only(self, chosen: Numbers) -> CellView:
        """Return the chosen cells (a mask)."""
        return CellView(**{part.name: getattr(self, part.name)[chosen] for part in fields(self)})

    def total(self, chosen: Numbers) -> Weighed:
        """Return the sums of the chosen cells (a mask)."""
        return self.sums(np.zeros(len(self), np.int64), chosen).get(0, Weighed())

    def sums(self, keys: Numbers, chosen: Numbers) -> dict[int, Weighed]:
        """Return the sums of the chosen cells (a mask) for every different key."""
        found, which = np.unique(keys[chosen], return_inverse=True)
        known = np.where(self.known, self.weight, 0.0)
        columns = (
            self.samples,
            self.time_ns,
            known,
            np.where(self.remote, known, 0.0),
            np.where(self.known, self.squares, 0.0),
            self.lost_ns,
        )
        sums = [np.bincount(which, column[chosen], len(found)).tolist() for column in columns]
        return {
            key: Weighed(round(samples), round(time_ns), *rest)
            for key, samples, time_ns, *rest in zip(found.tolist(), *sums, strict=True)
        }


def cell_view(access: Access, *, hardware: bool) -> CellView:
    """Return the cells of operand samples, or those of hardware samples; nothing lost yet."""
    keys = access.cells.keys
    mine = (CELL.field(keys, "served") != OPERAND_TIME) == hardware
    keys, integers, floats = keys[mine], access.cells.integers[mine], access.cells.floats[mine]
    pairs = np.array(access.pairs.keys, np.int64)[CELL.field(keys, "pair")]
    weight = integers[:, EVENTS if hardware else TIME_NS].astype(np.float64)
    served, cpu, mem = CELL.field(keys, "served"), pairs[:, 0], pairs[:, 1]
    memory = (served == LOCAL) | (served == REMOTE)
    return CellView(
        place=CELL.field(keys, "place"),
        slot=CELL.field(keys, "slot"),
        cpu=cpu,
        mem=mem,
        phase=CELL.field(keys, "phase"),
        served=served,
        samples=integers[:, SAMPLES],
        time_ns=integers[:, TIME_NS].astype(np.float64),
        weight=weight,
        squares=floats[:, SQUARES],
        timed=integers[:, TIMED],
        cycles=floats[:, CYCLES],
        lost_ns=np.zeros(len(keys)),
        known=memory if hardware else (cpu != UNKNOWN) & (mem != UNKNOWN),
        remote=served == REMOTE if hardware else cpu != mem,
    )
