"""The inference server's situation in a few figures: what causes, verdicts and fixes look at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from numatrace.analyze.memory.classes import PRIVATE
from numatrace.analyze.memory.places import error_bytes
from numatrace.analyze.samples.shares import figure, parts
from numatrace.model.cpulist import NODE_LIMIT, parse_cpulist
from numatrace.model.process import Process, inference_server

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numatrace.analyze.load import Loaded
    from numatrace.analyze.memory.places import Piece
    from numatrace.analyze.memory.regions import Region, Regions
    from numatrace.analyze.phases.phases import Phases
    from numatrace.analyze.samples.measure import Measure
    from numatrace.analyze.threads.residency import ThreadKey, ThreadSums
    from numatrace.model.measured import Figure
    from numatrace.model.report import Role
    from numatrace.model.topology import NodeMemory, Topology

GPU_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/", "/dev/mali", "/dev/accel")


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights, as far as they can be told apart: bytes per node of what is present."""

    node_bytes: dict[int, int]
    absent_bytes: int
    error_bytes: int
    mapped: bool
    """Whether it is tensors of mapped files; otherwise private memory whose tensors are unknown."""
    paths: tuple[str, ...] = ()

    @property
    def present_bytes(self) -> int:
        """Bytes that are present on any node."""
        return sum(self.node_bytes.values())

    @property
    def parts(self) -> dict[int, float]:
        """Share of the present bytes on each node."""
        return parts(self.node_bytes)

    @property
    def holder(self) -> int | None:
        """The node that holds the most; the lowest of equals."""
        return min(self.node_bytes, key=lambda n: (-self.node_bytes[n], n), default=None)

    @property
    def name(self) -> str:
        """What to call them in a sentence."""
        return "weights" if self.mapped else "private memory (weights; tensors unknown)"


@dataclass(frozen=True, slots=True)
class Situation:
    """One server on one machine during one recording."""

    topology: Topology
    memory: dict[int, NodeMemory]
    processes: tuple[Process, ...]
    server: Process
    server_reason: str
    weights: Weights
    private_bytes: dict[int, int]
    """Anonymous memory of the server on each node: it is free once the server has stopped."""
    compute: tuple[ThreadSums, ...]
    server_ns: int
    duration_ns: int
    compute_cpus: tuple[int, ...]
    """CPUs that the compute threads may run on; empty when unknown."""
    numa_balancing: int | None
    gpu: bool
    measured: Figure | None = None
    """Measured remote share of the reads of weights while the server computed, if a verdict may
    rest on it."""
    measured_samples: int = 0
    """Samples that it is from."""

    @property
    def compute_ns(self) -> dict[int, int]:
        """CPU time of the compute threads on each node."""
        total: Counter[int] = Counter()
        for thread in self.compute:
            total.update(thread.oncpu_ns)
        return {node: ns for node, ns in sorted(total.items()) if ns}

    @property
    def compute_parts(self) -> dict[int, float]:
        """Share of the compute threads' CPU time on each node."""
        return parts(self.compute_ns)

    @property
    def remote(self) -> Figure | None:
        """Remote share of the reads of the weights: measured, else expected."""
        return self.measured if self.measured is not None else self.expected

    @property
    def expected(self) -> Figure | None:
        """Expected remote share of the compute threads' reads of the weights."""
        return figure(self.compute_ns, self.weights.node_bytes, self.weights.error_bytes)

    @property
    def confined_to(self) -> tuple[int, ...]:
        """Nodes whose CPUs the compute threads may use, when that leaves out nodes with CPUs."""
        cpus = set(self.compute_cpus)
        nodes = {node.node for node in self.topology.nodes if cpus & set(node.cpus)}
        everywhere = nodes >= set(self.topology.nodes_with_cpus)
        return () if everywhere else tuple(sorted(nodes))

    @property
    def policy_nodes(self) -> tuple[int, ...]:
        """Nodes that the server's memory policy names; empty for the default policy."""
        return policy_nodes(self.server.policy)

    @property
    def mems(self) -> tuple[int, ...]:
        """Nodes that its cpuset leaves it, when that leaves out nodes with memory."""
        memory = set(self.topology.nodes_with_memory)
        allowed = set(self.server.cgroup.mems or self.server.mems_allowed) & memory
        return tuple(sorted(allowed)) if allowed != memory else ()


def policy_nodes(policy: str) -> tuple[int, ...]:
    """Return the nodes of a policy as numa_maps prints it: `bind:0`, `interleave=static:0-1`."""
    try:
        return parse_cpulist(policy.partition(":")[2], NODE_LIMIT)
    except ValueError:
        return ()


def find_server(loaded: Loaded, regions: Regions) -> tuple[Process | None, str]:
    """Return the process that the report is about, and why it is that one.

    Without a process that serves a model it is the one with the most CPU time.
    """
    processes = tuple(process for _, process in sorted(loaded.documents.processes.items()))
    mapped: dict[int, int] = {}
    for region in regions.regions:
        if region.key.cls == "weights":
            mapped[region.key.tgid] = mapped.get(region.key.tgid, 0) + region.bytes
    known = {process.tgid for process in processes}
    bare = tuple(Process(tgid, 0, "") for tgid in sorted(set(mapped) - known))
    tgid, reason = inference_server(processes + bare, mapped)
    if tgid is None:
        busiest: Counter[int] = Counter()
        for thread in loaded.residency.threads.values():
            busiest[thread.tgid] += thread.total_ns
        tgid = min(busiest, key=lambda pid: (-busiest[pid], pid), default=None)
        reason += "; shown is the process with the most CPU time"
    server = loaded.documents.processes.get(tgid or 0)
    return (server or Process(tgid, 0, "") if tgid else None), reason


def situation(
    loaded: Loaded,
    mine: list[Region],
    compute: tuple[ThreadSums, ...],
    server: Process,
    reason: str,
) -> Situation | None:
    """Return the server's situation, or None when the trace has no topology.

    `mine` are its regions, `compute` its compute threads; what was measured is not in it yet.
    """
    documents = loaded.documents
    if documents.topology is None:
        return None
    threads = [each for each in loaded.residency.threads.values() if each.tgid == server.tgid]
    return Situation(
        topology=documents.topology,
        memory=_memory(loaded, documents.topology),
        processes=tuple(process for _, process in sorted(documents.processes.items())),
        server=server,
        server_reason=reason,
        weights=weights(mine),
        private_bytes=_sum(mine, (PRIVATE, "heap", "stack")),
        compute=compute,
        server_ns=sum(thread.total_ns for thread in threads),
        duration_ns=loaded.duration_ns,
        compute_cpus=_compute_cpus(loaded, server, compute),
        numa_balancing=documents.sysctl.numa_balancing,
        gpu=_uses_gpu(loaded, server),
    )


def with_measured(now: Situation, measured: Measure, phases: Phases) -> Situation:
    """Return the situation with the measured remote share of its reads of weights, if any.

    Of decoding, and of computing that is not told apart; with too few samples of these the prompt
    counts, too. Never of loading: that happens once, and elsewhere.
    """
    for names in (("decode", "compute"), ("decode", "compute", "prompt")):
        chosen = tuple(phases.names.index(name) for name in names)
        share = measured.for_verdict(now.server.tgid, chosen)
        if share is not None:
            samples = measured.of_weights(now.server.tgid, chosen).samples
            return replace(now, measured=share, measured_samples=samples)
    return now


def compute_threads(
    loaded: Loaded, roles: Mapping[ThreadKey, Role], tgid: int | None
) -> tuple[ThreadSums, ...]:
    """Return a process's threads that did the work, by falling CPU time."""
    working = [
        thread
        for key, thread in loaded.residency.threads.items()
        if thread.tgid == tgid and roles.get(key) == "compute"
    ]
    return tuple(sorted(working, key=lambda thread: (-thread.total_ns, thread.tid)))


def weights(regions: list[Region]) -> Weights:
    """Return the weights among a process's regions (see Weights)."""
    mapped = [region for region in regions if region.key.cls == "weights"]
    pieces = [piece for region in mapped for piece in region.pieces]
    named = [piece for piece in pieces if piece.key.name] or pieces
    if any(piece.node_bytes for piece in named):
        paths = tuple(sorted({region.key.path for region in mapped if region.key.path}))
        return _weights(named, mapped=True, paths=paths)
    private = [region for region in regions if region.key.cls == PRIVATE]
    large = [region for region in private if region.alone] or private
    return _weights([piece for region in large for piece in region.pieces], mapped=False)


def _weights(pieces: list[Piece], *, mapped: bool, paths: tuple[str, ...] = ()) -> Weights:
    total: Counter[int] = Counter()
    for piece in pieces:
        total.update(piece.node_bytes)
    absent = sum(piece.absent_bytes for piece in pieces) if mapped else 0
    census = all(piece.census for piece in pieces)
    error = 0 if census else error_bytes(pieces)
    return Weights(dict(sorted(total.items())), absent, error, mapped, paths)


def _sum(regions: list[Region], classes: tuple[str, ...]) -> dict[int, int]:
    total: Counter[int] = Counter()
    for region in regions:
        if region.key.cls in classes:
            total.update(region.node_bytes)
    return dict(sorted(total.items()))


def _memory(loaded: Loaded, topology: Topology) -> dict[int, NodeMemory]:
    """Return every node's memory as last seen."""
    latest = loaded.documents.memory
    seen = latest.nodes if latest is not None else {}
    return {node.node: seen.get(node.node, node.memory) for node in topology.nodes}


def _compute_cpus(
    loaded: Loaded, server: Process, compute: tuple[ThreadSums, ...]
) -> tuple[int, ...]:
    cpus: set[int] = set()
    for each in compute:
        thread = loaded.documents.threads.get((each.tgid, each.tid))
        cpus.update(thread.cpus_allowed if thread is not None else server.cpus_allowed)
    return tuple(sorted(cpus or server.cpus_allowed))


def _uses_gpu(loaded: Loaded, server: Process) -> bool:
    paths = [piece.path for piece in loaded.pieces if piece.key.tgid == server.tgid]
    space = loaded.locator.spaces.get(server.tgid)
    paths += space.paths() if space is not None else []
    return any(path.startswith(GPU_DEVICES) for path in paths)
