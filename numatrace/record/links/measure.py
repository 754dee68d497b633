"""Measures every pair of a node with CPUs and a node with memory, within a time that is given."""

from __future__ import annotations

import os
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import BrokenBarrierError
from typing import TYPE_CHECKING

from numatrace.model.cpulist import NODE_LIMIT, parse_cpulist
from numatrace.model.errors import CapabilityError, NumatraceError
from numatrace.model.machine import SKIPPED_LIMIT, Links
from numatrace.record.links.area import Area
from numatrace.record.links.caches import caches_of, last_cache
from numatrace.record.links.code import Loops
from numatrace.record.links.cycle import BLOCK_BYTES, WINDOW_BYTES, write_cycle
from numatrace.record.links.pair import RUNS, bandwidth_bytes_s, latency_ns, numpy_stream
from numatrace.record.machine import procfs, sysfs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from numatrace.model.topology import Topology

    Progress = Callable[[str], None]

ROOT = Path("/")
BUDGET_S = 10.0
"""How long all of it may take, about."""
PAIR_S = 0.4
"""How long a pair may take, half of it for latency and half for bandwidth; less for many pairs."""
CHAIN_BYTES = 64 << 20
"""Memory that the pointer chase walks over."""
STREAM_BYTES = (128 << 20, 1 << 30)
"""Memory that is read for the bandwidth: at least, and at most. Four times the caches, between."""
MAX_THREADS = 64
BUSY = 0.2
"""From this share of time without a CPU on, the figures come with a remark."""
FREE_FACTOR = 1.5
"""So much of what is needed must be free: nothing is reclaimed for a measurement."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of an area: the chain first, then what is read for bandwidth."""

    chain: int
    stream: int
    caches: int
    """Of the node that has the largest ones."""

    @property
    def total(self) -> int:
        """Bytes of both."""
        return self.chain + self.stream


@dataclass(slots=True)
class Measurement:
    """What has been measured so far."""

    cpus: dict[int, tuple[int, ...]]
    """By node: a CPU of every core that threads run on."""
    sizes: Sizes
    loops: Loops | None
    root: Path
    end: float
    """When it has to be over (time.monotonic)."""
    latency: dict[int, dict[int, float]] = field(default_factory=dict)
    bandwidth: dict[int, dict[int, float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    waited: float = 0.0
    """The largest share of a measurement of bandwidth that its threads waited for CPUs."""

    def memory_node(self, node: int, pairs_left: int, progress: Progress) -> None:
        """Measure one node's memory from all nodes with CPUs."""
        if (why := self._why_not(node)) is not None:
            self.skip(node, why)
            return
        if not self.cpus:
            return
        near = self.cpus.get(node) or next(iter(self.cpus.values()))
        os.sched_setaffinity(0, near)
        try:
            with closing(Area(self.sizes.total, node)) as area:
                write_cycle(area.words(0, self.sizes.chain), area.begin)
                for cpu_node in self.cpus:
                    progress(f"CPUs of node {cpu_node}, memory of node {node}")
                    self._pair(cpu_node, area, pairs_left)
                    pairs_left -= 1
        except NumatraceError as error:
            self.skip(node, error.why)
        except (OSError, BrokenBarrierError) as error:  # no memory, or a CPU that is gone
            self.skip(node, str(error) or "the threads did not start together")

    def skip(self, node: int, why: str) -> None:
        """Leave out a node's memory, where it is not measured yet."""
        for cpu_node in self.cpus:
            done = (self.latency, self.bandwidth)
            if not any(node in figures.get(cpu_node, {}) for figures in done):
                self.skipped.setdefault(f"{cpu_node}>{node}", why)

    def _why_not(self, node: int) -> str | None:
        if time.monotonic() >= self.end:
            return "the time was up"
        needed, free = self.sizes.total * FREE_FACTOR, sysfs.node_memory(node, self.root).free_bytes
        if free < needed:
            return f"node {node} has {free >> 20} MiB free, and {int(needed) >> 20} are needed"
        return None

    def _pair(self, cpu_node: int, area: Area, pairs_left: int) -> None:
        now = time.monotonic()
        if now >= self.end:
            self.skipped[f"{cpu_node}>{area.node}"] = "the time was up"
            return
        seconds = min(PAIR_S, (self.end - now) / (pairs_left + 1)) / 2
        cpus = self.cpus[cpu_node]
        memory = (area.begin + self.sizes.chain, self.sizes.stream)
        if self.sizes.stream >= 2 * self.sizes.caches:
            stream = self.loops.stream if self.loops else numpy_stream
            rate = bandwidth_bytes_s(stream, cpus, memory, seconds)
            self.bandwidth.setdefault(cpu_node, {})[area.node] = round(rate.value)
            self.waited = max(self.waited, rate.waited)
        if self.loops:
            cpu = cpus[len(cpus) // 2]  # not the first, which most interrupts go to
            evict = min(memory[1], 2 * last_cache(cpu, self.root)[0] // WINDOW_BYTES * WINDOW_BYTES)
            chain = (area.begin, self.sizes.chain)
            ns = latency_ns(self.loops, cpu, chain, (memory[0], max(evict, WINDOW_BYTES)), seconds)
            self.latency.setdefault(cpu_node, {})[area.node] = round(ns.value, 2)


def measure_links(progress: Progress, budget_s: float = BUDGET_S, root: Path = ROOT) -> Links:
    """Measure latency and bandwidth of every pair whose CPUs and memory this process may use.

    Raises nothing for what cannot be measured: `skipped` of the result says why. Changes the
    affinity of the calling thread.
    """
    began = time.monotonic()
    topology = sysfs.read_topology(root)
    cpus = usable_cpus(topology, os.sched_getaffinity(0))
    sizes = sizes_for(max((caches_of(each, root) for each in cpus.values()), default=0))
    loops, why = _loops()
    work = Measurement(cpus, sizes, loops, root, began + budget_s)
    if why:
        work.skipped["latency"] = why
    if sizes.stream < 2 * sizes.caches:
        work.skipped["bandwidth"] = f"the caches hold {sizes.caches >> 20} MiB, too much to pass by"
    _all_nodes(work, topology.nodes_with_memory, progress)
    if loops is not None:
        loops.close()
    return _result(work, time.monotonic() - began)


def _result(work: Measurement, took_s: float) -> Links:
    skipped = dict(work.skipped)
    if work.waited > BUSY:
        skipped["busy"] = (
            f"other programs had up to {100 * work.waited:.0f} % of the CPUs' time meanwhile: "
            "bandwidth may be other on an idle machine"
        )
    return Links(
        latency_ns=work.latency,
        bandwidth_bytes_s=work.bandwidth,
        threads={node: len(each) for node, each in work.cpus.items()},
        skipped=dict(list(skipped.items())[-SKIPPED_LIMIT:]),
        method=_method(work.sizes),
        took_s=round(took_s, 3),
    )


def usable_cpus(topology: Topology, allowed: Collection[int]) -> dict[int, tuple[int, ...]]:
    """Return, by node, one CPU of every core of which there is one that may be used.

    Of more than MAX_THREADS cores, as many, spread evenly.
    """
    found = {}
    for node in topology.nodes_with_cpus:
        cores = topology.cores_of_node(node)
        usable = [[cpu for cpu in core if cpu in allowed] for core in cores]
        first = [core[0] for core in usable if core]
        if first:
            step = max(1.0, len(first) / MAX_THREADS)
            found[node] = tuple(first[int(index * step)] for index in range(int(len(first) / step)))
    return found


def sizes_for(caches: int) -> Sizes:
    """Return how much memory to measure over where the CPUs of a node have so many bytes of cache.

    The chain needs no such room: other memory is read before it, and each line visited once.
    """
    least, most = STREAM_BYTES
    stream = min(max(4 * caches, least), most)
    return Sizes(CHAIN_BYTES, stream // WINDOW_BYTES * WINDOW_BYTES, caches)


def _all_nodes(work: Measurement, nodes: Sequence[int], progress: Progress) -> None:
    status = procfs.status(str(work.root / "proc/self/status")) or {}
    try:
        allowed = parse_cpulist(status.get("Mems_allowed_list", ""), NODE_LIMIT)
    except ValueError:
        allowed = ()
    for done, node in enumerate(nodes):
        if allowed and node not in allowed:  # a kernel without cpusets has no such list
            work.skip(node, "the recorder may not use this memory (its cpuset)")
        else:
            work.memory_node(node, len(work.cpus) * (len(nodes) - done), progress)


def _loops() -> tuple[Loops | None, str]:
    try:
        return Loops(), ""
    except CapabilityError as error:
        return None, error.why


def _method(sizes: Sizes) -> str:
    window = f"{WINDOW_BYTES >> 20} MiB"
    return (
        f"latency: dependent loads of a line in each {BLOCK_BYTES} bytes of "
        f"{sizes.chain >> 20} MiB, {window} by {window}, median of {RUNS} runs; "
        f"bandwidth: reads of {sizes.stream >> 20} MiB by a thread per core"
    )
