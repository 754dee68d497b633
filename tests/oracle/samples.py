"""Access samples of a trace, cut to the window that the plugin counted, beside its counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from pyarrow import ipc

from numatrace.model.access import KERNEL, OPERAND
from oracle.oracle import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from oracle.oracle import Region, Truth

Z95 = 1.96
Z_SURE = 3.89
"""Once in ten thousand times by chance. Of twenty shares, one lies outside its 95 % interval."""
ALLOWED = 0.02
"""Two points: how far the samples' share may be off where they are many."""
NUMBERS = ("t_ns", "tgid", "tid", "access", "node", "mem_node", "time_ns")


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples in user mode of one process, one array per column; addr is 0 where there is none."""

    tid: NDArray[np.int64]
    node: NDArray[np.int64]
    mem_node: NDArray[np.int64]
    addr: NDArray[np.uint64]
    detail: NDArray[np.object_]

    @classmethod
    def load(cls, trace: Path, tgid: int, window_ns: tuple[int, int]) -> Samples:
        """Read those taken between two moments of CLOCK_MONOTONIC."""
        table = ipc.open_file(trace).read_all()
        is_access = pc.equal(table["kind"].cast("string"), "access")
        rows = table.filter(pc.and_(is_access, pc.equal(table["name"].cast("string"), OPERAND)))
        numbers = {name: np.asarray(pc.fill_null(rows[name].cast("int64"), -1)) for name in NUMBERS}
        kept = (numbers["tgid"] == tgid) & (numbers["access"] & KERNEL == 0)
        kept &= (numbers["t_ns"] >= window_ns[0]) & (numbers["t_ns"] < window_ns[1])
        return cls(
            numbers["tid"][kept],
            numbers["node"][kept],
            numbers["mem_node"][kept],
            np.asarray(pc.fill_null(rows["addr"].cast("uint64"), 0))[kept],
            np.asarray(rows["detail"].cast("string").to_pylist(), object)[kept],
        )

    def __len__(self) -> int:
        """How many there are."""
        return len(self.tid)

    def where(self, mask: NDArray[np.bool_]) -> Samples:
        """Some of the samples."""
        return Samples(*(column[mask] for column in self._columns()))

    @classmethod
    def together(cls, parts: Iterable[Samples]) -> Samples:
        """Several, one after the other."""
        columns = zip(*map(cls._columns, parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    def _columns(self) -> tuple[NDArray[Any], ...]:
        return self.tid, self.node, self.mem_node, self.addr, self.detail

    def of_thread(self, *tids: int) -> Samples:
        """Those of these threads."""
        return self.where(np.isin(self.tid, tids))

    def found(self, *how: str) -> Samples:
        """Those whose address was found in one of these ways, see numatrace.model.access.HOW."""
        return self.where(np.isin(self.detail, how))

    def within(self, *regions: Region) -> Samples:
        """Those with an address in one of the regions."""
        mask = np.zeros(len(self), bool)
        for region in regions:
            mask |= (self.addr >= region.start) & (self.addr < region.end)
        return self.where(mask)

    def placed(self) -> Samples:
        """Those whose memory's node is known."""
        return self.where(self.mem_node >= 0)

    def remote_share(self) -> float:
        """Share of them whose memory is not on the CPU's node; NaN of nothing."""
        return float(np.mean(self.node != self.mem_node)) if len(self) else math.nan

    def visits(self) -> int:
        """Runs of samples of one thread on one page.

        A guest that is starved takes tick after tick without getting on in between: such samples
        say the same thing, once.
        """
        order = np.argsort(self.tid, kind="stable")  # in each thread, still in order of time
        keys = np.stack([self.tid[order].astype(np.uint64), self.addr[order] // PAGE_BYTES])
        return int((np.diff(keys) != 0).any(axis=0).sum()) + 1 if len(self) else 0


@dataclass(frozen=True, slots=True)
class Compared:
    """A remote share as the plugin counted it, and as the samples say (0..1)."""

    what: str
    truth: float
    measured: float
    samples: int
    visits: int
    """Of these, those that say something of their own, see Samples.visits."""
    accesses: int
    """That the plugin counted."""

    @classmethod
    def of(cls, what: str, truth: float, accesses: int, samples: Samples) -> Compared:
        """A share of so many accesses beside that of the samples whose memory's node is known."""
        placed = samples.placed()
        return cls(what, truth, placed.remote_share(), len(placed), placed.visits(), accesses)

    @property
    def off(self) -> float:
        """By how much the samples are off."""
        return abs(self.measured - self.truth)

    @property
    def interval(self) -> float:
        """Half of the 95 % interval that a truth of this size gives so many samples."""
        return self._half(Z95)

    @property
    def agrees(self) -> bool:
        """Within two points, or within the interval where that is wider."""
        return self.off <= max(ALLOWED, self.interval)

    @property
    def contradicts(self) -> bool:
        """Further off than chance explains, also where many shares are compared."""
        return not self.off <= max(ALLOWED, self._half(Z_SURE))

    def _half(self, z: float) -> float:
        """Half of an interval; Wilson's, which does not shrink to nothing at 0 and 1.

        J. Am. Stat. Assoc. 22 (1927) 209, here with the truth in place of the estimate.
        """
        n, p = max(self.visits, 1), self.truth
        return z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n * n))


def compare(what: str, samples: Samples, truth: Truth) -> Compared:
    """The remote share of some samples, and of the accesses that they stand for."""
    return Compared.of(what, truth.remote_share(), truth.total(), samples)
