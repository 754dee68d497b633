"""The machine as the cost model takes it: λ, β and bandwidth from the best source in the trace."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.plans.cost import LATENCY, LINK, SLOW, Machine, Range
from numatrace.analyze.samples.ratios import ASSUMED, SLIT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numatrace.analyze.plans.cost import Floats
    from numatrace.analyze.situation import Situation
    from numatrace.model.measured import RatioView
    from numatrace.model.topology import Topology

MANY = 64
"""Pairs of more nodes than this are not told apart: no machine that is known has as many."""
SAMPLED = 16
"""Up to so many nodes, the sampled latencies of every pair are looked at."""
EXACT = Range(0.9, 1.1)
"""What was measured, or given by the firmware as such, is taken to be right within this."""
FARTHEST = 3.0
"""No distance counts for more than this latency: firmware gives up to 254 for far nodes."""
SLIT_PART = 0.4
"""Least part of a distance's excess that is latency: 21 goes with 1.4 to 2.1 times."""

EVEN = Range(1.0, 1.0)
_ASK = "record with --measure-links to know"


@dataclass(frozen=True, slots=True)
class Speeds:
    """The machine, and in sentences what is assumed of it."""

    machine: Machine
    assumptions: tuple[str, ...]


def speeds(situation: Situation) -> Speeds:
    """Return what is known of the machine's memory; ranges where little is known."""
    nodes = tuple(sorted(node.node for node in situation.topology.nodes))
    cores = cores_by_node(situation.topology)
    pairs = _Pairs(situation, nodes)
    machine = Machine(
        nodes=nodes,
        cores=np.array([cores[node] for node in nodes], np.float64),
        speed=pairs.speed,
        latency=(pairs.latency[0], pairs.latency[1]),
        link=(pairs.link[0], pairs.link[1]),
    )
    return Speeds(machine, (*pairs.sentences(), _core_sentence(machine)))


def cores_by_node(topology: Topology) -> Counter[int]:
    """Return the physical cores of each node; a CPU whose siblings are unknown is one."""
    node_of = topology.cpu_to_node
    alone = set(node_of)
    found: Counter[int] = Counter()
    for core in topology.cores:
        online = [cpu for cpu in core if cpu in node_of]
        alone.difference_update(online)
        found.update(node_of[cpu] for cpu in online[:1])
    found.update(node_of[cpu] for cpu in alone)
    return found


class _Pairs:
    """λ and β of every pair of nodes, each at its low and at its high end, and bandwidths."""

    def __init__(self, situation: Situation, nodes: tuple[int, ...]) -> None:
        self._situation = situation
        self._links = situation.documents.links
        self._nodes = nodes
        self._bases: dict[str, Range] = {}
        """How λ is known, and the range of all pairs that are known so."""
        self._measured: Range | None = None
        """The range of all measured β."""
        self._assumed = False
        """Whether the β of any pair is an assumption."""
        apart = 1.0 - np.eye(len(nodes))
        self.latency: list[Floats] = [1.0 + apart * (each - 1.0) for each in LATENCY]
        self.link: list[Floats] = [1.0 + apart * (each - 1.0) for each in LINK]
        ones = np.ones(len(nodes))
        self.speed: tuple[Floats, Floats] = ones.copy(), ones.copy()
        self._fill()

    def _fill(self) -> None:
        with_cpus = set(self._situation.topology.nodes_with_cpus)
        for column, mem_node in enumerate(self._nodes):
            if mem_node not in with_cpus:
                found = self._slow(mem_node, with_cpus)
                self.speed[0][column], self.speed[1][column] = found
        if len(self._nodes) > MANY:
            self._bases["an assumption"], self._assumed = LATENCY, True
            return
        for row, cpu_node in enumerate(self._nodes):
            for column, mem_node in enumerate(self._nodes):
                if cpu_node != mem_node and cpu_node in with_cpus:
                    found = self._latency(cpu_node, mem_node)
                    self.latency[0][row, column], self.latency[1][row, column] = found
                    # Memory without CPUs is as slow as its node is, not as the way to it.
                    found = self._link(cpu_node, mem_node) if mem_node in with_cpus else EVEN
                    self.link[0][row, column], self.link[1][row, column] = found

    def _latency(self, cpu_node: int, mem_node: int) -> Range:
        sampled = len(self._nodes) <= SAMPLED
        view = self._situation.ratios.find(cpu_node, mem_node, sampled=sampled)
        found = _latency_range(view)
        self._bases[view.basis] = _hull(found, self._bases.get(view.basis))
        return found

    def _link(self, cpu_node: int, mem_node: int) -> Range:
        near = self._links.bandwidth(cpu_node, cpu_node) if self._links else None
        far = self._links.bandwidth(cpu_node, mem_node) if self._links else None
        if not near or not far:
            self._assumed = True
            return LINK
        found = Range(*(max(1.0, near / far * each) for each in EXACT))
        self._measured = _hull(found, self._measured)
        return found

    def _slow(self, mem_node: int, with_cpus: Iterable[int]) -> Range:
        """Return the bandwidth of a node without CPUs, against that of those with."""
        links, given = self._links, self._situation.topology.performance
        if links is not None:
            far = _known(links.bandwidth(node, mem_node) for node in with_cpus)
            near = _known(links.bandwidth(node, node) for node in with_cpus)
        else:
            far = _known(each.read_bandwidth_mb_s for each in given if each.node == mem_node)
            near = _known(each.read_bandwidth_mb_s for each in given if each.node in with_cpus)
        if not far or not near:
            return SLOW
        share = min(1.0, max(far) / (sum(near) / len(near)))
        return Range(max(0.01, share * EXACT.low), max(0.01, share * EXACT.high))

    def sentences(self) -> list[str]:
        """Say how λ and β are known."""
        found = [_latency_sentence(each, basis) for basis, each in self._bases.items()]
        if self._measured is not None:
            found.append(
                f"near memory has {_times(self._measured)} times the bandwidth of another node's"
                " (measured by record --measure-links)"
            )
        if self._assumed and len(self._nodes) > 1:
            found.append(
                f"near memory has {_times(LINK)} times the bandwidth of another node's"
                f" (an assumption: {_ASK})"
            )
        return found


def _latency_range(view: RatioView) -> Range:
    if view.basis == ASSUMED:
        return LATENCY
    if view.basis == SLIT:
        ratio = min(FARTHEST, view.ratio)
        return Range(1.0 + SLIT_PART * (ratio - 1.0), ratio)
    return Range(max(1.0, view.ratio * EXACT.low), view.ratio * EXACT.high)


def _latency_sentence(found: Range, basis: str) -> str:
    hint = f"; {_ASK}" if basis in (SLIT, ASSUMED) else ""
    return f"memory of another node takes {_times(found)} times as long to reach ({basis}{hint})"


def _core_sentence(machine: Machine) -> str:
    return (
        f"with near memory only, all cores would need {_times(machine.core_bound)} times as long"
        " as the memory itself (not recorded)"
    )


def _hull(one: Range, other: Range | None) -> Range:
    return one if other is None else Range(min(one.low, other.low), max(one.high, other.high))


def _known(figures: Iterable[float | None]) -> list[float]:
    return [each for each in figures if each]


def _times(found: Range) -> str:
    low, high = f"{found.low:.1f}", f"{found.high:.1f}"
    return low if low == high else f"{low} to {high}"
