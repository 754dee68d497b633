"""The report: what analysis found, as plain data that every renderer and `--json` share.

Every field carries its meaning in its annotation, so the reference page is generated from here.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args, get_type_hints

from numatrace.model.measured import (
    AccessView,
    CostView,
    Figure,
    LostNs,
    PhaseView,
    RateView,
    RatioView,
    ReadNs,
    ReadView,
    RemoteShare,
    Source,
    TimeView,
)

REPORT_VERSION = 2
"""Version of the JSON document of `Report.to_json`. Raised when a field changes meaning."""

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

VerdictKind = Literal["fix", "healthy", "one-node", "withheld"]
Confidence = Literal["high", "medium", "low"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """One observation that speaks for a finding or a verdict."""

    text: Annotated[str, "one sentence, with the figures written out"]
    figures: Annotated[tuple[Figure, ...], "the same figures, for programs"] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a fix."""

    command: Annotated[str, "one shell command, quoted; `sudo` may be put before it"]
    why: Annotated[str, "what it does, in one sentence"]
    needs_root: Annotated[bool, "whether it must be run as root"] = False


@dataclass(frozen=True, slots=True)
class Fix:
    """Commands that put a finding right, for this machine, this process and how it is run."""

    id: Annotated[str, "stable name: plan and deployment, such as `bind/systemd`"]
    deployment: Annotated[str, "how the server is run: `by hand`, `systemd`"]
    title: Annotated[str, "what the fix brings about"]
    steps: Annotated[tuple[Step, ...], "in the order to run them"]
    verify: Annotated[tuple[Step, ...], "how to see that it worked"]
    undo: Annotated[tuple[Step, ...], "how to go back to the state before"]
    notes: Annotated[tuple[str, ...], "what to know before running it"] = ()
    lint: Annotated[tuple[str, ...], "the checks that it passed, each with its numbers"] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """A cause of lost time that the trace shows."""

    cause: Annotated[str, "stable id of the cause: `C1`, `C2`, …"]
    name: Annotated[str, "its name in a few words"]
    sentence: Annotated[str, "what is wrong here, in one or two sentences"]
    tgid: Annotated[int, "process that it is about"]
    evidence: Annotated[tuple[Evidence, ...], "what shows it"]
    confidence: Annotated[Confidence, "how sure it is"]
    fixes: Annotated[tuple[Fix, ...], "linted fixes, the preferred one first; may be empty"] = ()
    notes: Annotated[tuple[str, ...], "why a fix was refused, and other things to know"] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer in one sentence."""

    kind: Annotated[VerdictKind, "`fix`, `healthy`, `one-node` or `withheld`"]
    sentence: Annotated[str, "the answer"]
    reasons: Annotated[tuple[Evidence, ...], "what it rests on, or what to do about it"] = ()


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


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the report was made from, and what was missing."""

    trace_version: Annotated[int, "schema version of the trace"]
    rows: Annotated[int, "rows of the trace"]
    duration_ns: Annotated[int, "from the first to the last event [ns]"]
    ended: Annotated[str, "why the recording ended; empty when the trace holds no end row"]
    problems: Annotated[tuple[str, ...], "what is damaged or missing in the trace"]
    not_recorded: Annotated[tuple[str, ...], "probes and steps that were left out, and why"]
    sources: Annotated[tuple[Source, ...], "sources of the figures in this report"]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a renderer shows."""

    verdict: Annotated[Verdict, "the answer in one sentence"]
    findings: Annotated[tuple[Finding, ...], "causes, the first one first; empty unless `fix`"]
    machine: Annotated[MachineView, "the machine"]
    processes: Annotated[tuple[ProcessView, ...], "followed processes"]
    threads: Annotated[tuple[ThreadView, ...], "threads, by falling CPU time"]
    regions: Annotated[tuple[RegionView, ...], "memory, by falling size"]
    layers: Annotated[tuple[LayerView, ...], "layers of the mapped models"]
    tensors: Annotated[tuple[TensorView, ...], "tensors of the mapped models"]
    shares: Annotated[tuple[ShareView, ...], "compute threads by large regions of the server"]
    losses: Annotated[tuple[LossView, ...], "account of every family of events"]
    provenance: Annotated[Provenance, "what the report was made from"]
    notes: Annotated[tuple[str, ...], "further remarks"] = ()
    access: Annotated[AccessView | None, "what shares rest on, and the account of the samples"] = (
        None
    )
    phases: Annotated[tuple[PhaseView, ...], "what the server did when"] = ()
    reads: Annotated[tuple[ReadView, ...], "who reads what, by falling time lost"] = ()
    hot: Annotated[tuple[ReadView, ...], "the remote reads that cost most, over all phases"] = ()
    schema_version: Annotated[int, "version of this document"] = field(default=REPORT_VERSION)

    def to_json(self) -> dict[str, object]:
        """Return the report as dictionaries, lists and plain values; node numbers as strings."""
        return {part.name: _plain(getattr(self, part.name)) for part in dataclasses.fields(self)}


TYPES: tuple[type, ...] = (
    Report,
    Verdict,
    Finding,
    Evidence,
    Figure,
    Fix,
    Step,
    MachineView,
    NodeView,
    ProcessView,
    ThreadView,
    RegionView,
    LayerView,
    TensorView,
    ShareView,
    AccessView,
    TimeView,
    RateView,
    CostView,
    RatioView,
    PhaseView,
    ReadView,
    LossView,
    Provenance,
)
"""The types that a report consists of, in the order of the reference page."""


@dataclass(frozen=True, slots=True)
class FieldDoc:
    """A field of a report type, for the reference page."""

    name: str
    type: str
    doc: str


def describe(cls: type) -> tuple[FieldDoc, ...]:
    """Return name, type and meaning of every field of one of TYPES."""
    plain = get_type_hints(cls)
    annotated = get_type_hints(cls, include_extras=True)
    return tuple(
        FieldDoc(name, _type_name(plain[name]), get_args(annotated[name])[1])
        for name in (item.name for item in dataclasses.fields(cls))
    )


def _type_name(hint: object) -> str:
    """Name a type as a reader of the JSON document knows it."""
    if isinstance(hint, type) and not get_args(hint):
        return hint.__name__
    return re.sub(r"\b(?:typing|numatrace\.model\.\w+)\.", "", str(hint))


def _plain(item: object) -> object:
    """Turn dataclasses, tuples and mappings into what JSON knows."""
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return {part.name: _plain(getattr(item, part.name)) for part in dataclasses.fields(item)}
    if isinstance(item, dict):
        return {str(key): _plain(value) for key, value in item.items()}
    if isinstance(item, tuple):
        return [_plain(value) for value in item]
    return item
