"""The circulating guides' own checks, answered from the trace: a reader of them recognises these.

Every text that a trace brought is quoted as it is: escape it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.model.cpulist import format_cpulist
from numatrace.model.findings import DocumentCheck
from numatrace.model.units import format_bytes, format_count, format_share

if TYPE_CHECKING:
    from numatrace.analyze.situation import Situation
    from numatrace.model.topology import NodeMemory

MIB = 1 << 20
NODES_SHOWN = 16
"""Nodes that a check shows; a reader compares a few columns, not hundreds."""
CMDLINE_SHOWN = 200


def memory_by_node(situation: Situation, number: int, name: str) -> DocumentCheck:
    """Return the columns of `numastat -m` that tell, in MB of 2^20 bytes as it prints them."""
    shown = sorted(situation.memory.items())[:NODES_SHOWN]
    columns = [_numastat(memory) for _, memory in shown]
    header = " " * 15 + "".join(f"{f'Node {node}':>16}" for node, _ in shown)
    rows = [
        f"{title:<15}" + "".join(f"{column[title] / MIB:>16.2f}" for column in columns)
        for title in _numastat(situation.memory[shown[0][0]])
    ] if shown else []  # fmt: skip
    return DocumentCheck(number, name, "numastat -m", (header, *rows))


def cpu_by_node(situation: Situation, number: int, name: str) -> DocumentCheck:
    """Return how busy the compute threads kept each node, as the bars of htop would show it."""
    lines = []
    for node in situation.topology.nodes[:NODES_SHOWN]:
        used = situation.compute_ns.get(node.node, 0)
        span = situation.duration_ns * len(node.cpus)
        busy = format_share(min(1.0, used / span)) if span else "no CPUs"
        held = situation.weights.node_bytes.get(node.node, 0)
        lines.append(
            f"node {node.node}, CPUs {format_cpulist(node.cpus) or '(none)'}: {busy} by the server,"
            f" which has {format_bytes(held)} of weights there"
        )
    return DocumentCheck(number, name, "htop", tuple(lines))


def free_by_node(situation: Situation, number: int, name: str, need: int) -> DocumentCheck:
    """Return free memory by node, which `free -h` does not tell, and what the server needs."""
    lines = [
        f"node {node}: {format_bytes(memory.total_bytes)} total,"
        f" {format_bytes(memory.free_bytes)} free, {format_bytes(memory.inactive_file_bytes)}"
        " reclaimable"
        for node, memory in sorted(situation.memory.items())[:NODES_SHOWN]
    ]
    return DocumentCheck(
        number,
        name,
        "free -h",
        (
            *lines,
            f"the server needs {format_bytes(need)} with its model; free -h adds all nodes up",
        ),
    )


def balancing(situation: Situation, number: int, name: str) -> DocumentCheck:
    """Return what the kernel was told about NUMA, and whether its balancing is on."""
    words = situation.documents.kernel.cmdline.split()
    told = " ".join(word for word in words if "numa" in word)[:CMDLINE_SHOWN]
    setting = situation.numa_balancing
    moves = sum(thread.moves for thread in situation.compute)
    return DocumentCheck(
        number,
        name,
        "cat /proc/cmdline; sysctl kernel.numa_balancing",
        (
            f"/proc/cmdline: {told}" if told else "/proc/cmdline: nothing about NUMA",
            f"kernel.numa_balancing = {'(unknown)' if setting is None else setting}",
            f"{format_count(moves, 'move')} of compute threads between nodes, which neither shows",
        ),
    )


def container_view(situation: Situation, number: int, name: str) -> DocumentCheck:
    """Return the topology as the container sees it, and what its cpuset leaves of it."""
    nodes = situation.topology.nodes[:NODES_SHOWN]
    cgroup = situation.server.cgroup
    mems = cgroup.mems or situation.server.mems_allowed
    return DocumentCheck(
        number,
        name,
        "lscpu; cat /sys/fs/cgroup/cpuset.{cpus,mems}.effective (in the container)",
        (
            f"NUMA node(s): {len(situation.topology.nodes)} (the host's: a container sees them"
            " all)",
            *(f"NUMA node{each.node} CPU(s): {format_cpulist(each.cpus)}" for each in nodes),
            f"cpuset.cpus.effective: {format_cpulist(cgroup.cpus) or '(unknown)'}",
            f"cpuset.mems.effective: {format_cpulist(mems) or '(unknown)'}",
        ),
    )


def _numastat(memory: NodeMemory) -> dict[str, int]:
    return {
        "MemTotal": memory.total_bytes,
        "MemFree": memory.free_bytes,
        "MemUsed": max(0, memory.total_bytes - memory.free_bytes),
        "Inactive(file)": memory.inactive_file_bytes,
        "FilePages": memory.file_bytes,
        "AnonPages": memory.anon_bytes,
    }
