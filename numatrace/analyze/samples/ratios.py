"""How much longer remote memory takes: λ of every pair of nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.samples.columns import LOCAL, REMOTE
from numatrace.model.measured import RatioView
from numatrace.model.topology import DISTANCE_LIMIT, LOCAL_DISTANCE

if TYPE_CHECKING:
    from numatrace.analyze.rows import Numbers
    from numatrace.analyze.samples.cellview import CellView
    from numatrace.model.machine import Links
    from numatrace.model.topology import Topology

LEAST_TIMED = 30
"""Samples with a latency, local and remote, from which a ratio is taken."""
SAMPLED = "sampled latencies of this pair of nodes"
SAMPLED_ALL = "sampled latencies of all nodes together"
MEASURED = "latencies measured by record --measure-links"
HMAT = "the firmware's latencies (HMAT)"
SLIT = "the firmware's distance; a hint, not a latency"
ASSUMED = "the kernel's distance where the firmware gives none; an assumption"


class Ratios:
    """λ by node of the CPU and of the memory: sampled or measured, else by the firmware."""

    def __init__(
        self, topology: Topology | None, cells: CellView, links: Links | None = None
    ) -> None:
        """Take the machine, the cells of hardware samples, and measured links, if there are any."""
        self._topology = topology
        self._cells = cells
        self._links = links
        self._known: dict[tuple[int, int], RatioView] = {}

    def of(self, cpu_node: int, mem_node: int) -> RatioView:
        """Return the ratio for CPUs of one node and memory of another, and note that it is used."""
        pair = cpu_node, mem_node
        if pair not in self._known:
            self._known[pair] = self.find(cpu_node, mem_node)
        return self._known[pair]

    def find(self, cpu_node: int, mem_node: int, *, sampled: bool = True) -> RatioView:
        """Return the ratio; without `sampled`, which takes a look at all samples, from the rest."""
        return (
            (self._sampled_pair(cpu_node, mem_node) if sampled else None)
            or self._measured(cpu_node, mem_node)
            or (self._sampled_any(cpu_node, mem_node) if sampled else None)
            or self._firmware(cpu_node, mem_node)
            or self._distance(cpu_node, mem_node)
        )

    def used(self) -> tuple[RatioView, ...]:
        """Return the ratios that were asked for."""
        return tuple(view for _, view in sorted(self._known.items()))

    def _sampled_pair(self, cpu_node: int, mem_node: int) -> RatioView | None:
        """Return the ratio of mean sampled latencies of this pair of nodes."""
        cells = self._cells
        here = cells.cpu == cpu_node
        pair = here & (cells.mem == mem_node)
        ratio = self._ratio((cells.served == LOCAL) & here, (cells.served == REMOTE) & pair)
        return _sampled(cpu_node, mem_node, ratio, SAMPLED)

    def _sampled_any(self, cpu_node: int, mem_node: int) -> RatioView | None:
        """Return the ratio of mean sampled latencies of all pairs."""
        ratio = self._ratio(self._cells.served == LOCAL, self._cells.served == REMOTE)
        return _sampled(cpu_node, mem_node, ratio, SAMPLED_ALL)

    def _ratio(self, near: Numbers, far: Numbers) -> float | None:
        local, remote = self._latency(near), self._latency(far)
        return max(1.0, remote / local) if local and remote is not None else None

    def _latency(self, chosen: Numbers) -> float | None:
        cells = self._cells
        timed = chosen & (cells.timed > 0)
        if cells.samples[timed].sum() < LEAST_TIMED:
            return None
        return float(cells.cycles[timed].sum() / cells.timed[timed].sum())

    def _measured(self, cpu_node: int, mem_node: int) -> RatioView | None:
        """Return the ratio of latencies that were measured before the recording."""
        if self._links is None:
            return None
        far, near = self._links.latency(cpu_node, mem_node), self._local(cpu_node)
        if not far or not near:
            return None
        return RatioView(cpu_node, mem_node, max(1.0, far / near), "model", MEASURED)

    def _local(self, cpu_node: int) -> float | None:
        """Return the latency of near memory; of a node without memory, the least that there is."""
        assert self._links is not None
        own = self._links.latency(cpu_node, cpu_node)
        return own or min(self._links.latency_ns.get(cpu_node, {}).values(), default=None)

    def _firmware(self, cpu_node: int, mem_node: int) -> RatioView | None:
        """Return the ratio from HMAT, which knows memory from its nearest CPUs only: CXL memory."""
        found = {each.node: each for each in self._topology.performance} if self._topology else {}
        far, near = found.get(mem_node), found.get(cpu_node)
        if far is None or near is None or cpu_node not in far.initiators or cpu_node == mem_node:
            return None
        if not far.read_latency_ns or not near.read_latency_ns:
            return None
        ratio = max(1.0, far.read_latency_ns / near.read_latency_ns)
        return RatioView(cpu_node, mem_node, ratio, "model", HMAT)

    def _distance(self, cpu_node: int, mem_node: int) -> RatioView:
        given = self._topology.distances.get(cpu_node, {}) if self._topology else {}
        distance = given.get(mem_node, 0)
        if not LOCAL_DISTANCE <= distance < DISTANCE_LIMIT:
            return RatioView(cpu_node, mem_node, 2.0, "model", ASSUMED)
        return RatioView(cpu_node, mem_node, distance / LOCAL_DISTANCE, "model", SLIT)


def _sampled(cpu_node: int, mem_node: int, ratio: float | None, basis: str) -> RatioView | None:
    if ratio is None:
        return None
    return RatioView(cpu_node, mem_node, ratio, "hardware sample", basis)
