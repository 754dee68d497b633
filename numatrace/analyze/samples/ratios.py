"""How much longer remote memory takes: λ of every pair of nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.samples.columns import LOCAL, REMOTE
from numatrace.model.measured import RatioView
from numatrace.model.topology import DISTANCE_LIMIT, LOCAL_DISTANCE

if TYPE_CHECKING:
    from numatrace.analyze.rows import Numbers
    from numatrace.analyze.samples.cellview import CellView
    from numatrace.model.topology import Topology

LEAST_TIMED = 30
"""Samples with a latency, local and remote, from which a ratio is taken."""
SLIT = "the firmware's distance; a hint, not a latency"
ASSUMED = "the kernel's distance where the firmware gives none; an assumption"


class Ratios:
    """λ by node of the CPU and of the memory: sampled, else the firmware's latency or distance."""

    def __init__(self, topology: Topology | None, cells: CellView) -> None:
        """Take the machine and the cells of hardware samples, if there are any."""
        self._topology = topology
        self._cells = cells
        self._known: dict[tuple[int, int], RatioView] = {}

    def of(self, cpu_node: int, mem_node: int) -> RatioView:
        """Return the ratio for CPUs of one node and memory of another."""
        pair = cpu_node, mem_node
        if pair not in self._known:
            self._known[pair] = (
                self._sampled(cpu_node, mem_node)
                or self._firmware(cpu_node, mem_node)
                or self._distance(cpu_node, mem_node)
            )
        return self._known[pair]

    def used(self) -> tuple[RatioView, ...]:
        """Return the ratios that were asked for."""
        return tuple(view for _, view in sorted(self._known.items()))

    def _sampled(self, cpu_node: int, mem_node: int) -> RatioView | None:
        """Return the ratio of mean sampled latencies: of this pair, else of all pairs."""
        local, remote = self._cells.served == LOCAL, self._cells.served == REMOTE
        here = self._cells.cpu == cpu_node
        pair = here & (self._cells.mem == mem_node)
        for near, far, basis in (
            (local & here, remote & pair, "sampled latencies of this pair of nodes"),
            (local, remote, "sampled latencies of all nodes together"),
        ):
            latencies = [self._latency(near), self._latency(far)]
            if None not in latencies and latencies[0]:
                ratio = max(1.0, float(latencies[1] or 0.0) / latencies[0])
                return RatioView(cpu_node, mem_node, ratio, "hardware sample", basis)
        return None

    def _latency(self, chosen: Numbers) -> float | None:
        cells = self._cells
        timed = chosen & (cells.timed > 0)
        if cells.samples[timed].sum() < LEAST_TIMED:
            return None
        return float(cells.cycles[timed].sum() / cells.timed[timed].sum())

    def _firmware(self, cpu_node: int, mem_node: int) -> RatioView | None:
        """Return the ratio from HMAT, which knows memory from its nearest CPUs only: CXL memory."""
        found = {each.node: each for each in self._topology.performance} if self._topology else {}
        far, near = found.get(mem_node), found.get(cpu_node)
        if far is None or near is None or cpu_node not in far.initiators or cpu_node == mem_node:
            return None
        if not far.read_latency_ns or not near.read_latency_ns:
            return None
        ratio = max(1.0, far.read_latency_ns / near.read_latency_ns)
        return RatioView(cpu_node, mem_node, ratio, "model", "the firmware's latencies (HMAT)")

    def _distance(self, cpu_node: int, mem_node: int) -> RatioView:
        given = self._topology.distances.get(cpu_node, {}) if self._topology else {}
        distance = given.get(mem_node, 0)
        if not LOCAL_DISTANCE <= distance < DISTANCE_LIMIT:
            return RatioView(cpu_node, mem_node, 2.0, "model", ASSUMED)
        return RatioView(cpu_node, mem_node, distance / LOCAL_DISTANCE, "model", SLIT)
