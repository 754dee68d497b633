"""How fast tokens come with threads and weights placed so: a range, from a model of three limits.

Decoding reads every weight once per token, and all threads wait for one another after every
operation. So a token takes as long as the slowest of three: the cores, which wait longer for memory
that is far; the links between nodes; the memory of the node that is read most. With r the remote
share, λ and β the latency and the bandwidth of near memory against far, N nodes and m the largest
node's share of the bytes read, the slow-down against threads that read evenly from their own
nodes is max(c·(1 + r(λ - 1)), r·β, N·m); c is what the cores alone would need, and grows when fewer
of them are used. Nothing of that is known exactly, so it is worked out at the ends of every range.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Floats = np.ndarray[Any, np.dtype[np.float64]]


class Range(NamedTuple):
    """The least and the most that a figure may be."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """Return the geometric mean: as many times the low end as the high end is of it."""
        return float(np.sqrt(self.low * self.high))

    def times(self, other: Range) -> Range:
        """Return the product of two ranges."""
        return Range(self.low * other.low, self.high * other.high)


CORE_BOUND = Range(0.5, 1.5)
"""Time that all cores need for near memory, as a multiple of what the memory itself needs (c). From
half of a node's cores on they use up its memory's bandwidth; llama.cpp was seen to reach two thirds
of it with all of them (PR 11744: 608 GB/s of 24 channels of DDR5-6000, 1152 GB/s at most)."""
FEW_CORES = 8
CORE_BOUND_FEW = Range(0.5, 2.0)
"""The same with fewer cores per node than FEW_CORES, which cannot use up its bandwidth."""
LATENCY = Range(1.4, 2.1)
"""Remote latency against local, where nothing is known: from 195 against 135 ns (Xeon E7-4800, MLC)
to the distance of 21 that firmware gives most often."""
LINK = Range(1.0, 3.5)
"""Bandwidth of near memory against far, where nothing was measured: 1 with four links (EPYC 9004),
2.6 measured on Skylake (90.9 against 34.4 GB/s), and evenly spread weights were seen to be 1.76
times slower than near ones (llama.cpp PR 27986), which takes 3.5."""
SLOW = Range(0.15, 0.5)
"""Bandwidth of a node without CPUs, such as CXL memory, against one with: one link of eight lanes
against eight to twelve channels, up to several links."""
WAIT = Range(1.0, 1.2)
"""Cost of threads on several nodes that wait for one another after every operation: two instances
of one node each make 1.65 times the tokens of one over both (llama.cpp PR 5377), of which spread
memory explains 1.4."""
NOISE = Range(0.95, 1.05)
"""Token rates of one placement differ by that much from run to run."""
SEEN = 0.9
"""Most that a change of placement has brought, as a share of the number of nodes: published gains
on two nodes are 1.1 to 1.8 times."""
OVERSUBSCRIBED = Range(2.0, 45.0)
"""How much slower more threads than CPUs are: a thread that waits for one that does not run waits
for a time slice. 45 times was seen with 8 threads on 4 CPUs (ollama issue 17916)."""
NO_REPACK = Range(0.8, 1.0)
"""Speed of weights in their file's layout against repacked ones."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Nodes in ascending order; vectors and matrices are in that order, matrices by CPU first.

    `speed` is the bandwidth of each node's memory against that of a node with CPUs, `latency` λ and
    `link` β of every pair: each at its low and at its high end.
    """

    nodes: tuple[int, ...]
    cores: Floats
    speed: tuple[Floats, Floats]
    latency: tuple[Floats, Floats]
    link: tuple[Floats, Floats]

    @property
    def cpu_nodes(self) -> int:
        """How many nodes have cores; at least 1."""
        return max(1, int((self.cores > 0).sum()))

    @property
    def core_bound(self) -> Range:
        """What the cores alone need, against the memory (see CORE_BOUND)."""
        few = self.cores.sum() < FEW_CORES * self.cpu_nodes
        return CORE_BOUND_FEW if few else CORE_BOUND

    @property
    def most(self) -> float:
        """The most that any placement may gain over another (see SEEN)."""
        return max(1.0, SEEN * len(self.nodes))


@dataclass(frozen=True, slots=True)
class State:
    """Who reads what: shares of the threads and of the weights on each node, both summing to 1.

    `own` is the part of the reads that each thread makes of its own node because it always reads
    the same rows. `cores` are the cores that compute. `instances` servers share the work.
    """

    threads: Mapping[int, float]
    weights: Mapping[int, float]
    cores: float
    own: float = 0.0
    instances: int = 1


class _Corner(NamedTuple):
    """One choice within all ranges: `far` and `narrow` say which end of λ and of β and speed."""

    core_bound: float
    far: int
    narrow: int
    wait: float
    uneven: bool


def flows(machine: Machine, state: State) -> Floats:
    """Return the share of all reads by node of the thread (rows) and of the memory (columns)."""
    threads = np.array([state.threads.get(node, 0.0) for node in machine.nodes], np.float64)
    weights = np.array([state.weights.get(node, 0.0) for node in machine.nodes], np.float64)
    shared: Floats = np.outer(threads, weights)
    return np.diag(threads) * state.own + shared * (1.0 - state.own)


def remote_share(machine: Machine, state: State) -> float:
    """Return the share of reads from another node, 0 to 1: 1 - Σ_n t_n·w_n when none are own."""
    return min(1.0, max(0.0, 1.0 - float(np.trace(flows(machine, state)))))


def slowdown(machine: Machine, state: State) -> Range:
    """Return how much slower a token is than with even reads of near memory only."""
    reads = _Reads(machine, state)
    found = [reads.slowdown(corner) for corner in _corners(machine)]
    return Range(min(found), max(found))


def speedup(machine: Machine, before: State, after: State) -> Range:
    """Return tokens per second after a change of placement, as a multiple of those before.

    Both are worked out with the same machine: what is unknown of it is unknown of both alike.
    """
    old, new = _Reads(machine, before), _Reads(machine, after)
    ratios = [old.slowdown(each) / new.slowdown(each) for each in _corners(machine)]
    return clipped(Range(min(ratios), max(ratios)).times(NOISE), machine)


def clipped(gain: Range, machine: Machine) -> Range:
    """Return a gain within what has been seen in practice."""
    most = max(machine.most, NOISE.high)
    low, high = (min(most, max(1 / most, each)) for each in gain)
    return Range(low, high)


def _corners(machine: Machine) -> Iterator[_Corner]:
    least, most = machine.core_bound
    for parts in product((least, 1.0, most), (0, 1), (0, 1), WAIT, (False, True)):
        yield _Corner(*parts)


class _Reads:
    """The reads of a state, added up once for every end of the ranges."""

    def __init__(self, machine: Machine, state: State) -> None:
        flow = flows(machine, state)
        nodes = machine.cpu_nodes
        threads = flow.sum(axis=1)
        busy = threads > 0
        apart = flow * (1.0 - np.eye(len(machine.nodes)))
        self._cores = float(machine.cores.sum()) / state.cores if state.cores > 0 else 1.0
        self._waits = state.instances == 1 and int(busy.sum()) > 1
        delays = [(flow * each).sum(axis=1) for each in machine.latency]
        self._delay = [
            (float(each.sum()), float((each[busy] / threads[busy]).max(initial=1.0)))
            for each in delays
        ]
        self._link = [
            (float((apart * each).sum()), nodes * float((apart * each).max(initial=0.0)))
            for each in machine.link
        ]
        # A narrow machine has the low ends of its nodes' bandwidth.
        self._memory = [
            nodes * float((flow.sum(axis=0) / each).max(initial=0.0))
            for each in reversed(machine.speed)
        ]

    def slowdown(self, corner: _Corner) -> float:
        """Return the slow-down; `uneven` takes the slowest thread and the busiest single link."""
        limits = (
            corner.core_bound * self._cores * self._delay[corner.far][corner.uneven],
            self._link[corner.narrow][corner.uneven],
            self._memory[corner.narrow],
        )
        return max(limits) * (corner.wait if self._waits else 1.0)
