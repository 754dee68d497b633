"""What a report shows: the machine, processes, threads, memory, tensors, and the account of events.

See report.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from numatrace.model.measured import Figure, LostNs, ReadNs, RemoteShare, Source

RegionClass = Literal[
    "weights",
    "anonymous weights, KV cache or compute buffers (private)",
    "repacked weights",
    "KV cache",
    "compute",
    "heap",
    "stack",
    "code",
    "file",
    "other",
]

Role = Literal["compute", "loader", "http", "other"]


@dataclass(frozen=True, slots=True)
class NodeView:
    """One NUMA node of the machine, as it was when the recording ended."""

    node: Annotated[int, "number of the node, as the kernel gives it"]
    cpus: Annotated[str, "its CPUs as a list such as `0-3,8`; empty for a node without CPUs"]
    cores: Annotated[int, "physical cores; equal to the CPUs where the siblings are unknown"]
    total_bytes: Annotated[int | None, "memory that it has"]
    free_bytes: Annotated[int | None, "memory that was free"]
    reclaimable_bytes: Annotated[int | None, "inactive page cache, which the kernel gives up first"]
    distances: Annotated[dict[int, int], "SLIT distance to each node; 10 is local, not a latency"]


@dataclass(frozen=True, slots=True)
class MachineView:
    """The machine that was recorded."""

    kernel: Annotated[str, "release of the kernel; empty when unknown"]
    nodes: Annotated[tuple[NodeView, ...], "by number"]
    numa_balancing: Annotated[int | None, "`kernel.numa_balancing`; null when unknown"]


@dataclass(frozen=True, slots=True)
class ProcessView:
    """A followed process."""

    tgid: Annotated[int, "process id"]
    ptgid: Annotated[int, "parent process id"]
    name: Annotated[str, "comm"]
    argv: Annotated[tuple[str, ...], "command line"]
    is_server: Annotated[bool, "whether it is the inference server that the report is about"]
    unit: Annotated[str | None, "systemd unit, if any"]
    container: Annotated[str | None, "container, if any"]
    policy: Annotated[str | None, "memory policy as in numa_maps, such as `bind:0`"]
    allowed_cpus: Annotated[str, "CPUs that it may run on, as a list; empty when unknown"]
    allowed_nodes: Annotated[str, "nodes that it may take memory from; empty when unknown"]
    oncpu_ns: Annotated[dict[int, int], "CPU time on each node during the recording [ns]"]
    present_bytes: Annotated[dict[int, int], "memory on each node at the end [bytes]"]


@dataclass(frozen=True, slots=True)
class FilterView:
    """What a report was restricted to, and what that left out of it."""

    pid: Annotated[int | None, "process that it is about; null for all"]
    phase: Annotated[str | None, "phase that it is restricted to, as in `phases`; null for all"]
    left_out: Annotated[tuple[str, ...], "what is not in this report because of that"]
    whole: Annotated[tuple[str, ...], "what is that of all processes or phases all the same"]


@dataclass(frozen=True, slots=True)
class ServerView:
    """The inference server in the figures that the verdict rests on."""

    tgid: Annotated[int, "process id"]
    weights_bytes: Annotated[dict[int, int], "weights that are read, on each node [bytes]"]
    weights_error_bytes: Annotated[
        int, "half width of the 95 % interval of a node's bytes; 0 in a census"
    ]
    compute_ns: Annotated[dict[int, int], "CPU time of its compute threads on each node [ns]"]
    remote_share: Annotated[
        Figure | None, "remote share of the reads of weights: measured, else expected"
    ]
    expected_share: Annotated[
        Figure | None, "the same, expected from where weights lie and threads ran"
    ]
    migrated_pages: Annotated[
        int | None, "pages that NUMA balancing moved meanwhile, of all processes; null if unknown"
    ]


@dataclass(frozen=True, slots=True)
class ThreadView:
    """A thread, or a worker slot: threads that replaced one another in the same place of a pool."""

    tgid: Annotated[int, "process id"]
    tid: Annotated[int, "thread id; of a worker slot, that of its first thread"]
    comm: Annotated[str, "name of the thread; empty when unknown"]
    role: Annotated[Role, "what it did, told by its behaviour and not by its name"]
    members: Annotated[int, "threads that this row stands for; 1 but for worker slots"]
    oncpu_ns: Annotated[dict[int, int], "CPU time on each node during the recording [ns]"]
    moves: Annotated[int, "times it began to run on another node"]
    balance_moves: Annotated[int, "of these, by NUMA balancing: moves and swaps that succeeded"]
    faults: Annotated[int, "page faults, exact"]
    allowed_cpus: Annotated[str, "CPUs that it may run on, as a list; empty when unknown"]
    read_ns: ReadNs = 0
    remote_share: RemoteShare = None
    lost_ns: LostNs = 0


@dataclass(frozen=True, slots=True)
class RegionView:
    """Memory of a process under one name: where it lies at the end of the recording."""

    tgid: Annotated[int, "process id"]
    label: Annotated[str, "name of the region"]
    cls: Annotated[RegionClass, "what kind of memory it is"]
    path: Annotated[str, "file; empty for anonymous memory"]
    pieces: Annotated[int, "mappings, or tensors' parts of mappings, that it consists of"]
    bytes: Annotated[int, "size of the address space [bytes]"]
    node_bytes: Annotated[dict[int, int], "estimated bytes on each node"]
    absent_bytes: Annotated[int, "bytes that were not present in memory"]
    error_bytes: Annotated[int, "half width of the 95 % interval of a node's bytes; 0 in a census"]
    census: Annotated[bool, "whether every page was looked at"]
    source: Annotated[Source, "where the bytes per node come from"]
    changes: Annotated[int, "later placement snapshots that differed from the one before"]
    faults: Annotated[int, "page faults that hit it, estimated from the sampled ones"]
    read_ns: ReadNs = 0
    remote_share: RemoteShare = None
    lost_ns: LostNs = 0


@dataclass(frozen=True, slots=True)
class TensorView:
    """A tensor of a mapped GGUF file."""

    tgid: Annotated[int, "process id"]
    path: Annotated[str, "model file"]
    name: Annotated[str, "name of the tensor"]
    layer: Annotated[int | None, "number of the layer (`blk.N`); null outside of the layers"]
    type: Annotated[str, "its type in the GGUF table, such as `Q4_0`"]
    bytes: Annotated[int, "its size by the GGUF table"]
    node_bytes: Annotated[dict[int, int], "estimated bytes on each node"]
    absent_bytes: Annotated[int, "bytes that were mapped and not present in memory"]
    read_ns: ReadNs = 0
    remote_share: RemoteShare = None
    lost_ns: LostNs = 0


@dataclass(frozen=True, slots=True)
class LayerView:
    """The tensors of one layer together, or all that belong to no layer."""

    tgid: Annotated[int, "process id"]
    path: Annotated[str, "model file"]
    layer: Annotated[int | None, "number of the layer; null for what belongs to no layer"]
    tensors: Annotated[int, "tensors in it"]
    bytes: Annotated[int, "their size by the GGUF table"]
    node_bytes: Annotated[dict[int, int], "estimated bytes on each node"]
    absent_bytes: Annotated[int, "bytes that were mapped and not present in memory"]
    read_ns: ReadNs = 0
    remote_share: RemoteShare = None
    lost_ns: LostNs = 0


@dataclass(frozen=True, slots=True)
class ShareView:
    """What part of a thread's reads of a region is remote: measured, or else expected.

    Measured from samples where there are enough. Expected is 1 - Σ_n t_n·w_n, with t_n the share
    of the thread's CPU time on node n and w_n the share of the region's present bytes there: it
    assumes that the thread reads all of the region alike.
    """

    tgid: Annotated[int, "process id"]
    tid: Annotated[int, "thread, as in `threads`"]
    region: Annotated[str, "label of the region, as in `regions`"]
    remote_share: Annotated[Figure, "remote share; where expected, its source is `model`"]


@dataclass(frozen=True, slots=True)
class LossView:
    """The account of one family of events: attributed + unattributed + lost = recorded."""

    family: Annotated[str, "family of events"]
    recorded: Annotated[int, "events that the kernel counted"]
    attributed: Annotated[int, "events given to a region or a thread"]
    unattributed: Annotated[int, "events that were kept and belong to nothing known"]
    lost: Annotated[int, "events that were counted and not kept"]

    def check(self) -> None:
        """Raise ValueError unless the account balances and no entry is negative."""
        entries = (self.attributed, self.unattributed, self.lost)
        if min(entries) < 0 or sum(entries) != self.recorded:
            raise ValueError(f"the account of {self.family} does not balance: {self}")

    @property
    def lost_share(self) -> float:
        """Lost events as a share of the recorded ones, 0 to 1."""
        return self.lost / self.recorded if self.recorded else 0.0
