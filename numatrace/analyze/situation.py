"""The inference server's situation in a few figures: what causes, verdicts and fixes look at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.memory.classes import PRIVATE
from numatrace.analyze.memory.weights import Weights, weights_of
from numatrace.analyze.samples.access import ELSEWHERE
from numatrace.analyze.samples.columns import TIME_NS
from numatrace.analyze.samples.shares import figure, parts
from numatrace.analyze.threads.roles import COMPUTE_SHARE, WORK
from numatrace.model.cpulist import NODE_LIMIT, parse_cpulist
from numatrace.model.measured import Figure
from numatrace.model.process import Process, deployment_of, inference_server, ollama_serve
from numatrace.model.units import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numatrace.analyze.documents import Documents
    from numatrace.analyze.load import Loaded
    from numatrace.analyze.memory.regions import Region, Regions
    from numatrace.analyze.samples.measure import Measure
    from numatrace.analyze.samples.ratios import Ratios
    from numatrace.analyze.threads.residency import ThreadKey, ThreadSums
    from numatrace.model.process import DeploymentKind
    from numatrace.model.topology import NodeMemory, Topology
    from numatrace.model.views import Role

__all__ = ["Growth", "Situation", "Weights", "situation"]

GPU_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/", "/dev/mali", "/dev/accel")


@dataclass(frozen=True, slots=True)
class Growth:
    """How far the kernel's counters of the whole machine grew from the first look to the last.

    Every name is the kernel's. None where a trace has one look only, or this kernel no such line.
    """

    vmstat: Mapping[str, int] = field(default_factory=dict)
    numastat: Mapping[int, Mapping[str, int]] = field(default_factory=dict)

    def pages(self, *names: str) -> int | None:
        """Return the sum of the named lines of /proc/vmstat, of those that there are."""
        found = [self.vmstat[name] for name in names if name in self.vmstat]
        return sum(found) if found else None

    def foreign_bytes(self, node: int) -> int:
        """Return the bytes that were meant for a node and went to another (numa_foreign)."""
        return self.numastat.get(node, {}).get("numa_foreign", 0) * PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Situation:
    """One server on one machine during one recording."""

    topology: Topology
    memory: dict[int, NodeMemory]
    processes: tuple[Process, ...]
    server: Process
    server_reason: str
    root: Process
    """Whose start settings count: `ollama serve`, or the server itself."""
    deployment: DeploymentKind
    """How `root` is run."""
    clients: tuple[Process, ...]
    """Processes of this machine that only talk to the server."""
    documents: Documents
    weights: Weights
    private_bytes: dict[int, int]
    """All anonymous memory of the server on each node, the private weights in it: it is free once
    the server has stopped."""
    compute: tuple[ThreadSums, ...]
    threads_used: int
    """Compute threads, or worker slots, that computed at the same time."""
    server_ns: int
    duration_ns: int
    compute_cpus: tuple[int, ...]
    """CPUs that the compute threads may run on by their affinity; empty when unknown."""
    allowed_cpus: tuple[int, ...]
    """The same, as far as the cpuset lets them and the CPUs are online; empty when unknown."""
    quota_cpus: float | None
    """CPU time that cpu.max leaves the server, in CPUs; None without a limit."""
    moves_per_thread_s: Figure | None
    """Moves between nodes per second of CPU time of the compute threads; None without CPU time."""
    growth: Growth
    numa_balancing: int | None
    gpu: bool
    gpu_nodes: tuple[int, ...]
    """Nodes of the machine's GPUs, if the server uses a GPU and the firmware names them."""
    ratios: Ratios
    measured: Figure | None = None
    """Measured remote share of the reads of weights while the server computed, if a verdict may
    rest on it."""
    measured_samples: int = 0
    """Samples that it is from."""
    measured_lost: tuple[float, float] = (0.0, 0.0)
    """Time that these reads lost because they were remote, by the samples: as a share of all
    sampled CPU time meanwhile, and of the time in these reads."""

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
        nodes = nodes_of(self.topology, self.allowed_cpus)
        everywhere = set(nodes) >= set(self.topology.nodes_with_cpus)
        return () if everywhere else nodes

    @property
    def policy_nodes(self) -> tuple[int, ...]:
        """Nodes that the server's memory policy names; empty for the default policy."""
        return policy_nodes(self.server.policy)

    @property
    def migrated_pages(self) -> int | None:
        """Pages that NUMA balancing migrated during the recording, of all processes."""
        return self.growth.pages("numa_pages_migrated")

    @property
    def hint_faults(self) -> int | None:
        """Faults by which NUMA balancing learned who reads what, of all processes."""
        return self.growth.pages("numa_hint_faults")

    @property
    def swapped_bytes(self) -> int | None:
        """Bytes that were swapped out or in during the recording, by all processes."""
        pages = self.growth.pages("pswpin", "pswpout")
        return None if pages is None else pages * PAGE_BYTES

    @property
    def reclaimed_bytes(self) -> int | None:
        """Bytes that the kernel took back because a node was full, of all processes."""
        pages = self.growth.pages("pgsteal_kswapd", "pgsteal_direct")
        return None if pages is None else pages * PAGE_BYTES

    @property
    def refaulted_bytes(self) -> int | None:
        """Bytes of files that were read again soon after they had been taken back."""
        pages = self.growth.pages("workingset_refault_file")
        return None if pages is None else pages * PAGE_BYTES

    @property
    def cpu_nodes(self) -> tuple[int, ...]:
        """Nodes whose CPUs the compute threads may use; all with CPUs when unknown."""
        return nodes_of(self.topology, self.allowed_cpus) or self.topology.nodes_with_cpus

    @property
    def mems(self) -> tuple[int, ...]:
        """Nodes that its cpuset leaves it, when that leaves out nodes with memory."""
        memory = set(self.topology.nodes_with_memory)
        allowed = set(self.server.cgroup.mems or self.server.mems_allowed) & memory
        return tuple(sorted(allowed)) if allowed != memory else ()


def nodes_of(topology: Topology, cpus: Iterable[int]) -> tuple[int, ...]:
    """Return the nodes that have any of these CPUs."""
    wanted = set(cpus)
    return tuple(node.node for node in topology.nodes if wanted & set(node.cpus))


def policy_nodes(policy: str) -> tuple[int, ...]:
    """Return the nodes of a policy as numa_maps prints it: `bind:0`, `interleave=static:0-1`."""
    try:
        return parse_cpulist(policy.partition(":")[2], NODE_LIMIT)
    except ValueError:
        return ()


def find_server(
    loaded: Loaded, regions: Regions, pid: int | None = None
) -> tuple[Process | None, str]:
    """Return the process that the report is about, and why it is that one.

    Without a process that serves a model it is the one with the most CPU time. With `pid` it is
    that one.
    """
    if pid is not None:
        asked = loaded.documents.processes.get(pid) or Process(pid, 0, "")
        return asked, f"pid {pid}, as asked for"
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
    found: Regions,
    measured: Measure,
    compute: tuple[ThreadSums, ...],
    chosen: tuple[Process, str],
) -> Situation | None:
    """Return the server's situation, or None when the trace has no topology.

    `chosen` is the server and why it is that one, `compute` its compute threads.
    """
    documents, (server, reason) = loaded.documents, chosen
    if documents.topology is None:
        return None
    mine = found.of(server.tgid)
    threads = [each for each in loaded.residency.threads.values() if each.tgid == server.tgid]
    processes = tuple(process for _, process in sorted(documents.processes.items()))
    root = ollama_serve(server, processes) or server
    cpus, gpu = _compute_cpus(loaded, server, compute), _uses_gpu(loaded, server)
    now = Situation(
        topology=documents.topology,
        memory=_memory(loaded, documents.topology),
        processes=processes,
        server=server,
        server_reason=reason,
        root=root,
        deployment=deployment_of(root),
        clients=tuple(process for process in processes if process.relation == "client"),
        documents=documents,
        weights=weights_of(loaded, mine, measured, server.tgid),
        private_bytes=_sum(mine, (PRIVATE, "heap", "stack")),
        compute=compute,
        threads_used=threads_used(compute),
        server_ns=sum(thread.total_ns for thread in threads),
        duration_ns=loaded.duration_ns,
        compute_cpus=cpus,
        allowed_cpus=_allowed(documents.topology, cpus, server.cgroup.cpus),
        quota_cpus=server.cgroup.quota_cpus,
        moves_per_thread_s=_moves(compute),
        growth=_growth(documents),
        numa_balancing=documents.sysctl.numa_balancing,
        gpu=gpu,
        gpu_nodes=_gpu_nodes(documents) if gpu else (),
        ratios=measured.ratios,
    )
    return _with_measured(now, loaded, measured)


def _with_measured(now: Situation, loaded: Loaded, measured: Measure) -> Situation:
    """Return the situation with the measured remote share of its reads of weights, if any.

    Of decoding, and of computing that is not told apart; with too few samples of these the prompt
    counts, too. Never of loading: that happens once, and elsewhere.
    """
    for names in (("decode", "compute"), ("decode", "compute", "prompt")):
        chosen = tuple(loaded.phases.names.index(name) for name in names)
        share = measured.for_verdict(now.server.tgid, chosen)
        if share is not None:
            read = measured.of_weights(now.server.tgid, chosen)
            sampled_ns = max(1.0, _sampled_ns(loaded, measured, now.server.tgid, chosen))
            lost = read.lost_ns / sampled_ns, read.lost_ns / max(1, read.time_ns)
            return replace(now, measured=share, measured_samples=read.samples, measured_lost=lost)
    return now


def _sampled_ns(loaded: Loaded, measured: Measure, tgid: int, phases: tuple[int, ...]) -> float:
    """Return the CPU time that a process's samples in some phases stand for, in memory or not."""
    cells, others = measured.cells, loaded.access.elsewhere
    mine = measured.slot_tgids == tgid
    reading = cells.total(mine[cells.slot] & np.isin(cells.phase, phases)).time_ns
    elsewhere = mine[ELSEWHERE.field(others.keys, "slot")]
    elsewhere &= np.isin(ELSEWHERE.field(others.keys, "phase"), phases)
    return float(reading + others.integers[elsewhere, TIME_NS].sum())


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


def threads_used(compute: Sequence[ThreadSums]) -> int:
    """Return how many threads or worker slots computed at the same time.

    One pool may work on prompts and another one on tokens, so it is counted phase by phase: the
    threads with at least COMPUTE_SHARE of the busiest one's CPU time in it.
    """
    by_phase = [[each.phase_ns.get(name, 0) for each in compute] for name in WORK]
    if not any(map(any, by_phase)):
        by_phase = [[each.total_ns for each in compute]]
    return max(
        sum(1 for ns in times if ns and ns >= COMPUTE_SHARE * max(times)) for times in by_phase
    )


def _moves(compute: Sequence[ThreadSums]) -> Figure | None:
    seconds = sum(thread.total_ns for thread in compute) / 1e9
    moves = sum(thread.moves for thread in compute)
    return Figure(moves / seconds, "moves/s", "event") if seconds else None


def _allowed(
    topology: Topology, affinity: tuple[int, ...], cpuset: tuple[int, ...]
) -> tuple[int, ...]:
    online = set(topology.cpu_to_node)
    for given in (affinity, cpuset):
        # What is not known does not narrow; a cpuset that leaves nothing is no cpuset.
        online = online & set(given) or online
    return tuple(sorted(online)) if affinity or cpuset else ()


def _growth(documents: Documents) -> Growth:
    first, last = documents.first_memory, documents.memory
    if first is None or last is None or first is last:
        return Growth()
    numastat = {
        node: _grown(first.numastat.get(node, {}), counts) for node, counts in last.numastat.items()
    }
    return Growth(_grown(first.vmstat, last.vmstat), numastat)


def _grown(first: Mapping[str, int], last: Mapping[str, int]) -> dict[str, int]:
    return {name: max(0, last[name] - first[name]) for name in last if name in first}


def _gpu_nodes(documents: Documents) -> tuple[int, ...]:
    nodes = {device.node for device in documents.devices.devices}
    return tuple(sorted(node for node in nodes if node is not None))


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
