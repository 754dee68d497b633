"""CPUs that the restarted server may use, and how many physical cores they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.commandline import asked_threads, threads_are_fixed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numatrace.analyze.situation import Situation
    from numatrace.model.topology import Topology


def usable_cpus(situation: Situation, node: int) -> tuple[int, ...]:
    """Return the CPUs of a node that the restarted server may use (see usable_by_node)."""
    return usable_by_node(situation).get(node, ())


def usable_by_node(situation: Situation) -> dict[int, tuple[int, ...]]:
    """Return the CPUs of every node that the restarted server may use.

    A narrower choice that was made before, by cpuset or affinity, is kept where it leaves CPUs
    on a node; where it leaves none it is what the fix changes.
    """
    limits = [set(situation.server.cgroup.cpus), set(situation.compute_cpus)]
    found = {}
    for node in situation.topology.nodes:
        cpus = set(node.cpus)
        for allowed in limits:
            cpus = cpus & allowed or cpus
        found[node.node] = tuple(sorted(cpus))
    return found


def cpus_of(situation: Situation, nodes: Iterable[int]) -> tuple[int, ...]:
    """Return the usable CPUs of several nodes."""
    usable = usable_by_node(situation)
    return tuple(sorted(cpu for node in nodes for cpu in usable.get(node, ())))


def every_cpu(situation: Situation, nodes: Iterable[int]) -> tuple[int, ...]:
    """Return all CPUs of several nodes, usable or not."""
    wanted = set(nodes)
    found = (node.cpus for node in situation.topology.nodes if node.node in wanted)
    return tuple(sorted(cpu for cpus in found for cpu in cpus))


def core_of(topology: Topology) -> dict[int, int]:
    """Return a number for the physical core of every CPU whose siblings are known."""
    return {cpu: number for number, core in enumerate(topology.cores) for cpu in core}


def core_count(situation: Situation, cpus: Iterable[int]) -> int:
    """Return the physical cores among these CPUs; all CPUs count where siblings are unknown."""
    return count_cores(core_of(situation.topology), cpus)


def count_cores(core: Mapping[int, int], cpus: Iterable[int]) -> int:
    """Return how many cores these CPUs are of; see core_of."""
    return len({core.get(cpu, -1 - cpu) for cpu in cpus})


def threads_for(situation: Situation, cpus: Iterable[int]) -> int | None:
    """Return the thread count to set: one per physical core, or fewer where fewer were asked for.

    A CPU quota limits it as well. None where the count that the server has cannot be changed by
    how it is started.
    """
    if threads_are_fixed(situation.server, situation.root):
        return None
    cores = cpu_limit(situation, core_count(situation, cpus))
    asked = asked_threads(situation.server)
    return min(asked, cores) if asked else cores


def cpu_limit(situation: Situation, cpus: int) -> int:
    """Return so many CPUs, or what the CPU quota leaves of them: whole ones, at least 1."""
    quota = situation.quota_cpus
    return max(1, min(cpus, int(quota)) if quota is not None else cpus)


def running_threads(situation: Situation) -> int:
    """Return how many compute threads the server has: seen, else asked for, else one per CPU."""
    seen = situation.threads_used or asked_threads(situation.server)
    return seen or max(1, len(situation.topology.cpu_to_node))
