"""The plans that are weighed: every way to run the server that this machine might allow.

None of them is checked here: the lint says which may become a fix, and `choose` which is best.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.commandline import is_llama_cpp
from numatrace.analyze.plans.cores import (
    core_of,
    count_cores,
    cpus_of,
    every_cpu,
    running_threads,
    threads_for,
    usable_by_node,
    usable_cpus,
)
from numatrace.analyze.plans.plan import EVICT_SHARE, Plan
from numatrace.analyze.plans.room import need_bytes, room_bytes
from numatrace.analyze.plans.speeds import MANY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numatrace.analyze.plans.plan import Kind
    from numatrace.analyze.situation import Situation

MOST_NODES = 4
"""Single nodes that are weighed, the best ones: further ones differ in nothing but their number."""


def candidates(situation: Situation) -> list[Plan]:
    """Return the plans, those of each kind in order of preference."""
    nodes, need = ranked_nodes(situation), need_bytes(situation)
    fitting = [node for node in nodes if room_bytes(situation, node) >= need]
    best = (fitting or nodes)[:MOST_NODES]
    return [
        *(_on_one_node(situation, "bind", node) for node in best),
        *_interleaves(situation, nodes),
        *_distributes(situation),
        *_per_node(situation),
        *_fewer_threads(situation),
        *(_on_one_node(situation, "cpuset", node) for node in best if _has_cpuset(situation)),
        *(_on_one_node(situation, "live", node) for node in best[:1]),
        *_balancing(situation),
    ]


def ranked_nodes(situation: Situation) -> list[int]:
    """Return the nodes with CPUs and memory, the one to run on first.

    First the GPU's, if one is used; then the one that CPUs and memory policy were both bound to
    on purpose; the one that holds most of the weights, because nothing has to be read again; the
    one with most cores, the nearest to all others, and the one with most room.
    """
    topology, usable = situation.topology, usable_by_node(situation)
    core, holder = core_of(topology), situation.weights.holder
    deliberate = bound_to(situation)
    with_memory = topology.nodes_with_memory
    # No machine that is known has more nodes: what is damaged need not be ranked well.
    others = with_memory[:MANY]

    def rank(node: int) -> tuple[bool, bool, bool, int, int, int, int]:
        return (
            bool(situation.gpu_nodes) and node not in situation.gpu_nodes,
            node != deliberate,
            node != holder,
            -count_cores(core, usable[node]),
            sum(topology.distance(node, other) for other in others),
            -room_bytes(situation, node),
            node,
        )

    return sorted((node for node in with_memory if usable[node]), key=rank)


def bound_to(situation: Situation) -> int | None:
    """Return the node to which both the CPUs and the memory policy were bound, if they were."""
    nodes = situation.policy_nodes
    return nodes[0] if len(nodes) == 1 and nodes == situation.confined_to else None


def _has_cpuset(situation: Situation) -> bool:
    cpus = set(situation.root.cgroup.cpus) & set(situation.topology.cpu_to_node)
    return bool(situation.mems) or (bool(cpus) and len(cpus) < len(situation.topology.cpu_to_node))


def _on_one_node(situation: Situation, kind: Kind, node: int) -> Plan:
    cpus = usable_cpus(situation, node)
    whole = cpus == every_cpu(situation, (node,))
    if kind == "live":
        return Plan(kind, (node,), cpus, whole, None)
    elsewhere = sum(situation.weights.mapped_bytes.values())
    elsewhere -= situation.weights.mapped_bytes.get(node, 0)
    evict = elsewhere >= EVICT_SHARE * situation.weights.present_bytes and elsewhere > 0
    threads = threads_for(situation, cpus)
    return Plan(kind, (node,), cpus, whole, threads, situation.weights.paths if evict else ())


def _interleaves(situation: Situation, ranked: Sequence[int]) -> list[Plan]:
    """Return the plans to spread: over all nodes, and over those near the best one."""
    with_cpus = situation.topology.nodes_with_cpus
    everywhere = _spread_nodes(situation)
    found = [_interleave(situation, everywhere, with_cpus)] if len(everywhere) > 1 else []
    near = _near(situation, ranked)
    if 1 < len(near) < len(everywhere):
        found.append(_interleave(situation, near, near))
    return found


def _interleave(situation: Situation, nodes: tuple[int, ...], running: Sequence[int]) -> Plan:
    cpus = cpus_of(situation, running)
    whole = cpus == every_cpu(situation, running)
    threads = threads_for(situation, cpus)
    return Plan("interleave", nodes, cpus, whole, threads, situation.weights.paths)


def _spread_nodes(situation: Situation) -> tuple[int, ...]:
    """Return the nodes to spread over: with CPUs and room for an even part, else all with memory.

    On all of them the kernel goes on with the others when one is full.
    """
    need, topology = need_bytes(situation), situation.topology
    everywhere = set(topology.nodes_with_memory)
    for those in (everywhere & set(topology.nodes_with_cpus), everywhere):
        nodes = those
        while len(nodes) > 1:
            part = need / len(nodes)
            small = {node for node in nodes if room_bytes(situation, node) < part}
            if not small:
                return tuple(sorted(nodes))
            nodes = nodes - small
    return topology.nodes_with_memory


def _near(situation: Situation, ranked: Sequence[int]) -> tuple[int, ...]:
    """Return the best node and those nearest to it, if they have the room; else nothing."""
    if len(ranked) < 2:
        return ()
    first, *others = ranked
    distances = {node: situation.topology.distance(first, node) for node in others}
    nearest = min(distances.values())
    nodes = (first, *(node for node in others if distances[node] == nearest))
    part = need_bytes(situation) / len(nodes)
    roomy = all(room_bytes(situation, node) >= part for node in nodes)
    return tuple(sorted(nodes)) if roomy else ()


def _distributes(situation: Situation) -> list[Plan]:
    """Return llama.cpp's own mode, in which pinned threads keep to the same rows.

    What is repacked was written by one thread, so it helps only without repacking.
    """
    nodes = _full_nodes(situation)
    if len(nodes) < 2 or not is_llama_cpp(situation.server.argv):
        return []
    cpus, weights = cpus_of(situation, nodes), situation.weights
    whole = cpus == every_cpu(situation, nodes)
    repack = False if weights.private_bytes and weights.paths else None
    threads = threads_for(situation, cpus)
    return [Plan("distribute", nodes, cpus, whole, threads, weights.paths, repack=repack)]


def _per_node(situation: Situation) -> list[Plan]:
    nodes = _full_nodes(situation)
    if len(nodes) < 2:
        return []
    usable = usable_by_node(situation)
    smallest = min((usable[node] for node in nodes), key=len)
    cpus = cpus_of(situation, nodes)
    whole = cpus == every_cpu(situation, nodes)
    return [Plan("per-node", nodes, cpus, whole, threads_for(situation, smallest))]


def _full_nodes(situation: Situation) -> tuple[int, ...]:
    """Return the nodes with CPUs and memory."""
    topology = situation.topology
    return tuple(sorted(set(topology.nodes_with_cpus) & set(topology.nodes_with_memory)))


def _fewer_threads(situation: Situation) -> list[Plan]:
    cpus = situation.allowed_cpus or tuple(sorted(situation.topology.cpu_to_node))
    threads = threads_for(situation, cpus) if cpus else None
    if threads is None or threads >= running_threads(situation):
        return []
    return [Plan("threads", (), cpus, False, threads)]


def _balancing(situation: Situation) -> list[Plan]:
    if situation.numa_balancing is None:
        return []
    value = 0 if situation.numa_balancing else 1
    return [Plan("balancing", (), (), False, None, balancing=value)]
