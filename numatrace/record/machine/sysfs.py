"""Reads the machine from /sys and /proc: nodes, memory, distances, cores, settings.

Every function takes the folder that holds `sys` and `proc`, so that a captured tree works as
the live machine does. A file that is missing leaves its value out; nothing here raises.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from numatrace.model.cpulist import CPU_LIMIT, NODE_LIMIT
from numatrace.model.machine import (
    CMDLINE_LIMIT,
    COUNTERS_LIMIT,
    SETTING_LIMIT,
    Kernel,
    Memory,
    Sysctl,
)
from numatrace.model.topology import (
    DISTANCE_LIMIT,
    HugePages,
    Node,
    NodeMemory,
    Performance,
    Topology,
)
from numatrace.record.machine.files import (
    numbered,
    read_cpulist,
    read_cpumask,
    read_integer,
    read_names,
    read_text,
    to_integer,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path("/")
NODES = "sys/devices/system/node"
CPUS = "sys/devices/system/cpu"

SYSCTLS = (
    "kernel.numa_balancing",
    "kernel.numa_balancing_promote_rate_limit_MBps",
    "kernel.perf_event_paranoid",
    "vm.zone_reclaim_mode",
    "vm.overcommit_memory",
    "vm.swappiness",
    "vm.min_free_kbytes",
    "vm.nr_hugepages",
)
MM_SETTINGS = {
    "transparent_hugepage": "transparent_hugepage/enabled",
    "transparent_hugepage_defrag": "transparent_hugepage/defrag",
    "numa_demotion": "numa/demotion_enabled",
}
_VMSTAT = re.compile(
    r"(numa|pgscan_(direct|kswapd)|pgsteal|allocstall|pgmigrate|pgdemote|pgpromote)_?\w*"
    r"|pswp(in|out)|workingset_refault(_file|_anon)?"
)
"""Lines of /proc/vmstat that say whether memory was short, and what moved (mm/vmstat.c)."""
_CHOSEN = re.compile(r"\[([^\]]*)\]")
_KILOBYTES = re.compile(r"^(?:Node +\d+ +)?([^:\n]+): +(\d{1,15}) kB$", re.MULTILINE)
_COUNT = re.compile(r"^(\w+) (\d{1,20})$", re.MULTILINE)
_MODEL = re.compile(
    r"^(?:model name|cpu model|cpu|Processor|uarch)[ \t]*:(.*[^\d\n].*)$", re.MULTILINE
)
_ARM_PART = re.compile(r"^CPU (?:implementer|part)[ \t]*: *(\w+)$", re.MULTILINE)
_PROCESSOR = re.compile(r"^processor\s*:? *(\d{1,6})", re.MULTILINE)


def read_topology(root: Path = ROOT) -> Topology:
    """Read nodes, distances, cores and the CPU's name.

    A kernel without NUMA has no nodes in sysfs: it is one node, 0, of all online CPUs and all
    memory, which is how the kernel's own interfaces number it.
    """
    online = online_cpus(root)
    nodes = tuple(
        Node(number, node_cpus(number, online, root), node_memory(number, root))
        for number in node_numbers(root)
    )
    return Topology(
        nodes=nodes,
        distances=_distances([node.node for node in nodes], root),
        cores=_cores(online, root),
        online_cpus=online,
        cpu_model=cpu_model(root),
        performance=tuple(_performance([node.node for node in nodes], root)),
    )


def node_numbers(root: Path = ROOT) -> tuple[int, ...]:
    """Return the numbers of the nodes that are online; (0,) for a kernel without NUMA."""
    return numbered(root / NODES, "node", NODE_LIMIT) or (0,)


def online_cpus(root: Path = ROOT) -> tuple[int, ...]:
    """Return the online CPUs."""
    listed = read_cpulist(root / CPUS / "online", CPU_LIMIT)
    if listed is not None:
        return listed
    # Before Linux 2.6.26 there was no list; CPU 0 has no `online` file where it cannot go offline.
    found = numbered(root / CPUS, "cpu", CPU_LIMIT)
    found = tuple(cpu for cpu in found if read_text(root / CPUS / f"cpu{cpu}/online", 8) != "0")
    processors = _PROCESSOR.findall(read_text(root / "proc/cpuinfo", 1 << 22) or "")
    return found or tuple(sorted(set(map(int, processors))))


def node_cpus(node: int, online: tuple[int, ...], root: Path = ROOT) -> tuple[int, ...]:
    """Return the node's online CPUs; kernels before 4.x list offline ones there too."""
    folder = root / NODES / f"node{node}"
    cpus = read_cpulist(folder / "cpulist", CPU_LIMIT)
    if cpus is None:
        cpus = read_cpumask(folder / "cpumap", CPU_LIMIT)
    if cpus is None:
        return () if folder.is_dir() else online
    present = frozenset(online)
    return tuple(cpu for cpu in cpus if cpu in present)


def node_memory(node: int, root: Path = ROOT) -> NodeMemory:
    """Return the node's memory at this moment; from /proc/meminfo for a kernel without NUMA."""
    folder = root / NODES / f"node{node}"
    if not folder.is_dir():
        return _machine_memory(root)
    kib = _kilobytes(root / NODES / f"node{node}/meminfo")
    return _memory(kib, kib.get("FilePages", 0), tuple(_hugepages(folder / "hugepages")))


def _machine_memory(root: Path) -> NodeMemory:
    kib = _kilobytes(root / "proc/meminfo")
    # FilePages of a node counts what Cached, Buffers and SwapCached count for the machine.
    cached = sum(kib.get(name, 0) for name in ("Cached", "Buffers", "SwapCached"))
    pools = _hugepages(root / "sys/kernel/mm/hugepages")
    return _memory(kib, cached, tuple(pools))


def _memory(kib: dict[str, int], file_kib: int, pools: tuple[HugePages, ...]) -> NodeMemory:
    return NodeMemory(
        total_bytes=kib.get("MemTotal", 0) << 10,
        free_bytes=kib.get("MemFree", 0) << 10,
        file_bytes=file_kib << 10,
        inactive_file_bytes=kib.get("Inactive(file)", 0) << 10,
        anon_bytes=kib.get("AnonPages", 0) << 10,
        shmem_bytes=kib.get("Shmem", 0) << 10,
        hugepages=pools,
    )


def _kilobytes(path: Path) -> dict[str, int]:
    text = read_text(path, 1 << 16) or ""
    return {name.strip(): int(count) for name, count in _KILOBYTES.findall(text)}


def _hugepages(folder: Path) -> Iterator[HugePages]:
    for name in sorted(read_names(folder))[:16]:
        kib = to_integer(name.removeprefix("hugepages-").removesuffix("kB"))
        total = read_integer(folder / name / "nr_hugepages")
        if kib and total:
            yield HugePages(kib << 10, total, read_integer(folder / name / "free_hugepages") or 0)


def _distances(nodes: list[int], root: Path) -> dict[int, dict[int, int]]:
    rows = {}
    for node in nodes:
        # One column per online node, in ascending order: holes in the numbers have no column.
        text = read_text(root / NODES / f"node{node}/distance", 1 << 14) or ""
        columns = [to_integer(word) for word in text.split()]
        row = [each for each in columns if each is not None and 0 < each <= DISTANCE_LIMIT]
        if len(columns) == len(row) == len(nodes):
            rows[node] = dict(zip(nodes, row, strict=True))
    return rows


def _cores(online: tuple[int, ...], root: Path) -> tuple[tuple[int, ...], ...]:
    cores = []
    seen: set[int] = set()
    present = frozenset(online)
    for cpu in online:
        if cpu in seen:
            continue
        siblings = _siblings(root / CPUS / f"cpu{cpu}/topology") or ()
        core = (present.intersection(siblings) - seen) | {cpu}
        seen |= core
        cores.append(tuple(sorted(core)))
    return tuple(cores)


def _siblings(folder: Path) -> tuple[int, ...] | None:
    # core_cpus is the name since Linux 5.2; thread_siblings is the same and stays.
    listed = read_cpulist(folder / "thread_siblings_list", CPU_LIMIT)
    return listed or read_cpumask(folder / "thread_siblings", CPU_LIMIT)


def cpu_model(root: Path = ROOT) -> str:
    """Return the CPU's name as the kernel has it; "" where it has none (s390, RISC-V)."""
    text = read_text(root / "proc/cpuinfo", 1 << 14) or ""
    names = [str(name).strip() for name in _MODEL.findall(text)]
    if names:
        return names[0][:SETTING_LIMIT]
    parts = _ARM_PART.findall(text)[:2]
    return f"Arm implementer {parts[0]} part {parts[1]}" if len(parts) == 2 else ""


def _performance(nodes: list[int], root: Path) -> Iterator[Performance]:
    for node in nodes:
        # access1 is as seen from the nearest CPUs; access0 also counts devices (since 5.10).
        for access in ("access1", "access0"):
            folder = root / NODES / f"node{node}/{access}/initiators"
            figures = [
                read_integer(folder / name) or 0
                for name in ("read_latency", "write_latency", "read_bandwidth", "write_bandwidth")
            ]
            if any(figures):
                yield Performance(node, numbered(folder, "node", NODE_LIMIT), *figures)
                break


def read_memory(root: Path = ROOT) -> Memory:
    """Return every node's memory and the kernel's NUMA counters at this moment."""
    nodes = node_numbers(root)
    vmstat = _COUNT.findall(read_text(root / "proc/vmstat", 1 << 16) or "")
    numastat = {node: _counts(root / NODES / f"node{node}/numastat") for node in nodes}
    return Memory(
        nodes={node: node_memory(node, root) for node in nodes},
        vmstat=dict(_telling(vmstat)),
        numastat={node: counts for node, counts in numastat.items() if counts},
    )


def _telling(vmstat: Iterable[tuple[str, str]]) -> list[tuple[str, int]]:
    found = [(name, int(count)) for name, count in vmstat if _VMSTAT.fullmatch(name)]
    return found[:COUNTERS_LIMIT]


def _counts(path: Path) -> dict[str, int]:
    return {name: int(count) for name, count in _COUNT.findall(read_text(path) or "")}


def read_sysctl(root: Path = ROOT) -> Sysctl:
    """Return the settings that decide over placement, those that this kernel has."""
    paths = {name: root / "proc/sys" / name.replace(".", "/") for name in SYSCTLS}
    paths |= {name: root / "sys/kernel/mm" / path for name, path in MM_SETTINGS.items()}
    texts = {name: read_text(path, SETTING_LIMIT) for name, path in paths.items()}
    return Sysctl({name: _chosen(text) for name, text in texts.items() if text is not None})


def _chosen(text: str) -> str:
    match = _CHOSEN.search(text)
    return match[1] if match else text


def read_kernel(root: Path = ROOT) -> Kernel:
    """Return the kernel's release, version and command line."""
    return Kernel(
        release=read_text(root / "proc/sys/kernel/osrelease", SETTING_LIMIT) or "",
        version=read_text(root / "proc/sys/kernel/version", SETTING_LIMIT) or "",
        cmdline=read_text(root / "proc/cmdline", CMDLINE_LIMIT) or "",
    )
