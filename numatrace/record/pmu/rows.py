"""Memory samples of perf as columns of `access` rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from numatrace.model.access import KERNEL, WRITE
from numatrace.model.cpulist import CPU_LIMIT
from numatrace.record.machine import sysfs
from numatrace.record.machine.files import read_integer
from numatrace.record.pmu.data_source import CLASSES, LOAD, STORE, Classified, classify
from numatrace.record.sampling.sampler import mem_nodes

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from numatrace.record.pmu.perf_script import Samples

Array = np.ndarray[Any, Any]

KERNEL_BEGIN = np.uint64(1 << 63)
CLASS_NAMES = np.array(CLASSES, object)
AUXILIARY = "mem-loads-aux"
"""Part of the name of an event that only makes the one beside it possible."""
_LOCAL_DRAM, _REMOTE_DRAM = CLASSES.index("local DRAM"), CLASSES.index("remote DRAM")


@dataclass(frozen=True, slots=True)
class Nodes:
    """Which node a CPU is of, and what a data source tells about the node of the memory.

    `other`: for each node, the only other one; -1 where "local" and "remote" name no node. They do
    on machines of two sockets with a node each: in others a socket's nodes are told apart by AMD
    only, and one remote node from another by nobody.
    """

    of_cpu: Array
    other: Array

    @classmethod
    def read(cls, root: Path = sysfs.ROOT) -> Nodes:
        """Read them from sysfs."""
        nodes = sysfs.node_numbers(root)
        of_cpu = np.full(CPU_LIMIT, -1, np.int32)
        online = sysfs.online_cpus(root)
        sockets = []
        for node in nodes:
            cpus = sysfs.node_cpus(node, online, root)
            of_cpu[list(cpus)] = node
            path = "cpu{}/topology/physical_package_id"
            sockets.append({read_integer(root / sysfs.CPUS / path.format(cpu)) for cpu in cpus})
        other = np.full(max(nodes) + 1, -1, np.int32)
        if len(nodes) == 2 and _one_socket_each(sockets):
            other[list(nodes)] = nodes[::-1]
        return cls(of_cpu, other)

    def of(self, cpu: Array) -> Array:
        """Node of each CPU, -1 where unknown."""
        known = (cpu >= 0) & (cpu < len(self.of_cpu))
        return np.where(known, self.of_cpu[np.where(known, cpu, 0)], -1).astype(np.int32)

    def from_source(self, node: Array, cls: Array) -> Array:
        """Node of the memory as the class of the data says; -1 where it does not."""
        known = (node >= 0) & (node < len(self.other))
        other = np.where(known, self.other[np.where(known, node, 0)], -1)
        local = (cls == _LOCAL_DRAM) & (other >= 0)
        remote = (cls == _REMOTE_DRAM) & (other >= 0)
        return np.select([local, remote], [node, other], -1).astype(np.int32)


def _one_socket_each(sockets: list[set[int | None]]) -> bool:
    known = all(len(each) == 1 and None not in each for each in sockets)
    return known and len(set().union(*sockets)) == len(sockets)


@dataclass(slots=True)
class Filtered:
    """Samples that were read and are no memory access of a followed process."""

    others: int = 0
    """Of processes that are not followed."""
    auxiliary: int = 0
    no_access: int = 0
    """Micro-operations that neither read nor wrote memory: most of what IBS takes."""


@dataclass(slots=True)
class AccessColumns:
    """Makes columns of samples, and counts those that make no row."""

    samples: str
    nodes: Nodes
    filtered: Filtered = field(default_factory=Filtered)

    def make(
        self, samples: Samples, events: Sequence[str], followed: Collection[int]
    ) -> tuple[dict[str, Any], int]:
        """Return the columns of the samples that are kept, and how many that are."""
        kept, classified = self._keep(samples, events, followed)
        count = len(kept.t_ns)
        node = self.nodes.of(kept.cpu)
        known = kept.addr != 0
        # A tgid below 1 is one that perf lost track of: there is nobody to ask.
        mem_node, told = mem_nodes(kept.pid, kept.addr, known & (kept.pid > 0))
        guess = self.nodes.from_source(node, classified.cls)
        mem_node = np.where(told, mem_node, guess)
        wrote = (classified.op & STORE) != 0
        in_kernel = kept.ip >= KERNEL_BEGIN
        columns = {
            "t_ns": kept.t_ns,
            "tgid": kept.pid,
            "tid": kept.tid,
            "cpu": np.ma.MaskedArray(kept.cpu, kept.cpu < 0),
            "node": np.ma.MaskedArray(node, node < 0),
            "mem_node": np.ma.MaskedArray(mem_node, ~told & (guess < 0)),
            "addr": np.ma.MaskedArray(kept.addr, ~known),
            "ip": kept.ip,
            "access": (wrote * WRITE + in_kernel * KERNEL).astype(np.uint8),
            "weight": kept.period,
            "latency_cycles": np.ma.MaskedArray(kept.weight, kept.weight == 0),
            "data_src": kept.data_src,
            "name": self.samples,
            "detail": CLASS_NAMES[classified.cls],
        }
        return columns, count

    def _keep(
        self, samples: Samples, events: Sequence[str], followed: Collection[int]
    ) -> tuple[Samples, Classified]:
        """Those of followed processes that are accesses; what is left out is counted."""
        classified = classify(samples.data_src)
        auxiliary = [number for number, name in enumerate(events) if AUXILIARY in _alone(name)]
        main = ~np.isin(samples.event, auxiliary)
        mine = np.isin(samples.pid, list(followed))
        touches = (classified.op & (LOAD | STORE)) != 0
        keep = main & mine & touches
        self.filtered.auxiliary += int((~main).sum())
        self.filtered.others += int((main & ~mine).sum())
        self.filtered.no_access += int((main & mine & ~touches).sum())
        return (
            type(samples)(*(column[keep] for column in samples)),
            type(classified)(*(column[keep] for column in classified)),
        )


def _alone(event: str) -> str:
    """Name of an event, unless it is that of a whole group."""
    return "" if "{" in event else event
