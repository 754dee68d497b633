"""What the plugin counted: read its output, and take remote shares of threads and regions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

PAGE_BYTES = 4096
COUNTS = ("loads", "stores", "bytes", "instructions", "misses")
ROW = np.dtype(
    [("cpu", "<u8"), ("page", "<u8"), ("frame", "<u8"), ("tgid", "<i4"), ("tid", "<i4")]
    + [(name, "<u8") for name in COUNTS]
)
"""One row of the plugin's output, as numa_oracle.c writes it."""


@dataclass(frozen=True, slots=True)
class Region:
    """A range of virtual addresses."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Truth:
    """What one window's accesses were: a row per CPU, thread, virtual page and page frame."""

    rows: NDArray[Any]
    cpu_node: NDArray[np.int64]
    mem_node: NDArray[np.int64]

    @classmethod
    def load(cls, path: Path) -> Truth:
        """Read the plugin's output and the guest's layout beside it."""
        rows = np.fromfile(path, ROW)
        layout = json.loads(path.with_name(path.name + ".json").read_text())
        cpus = {int(cpu): node for cpu, node in layout["cpus"].items()}
        cpu_node = np.array([cpus[int(cpu)] for cpu in rows["cpu"]], np.int64)
        return cls(rows, cpu_node, _nodes(rows["frame"], layout["frames"]))

    def where(self, mask: NDArray[np.bool_]) -> Truth:
        """Some of the rows."""
        return Truth(self.rows[mask], self.cpu_node[mask], self.mem_node[mask])

    def of_thread(self, *tids: int) -> Truth:
        """The rows of these threads."""
        return self.where(np.isin(self.rows["tid"], tids))

    def within(self, *regions: Region) -> Truth:
        """The rows of pages that lie in one of the regions by more than half.

        A page belongs to one region only, so that neighbours do not count it twice.
        """
        middle = self.rows["page"] * PAGE_BYTES + PAGE_BYTES // 2
        mask = np.zeros(len(self.rows), bool)
        for region in regions:
            mask |= (middle >= region.start) & (middle < region.end)
        return self.where(mask)

    def total(self, count: str = "instructions") -> int:
        """Sum of one of COUNTS."""
        return int(self.rows[count].sum())

    def remote(self, count: str = "instructions") -> int:
        """Part of the total whose memory is not on the CPU's node."""
        return int(self.rows[count][self.cpu_node != self.mem_node].sum())

    def remote_share(self, count: str = "instructions") -> float:
        """The same as a share of the total; NaN of nothing."""
        total = self.total(count)
        return self.remote(count) / total if total else float("nan")

    def threads(self, count: str = "instructions") -> dict[int, int]:
        """The count of each thread, most first."""
        tids, inverse = np.unique(self.rows["tid"], return_inverse=True)
        sums = np.bincount(inverse, self.rows[count], len(tids)).astype(int)
        pairs = zip(tids.tolist(), sums.tolist(), strict=True)
        return dict(sorted(pairs, key=lambda pair: -pair[1]))


def _nodes(frames: NDArray[np.uint64], ranges: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    nodes = np.full(len(frames), -1, np.int64)
    for first, end, node in ranges:
        nodes[(frames >= first) & (frames < end)] = node
    if (nodes < 0).any():
        raise ValueError(f"frame {frames[nodes < 0][0]} lies in no node's memory")
    return nodes
