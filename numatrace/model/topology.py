"""The machine's NUMA nodes: CPUs, memory, distances and physical cores.

Node numbers are the kernel's and may have holes. A `Topology` is the value of the trace's
`system` row named `topology`; `Memory`, in machine.py, follows memory over time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from numatrace.model.cpulist import CPU_LIMIT, NODE_LIMIT, format_cpulist
from numatrace.model.document import document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numatrace.model.document import Document

LOCAL_DISTANCE = 10
REMOTE_DISTANCE = 20
"""SLIT distances that the kernel assumes where the firmware gives none (linux/topology.h)."""
DISTANCE_LIMIT = 255
"""A SLIT entry is one byte; 255 means unreachable (ACPI 6.5, section 5.2.17)."""


@dataclass(frozen=True, slots=True)
class HugePages:
    """The pool of reserved huge pages of one size, on one node."""

    page_bytes: int
    total: int
    free: int

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"page_bytes": self.page_bytes, "total": self.total, "free": self.free}

    @classmethod
    def from_json(cls, value: object) -> HugePages:
        """Check and take the JSON form; raises TraceError."""
        doc = document(value, "huge pages")
        return cls(*(doc.integer(name, default=0) for name in ("page_bytes", "total", "free")))


_MEMORY_FIELDS = (
    "total_bytes",
    "free_bytes",
    "file_bytes",
    "inactive_file_bytes",
    "anon_bytes",
    "shmem_bytes",
)


@dataclass(frozen=True, slots=True)
class NodeMemory:
    """Memory of one node, in bytes, as nodeN/meminfo has it at one moment.

    `file_bytes` is the page cache (FilePages, with shared memory and swap cache in it).
    """

    total_bytes: int = 0
    free_bytes: int = 0
    file_bytes: int = 0
    inactive_file_bytes: int = 0
    anon_bytes: int = 0
    shmem_bytes: int = 0
    hugepages: tuple[HugePages, ...] = ()

    @property
    def available_bytes(self) -> int:
        """Bytes that new allocations can take without swapping: free and inactive page cache.

        The kernel gives no MemAvailable per node. Active page cache could be reclaimed too, so
        this errs on the safe side.
        """
        return self.free_bytes + self.inactive_file_bytes

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        value: dict[str, object] = {name: getattr(self, name) for name in _MEMORY_FIELDS}
        if self.hugepages:
            value["hugepages"] = [pool.to_json() for pool in self.hugepages]
        return value

    @classmethod
    def from_json(cls, value: object) -> NodeMemory:
        """Check and take the JSON form; raises TraceError."""
        doc = document(value, "node memory")
        pools = tuple(HugePages.from_json(pool) for pool in doc.children("hugepages", 16))
        total, free, file, inactive, anon, shmem = (
            doc.integer(name, default=0) for name in _MEMORY_FIELDS
        )
        return cls(total, free, file, inactive, anon, shmem, pools)


@dataclass(frozen=True, slots=True)
class Node:
    """One node: its number, its online CPUs and its memory when the recording began."""

    node: int
    cpus: tuple[int, ...]
    memory: NodeMemory = field(default_factory=NodeMemory)

    @property
    def total_bytes(self) -> int:
        """Bytes of memory that the node has; 0 for one with CPUs only."""
        return self.memory.total_bytes

    @property
    def free_bytes(self) -> int:
        """Bytes of it that nothing used."""
        return self.memory.free_bytes

    @property
    def available_bytes(self) -> int:
        """Bytes of it that were free or inactive page cache."""
        return self.memory.available_bytes

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "node": self.node,
            "cpus": format_cpulist(self.cpus),
            "memory": self.memory.to_json(),
        }

    @classmethod
    def from_json(cls, value: object) -> Node:
        """Check and take the JSON form; raises TraceError."""
        doc = document(value, "node")
        memory = NodeMemory.from_json(doc.child("memory"))
        return cls(doc.integer("node", NODE_LIMIT - 1), doc.cpulist("cpus"), memory)


_PERFORMANCE_FIELDS = (
    "read_latency_ns",
    "write_latency_ns",
    "read_bandwidth_mb_s",
    "write_bandwidth_mb_s",
)


@dataclass(frozen=True, slots=True)
class Performance:
    """What the firmware (HMAT) says of a node's memory, used from its nearest CPUs.

    Latencies in ns, bandwidths in MB/s, 0 where not given; from nodeN/access1/initiators, or
    access0 (Documentation/admin-guide/mm/numaperf.rst).
    """

    node: int
    initiators: tuple[int, ...]
    read_latency_ns: int = 0
    write_latency_ns: int = 0
    read_bandwidth_mb_s: int = 0
    write_bandwidth_mb_s: int = 0

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        figures: dict[str, object] = {name: getattr(self, name) for name in _PERFORMANCE_FIELDS}
        return {"node": self.node, "initiators": format_cpulist(self.initiators)} | figures

    @classmethod
    def from_json(cls, value: object) -> Performance:
        """Check and take the JSON form; raises TraceError."""
        doc = document(value, "memory performance")
        figures = (doc.integer(name, default=0) for name in _PERFORMANCE_FIELDS)
        initiators = doc.cpulist("initiators", NODE_LIMIT)
        return cls(doc.integer("node", NODE_LIMIT - 1), initiators, *figures)


@dataclass(frozen=True, slots=True)
class Topology:
    """Nodes in ascending order, distances[from][to], and physical cores as their online CPUs."""

    nodes: tuple[Node, ...]
    distances: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    cores: tuple[tuple[int, ...], ...] = ()
    online_cpus: tuple[int, ...] = ()
    cpu_model: str = ""
    performance: tuple[Performance, ...] = ()

    @property
    def has_numa(self) -> bool:
        """Whether anything can be remote here: more than one node."""
        return len(self.nodes) > 1

    @property
    def nodes_with_cpus(self) -> tuple[int, ...]:
        """Numbers of the nodes that have online CPUs."""
        return tuple(node.node for node in self.nodes if node.cpus)

    @property
    def nodes_with_memory(self) -> tuple[int, ...]:
        """Numbers of the nodes that have memory."""
        return tuple(node.node for node in self.nodes if node.total_bytes)

    @property
    def memory_only_nodes(self) -> tuple[int, ...]:
        """Numbers of the nodes that have memory and no online CPU, such as CXL memory."""
        return tuple(node.node for node in self.nodes if node.total_bytes and not node.cpus)

    @property
    def cpu_to_node(self) -> dict[int, int]:
        """Node of every online CPU; keep the result where many are looked up."""
        return {cpu: node.node for node in self.nodes for cpu in node.cpus}

    def node(self, number: int) -> Node | None:
        """Return the node of that number, or None."""
        return next((node for node in self.nodes if node.node == number), None)

    def node_of_cpu(self, cpu: int) -> int | None:
        """Return the number of the node that has the CPU, or None."""
        return next((node.node for node in self.nodes if cpu in node.cpus), None)

    def cores_of_node(self, number: int) -> tuple[tuple[int, ...], ...]:
        """Return the node's physical cores, each as its online CPUs."""
        node = self.node(number)
        cpus = frozenset(node.cpus if node else ())
        within = (tuple(cpu for cpu in core if cpu in cpus) for core in self.cores)
        return tuple(core for core in within if core)

    def physical_cores(self, number: int) -> int:
        """Return how many physical cores with an online CPU the node has."""
        return len(self.cores_of_node(number))

    def distance(self, a: int, b: int) -> int:
        """Return the SLIT distance from node a to node b; 10 is local. It is not a latency."""
        assumed = LOCAL_DISTANCE if a == b else REMOTE_DISTANCE
        return self.distances.get(a, {}).get(b, assumed)

    def to_json(self) -> dict[str, object]:
        """Return the value of the `system` row `topology`."""
        return {
            "nodes": [node.to_json() for node in self.nodes],
            "distances": {
                str(a): {str(b): distance for b, distance in row.items()}
                for a, row in self.distances.items()
            },
            "cores": [format_cpulist(core) for core in self.cores],
            "online_cpus": format_cpulist(self.online_cpus),
            "cpu_model": self.cpu_model,
            "performance": [figures.to_json() for figures in self.performance],
        }

    @classmethod
    def from_json(cls, value: object) -> Topology:
        """Check and take the value of the `system` row `topology`.

        Raises TraceError for numbers that no machine has, a node or a CPU given twice, and a
        distance to a node that is not there.
        """
        doc = document(value, "topology")
        figures = doc.children("performance", NODE_LIMIT)
        topology = cls(
            nodes=_nodes(doc),
            distances=_distances(doc),
            cores=_cores(doc),
            online_cpus=doc.cpulist("online_cpus"),
            cpu_model=doc.text("cpu_model", 256),
            performance=tuple(Performance.from_json(figure) for figure in figures),
        )
        _check(doc, topology)
        return topology


def _distances(doc: Document) -> dict[int, dict[int, int]]:
    rows = doc.child("distances", NODE_LIMIT)
    return {
        doc.node_key(a, NODE_LIMIT): {
            doc.node_key(b, NODE_LIMIT): distance
            for b, distance in rows.integer_map(a, NODE_LIMIT, DISTANCE_LIMIT).items()
        }
        for a in rows.values
    }


def _nodes(doc: Document) -> tuple[Node, ...]:
    nodes: list[Node] = []
    cpus: set[int] = set()
    for value in doc.children("nodes", NODE_LIMIT):
        node = Node.from_json(value)
        # Checked as they come: a thousand nodes that claim all CPUs each would fill the memory.
        doc.require(cpus.isdisjoint(node.cpus), "a CPU is on two nodes")
        cpus.update(node.cpus)
        nodes.append(node)
    return tuple(sorted(nodes, key=lambda node: node.node))


def _cores(doc: Document) -> tuple[tuple[int, ...], ...]:
    cores: list[tuple[int, ...]] = []
    cpus: set[int] = set()
    for text in doc.texts("cores", CPU_LIMIT, 16 * CPU_LIMIT):
        core = document({"core": text}, "topology").cpulist("core")
        doc.require(cpus.isdisjoint(core), "a CPU is in two cores")
        cpus.update(core)
        cores.append(core)
    return tuple(cores)


def _check(doc: Document, topology: Topology) -> None:
    numbers = [node.node for node in topology.nodes]
    named = set(topology.distances).union(*topology.distances.values())
    doc.require(bool(numbers), "no nodes")
    doc.require(len(set(numbers)) == len(numbers), "a node is given twice")
    doc.require(named <= set(numbers), "a distance to a node that is not there")
