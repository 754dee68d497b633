"""Choose where the server should run and keep its memory: one node, or several evenly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from numatrace.analyze.commandline import asked_threads, threads_are_fixed
from numatrace.analyze.plans.room import need_bytes, room_bytes
from numatrace.model.process import ollama_serve

if TYPE_CHECKING:
    from numatrace.analyze.situation import Situation
    from numatrace.model.process import Process

EVICT_SHARE = 0.03
"""From this share of mapped weights in the wrong place on, the page cache is dropped before the
restart: it survives a restart, and a memory policy does not move it. Half of the aim of 5 %."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A placement. `bind` ties CPUs and memory to one node, `interleave` spreads memory evenly."""

    kind: Literal["bind", "interleave"]
    nodes: tuple[int, ...]
    """Nodes that the memory goes to."""
    cpus: tuple[int, ...]
    """CPUs that the server is to use."""
    whole_nodes: bool
    """Whether these are all CPUs of the nodes with CPUs among `nodes`."""
    threads: int | None
    """Compute threads to set; None leaves them as they are."""
    evict: tuple[str, ...]
    """Model files whose page cache is to be dropped first, with the server stopped."""

    @property
    def node(self) -> int:
        """The node of a bind plan."""
        return self.nodes[0]


def root_process(situation: Situation) -> Process:
    """Return the process whose start settings count: `ollama serve`, or the server itself."""
    serve = ollama_serve(situation.server, situation.processes)
    return serve if serve is not None else situation.server


def plans(situation: Situation) -> list[Plan]:
    """Return the plans to try, the preferred one first; each still has to pass the lint.

    Binding to one node comes first: it makes every access local, and it is the most consistently
    reported gain. The node that holds most of the weights is preferred, because nothing has to
    be read again; of others the one with most cores, then the one nearest to all others.
    """
    need = need_bytes(situation)
    nodes = situation.topology.nodes_with_memory
    able = [node for node in nodes if usable_cpus(situation, node)]
    fitting = [node for node in able if room_bytes(situation, node) >= need]
    fitting.sort(key=lambda node: _rank(situation, node))
    found = [_bind(situation, node) for node in fitting]
    spread = _spread_nodes(situation, need)
    return [*found, _interleave(situation, spread)] if len(spread) > 1 else found


def usable_cpus(situation: Situation, node: int) -> tuple[int, ...]:
    """Return the CPUs of a node that the restarted server may use.

    A narrower choice that was made before, by cpuset or affinity, is kept where it leaves CPUs
    on this node; where it leaves none it is what the fix changes.
    """
    found = situation.topology.node(node)
    cpus = set(found.cpus) if found is not None else set()
    for allowed in (situation.server.cgroup.cpus, situation.compute_cpus):
        cpus = cpus & set(allowed) or cpus
    return tuple(sorted(cpus))


def _rank(situation: Situation, node: int) -> tuple[bool, int, int, int, int]:
    topology = situation.topology
    distance = sum(topology.distance(node, other) for other in topology.nodes_with_memory)
    cores = _cores(situation, usable_cpus(situation, node))
    return node != situation.weights.holder, -cores, distance, -room_bytes(situation, node), node


def _bind(situation: Situation, node: int) -> Plan:
    cpus = usable_cpus(situation, node)
    found = situation.topology.node(node)
    elsewhere = 1.0 - situation.weights.parts.get(node, 0.0)
    evict = situation.weights.paths if elsewhere >= EVICT_SHARE else ()
    whole = found is not None and cpus == found.cpus
    return Plan("bind", (node,), cpus, whole, _threads(situation, cpus), evict)


def _interleave(situation: Situation, nodes: tuple[int, ...]) -> Plan:
    with_cpus = situation.topology.nodes_with_cpus
    cpus = tuple(sorted(cpu for node in with_cpus for cpu in usable_cpus(situation, node)))
    every = {cpu for node in situation.topology.nodes for cpu in node.cpus}
    threads = _threads(situation, cpus)
    return Plan("interleave", nodes, cpus, set(cpus) == every, threads, situation.weights.paths)


def _spread_nodes(situation: Situation, need: int) -> tuple[int, ...]:
    """Return the nodes to spread over: with CPUs and room for an even part, else all with memory.

    On all of them the kernel goes on with the others when one is full.
    """
    topology = situation.topology
    everywhere = set(topology.nodes_with_memory)
    for candidates in (everywhere & set(topology.nodes_with_cpus), everywhere):
        nodes = candidates
        while len(nodes) > 1:
            part = need / len(nodes)
            small = {node for node in nodes if room_bytes(situation, node) < part}
            if not small:
                return tuple(sorted(nodes))
            nodes = nodes - small
    return topology.nodes_with_memory


def _threads(situation: Situation, cpus: tuple[int, ...]) -> int | None:
    """Return the thread count to set: one per physical core, or fewer where fewer were asked for.

    None where the count that the server has cannot be changed by how it is started.
    """
    if threads_are_fixed(situation.server, root_process(situation)):
        return None
    cores = _cores(situation, cpus)
    asked = asked_threads(situation.server)
    return min(asked, cores) if asked else cores


def _cores(situation: Situation, cpus: tuple[int, ...]) -> int:
    """Return the physical cores among these CPUs; all CPUs count where siblings are unknown."""
    wanted = set(cpus)
    cores = [set(core) & wanted for core in situation.topology.cores]
    alone = wanted.difference(*cores)
    count = sum(1 for core in cores if core) + len(alone)
    quota = situation.server.cgroup.quota_cpus
    return max(1, min(count, int(quota))) if quota is not None else count
