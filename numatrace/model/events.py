"""THE event table: every column and every kind of row that a trace holds.

The C header `bpf/events.h`, the numpy record types, the Arrow schema and the reference page
`numatrace guide trace` are all derived from here; CI fails when a generated file is stale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SCHEMA_VERSION = 2
"""Version of the trace schema. Readers accept this and older ones, and refuse newer ones."""

ColumnType = Literal["u64", "s64", "s32", "u8", "enum", "text"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the trace: its type, its unit and what it means."""

    name: str
    type: ColumnType
    unit: str
    doc: str


COLUMNS: tuple[Column, ...] = (
    Column("kind", "enum", "", "what the row says; one of the kinds below"),
    Column("t_ns", "u64", "ns", "CLOCK_MONOTONIC at which it happened or was read"),
    Column("tgid", "s32", "", "process id"),
    Column("tid", "s32", "", "thread id"),
    Column("ptgid", "s32", "", "process that created this one, or created this thread"),
    Column("ptid", "s32", "", "thread that created this one"),
    Column("cpu", "s32", "", "CPU it happened on"),
    Column("node", "s32", "", "NUMA node of that CPU"),
    Column("from_node", "s32", "", "NUMA node that the thread ran on before"),
    Column("mem_node", "s32", "", "NUMA node of the memory; -1 where no page is present"),
    Column("addr", "u64", "", "address: of the access, or where a mapping or a piece of it begins"),
    Column("ip", "u64", "", "instruction pointer"),
    Column("access", "u8", "", "bits: 1 write, 2 instruction fetch, 4 taken in kernel mode"),
    Column("weight", "u64", "events", "how many events this sampled row stands for"),
    Column("count", "u64", "events", "exact number of events since the row of this kind before"),
    Column("kernel_count", "u64", "events", "of these, taken in kernel mode"),
    Column("oncpu_ns", "u64", "ns", "time on CPU since the row of this kind before"),
    Column("bytes", "u64", "bytes", "size of the mapping, piece, tensor or file"),
    Column("node_bytes", "u64", "bytes", "estimated bytes of the piece that are on mem_node"),
    Column("pages", "u64", "pages", "pages found on mem_node among those looked at"),
    Column("sampled_pages", "u64", "pages", "pages of the piece that were looked at"),
    Column(
        "piece_pages",
        "u64",
        "pages",
        "pages that the piece has; equal to sampled_pages in a full census",
    ),
    Column("offset", "u64", "bytes", "offset in the file"),
    Column("inode", "u64", "", "inode of the mapped file, 0 for anonymous memory"),
    Column("name", "text", "", "name of the tensor, mapping, thread, counter, document or loss"),
    Column("path", "text", "", "file"),
    Column("detail", "text", "", "type, permissions or reason, see the kind"),
    Column("value", "text", "", "a JSON document, see the kind"),
    # Since version 2.
    Column("time_ns", "u64", "ns", "CPU time that the sample stands for, or a sampling period"),
    Column("latency_cycles", "u64", "cycles", "latency of the access as the hardware measured it"),
    Column("data_src", "u64", "", "perf_mem_data_src of a hardware sample, as perf gives it"),
)

COLUMN = {column.name: column for column in COLUMNS}


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of row. `ring` names the BPF ring buffer it arrives in, if it comes from BPF.

    `wire` has the columns that BPF fills in, where user space adds the others.
    """

    kind: str
    family: str
    columns: tuple[str, ...]
    doc: str
    ring: str | None = None
    wire: tuple[str, ...] | None = None

    @property
    def ring_columns(self) -> tuple[str, ...]:
        """Columns that the record in the ring holds."""
        return self.columns if self.wire is None else self.wire

    @property
    def code(self) -> int:
        """Number of the kind in BPF records and in the Arrow dictionary; never reused."""
        return EVENTS.index(self)


# Order is part of the format: a kind's code is its place. Append only.
EVENTS: tuple[Event, ...] = (
    Event(
        "fault",
        "fault",
        ("t_ns", "addr", "ip", "weight", "tgid", "tid", "cpu", "node", "access"),
        "A page fault, or `weight` of them where sampled.",
        ring="fault",
    ),
    Event(
        "fault_count",
        "fault",
        ("t_ns", "tgid", "tid", "node", "count", "kernel_count"),
        "Exact number of page faults of a thread on a node, since its last such row.",
    ),
    Event(
        "move",
        "sched",
        ("t_ns", "tgid", "tid", "cpu", "node", "from_node"),
        "The thread began to run on a node other than the one it last ran on.",
        ring="sched",
    ),
    Event(
        "balance",
        "sched",
        ("t_ns", "tgid", "tid", "cpu", "node", "from_node", "access"),
        "NUMA balancing moved (access 0), swapped (1) or failed to move (2) the thread.",
        ring="sched",
    ),
    Event(
        "fork",
        "sched",
        ("t_ns", "tgid", "tid", "ptgid", "ptid", "cpu", "node"),
        "A thread (tgid = ptgid) or a process was created below a followed one.",
        ring="sched",
    ),
    Event(
        "exec",
        "sched",
        ("t_ns", "tgid", "tid", "cpu", "node"),
        "The process replaced its program.",
        ring="sched",
    ),
    Event(
        "exit",
        "sched",
        ("t_ns", "tgid", "tid", "cpu", "node"),
        "The thread ended.",
        ring="sched",
    ),
    Event(
        "oncpu",
        "sched",
        ("t_ns", "tgid", "tid", "node", "oncpu_ns"),
        "Exact time of a thread on the CPUs of a node, since its last such row.",
    ),
    Event(
        "map",
        "map",
        ("t_ns", "tgid", "addr", "bytes", "offset", "inode", "path", "detail"),
        "A mapping was there (at attach) or appeared. `detail`: permissions as in /proc/PID/maps.",
    ),
    Event(
        "unmap",
        "map",
        ("t_ns", "tgid", "addr", "bytes"),
        "A mapping that an earlier `map` row reported is gone.",
    ),
    Event(
        "place",
        "place",
        (
            "t_ns",
            "tgid",
            "addr",
            "bytes",
            "mem_node",
            "node_bytes",
            "pages",
            "sampled_pages",
            "piece_pages",
            "offset",
            "inode",
            "path",
            "name",
        ),
        "Where a piece of a mapping lies: one row per node that holds pages of it, and one with "
        "mem_node -1 for pages not present. A piece is a whole mapping or, in a mapped GGUF "
        "file, the part of it that belongs to the tensor `name`. Written at attach, at the end, "
        "and when it changed.",
    ),
    Event(
        "tensor",
        "map",
        ("t_ns", "path", "inode", "name", "offset", "bytes", "detail", "value"),
        "A row of the tensor table of a GGUF file. `offset`: in the file; `detail`: type; "
        "`value`: shape as a JSON list.",
    ),
    Event(
        "system",
        "system",
        ("t_ns", "name", "value"),
        "A document about the machine: name `topology`, `memory`, `sysctl`, `kernel`, "
        "`recorder`, `devices`, `links`.",
    ),
    Event(
        "process",
        "system",
        ("t_ns", "tgid", "ptgid", "name", "value"),
        "A process: `name` is its comm, `value` a document (argv, exe, cgroup, unit, container, "
        "allowed CPUs and nodes, memory policy, user).",
    ),
    Event(
        "thread",
        "system",
        ("t_ns", "tgid", "tid", "name", "value"),
        "A thread seen at attach or later: `name` is its comm, `value` allowed CPUs and nodes.",
    ),
    Event(
        "counter",
        "count",
        ("t_ns", "tgid", "tid", "node", "name", "count", "time_ns", "detail"),
        "A counter's growth: of the kernel's since the recording began, such as `minflt` of a "
        "process; of perf's since the row before, with `time_ns` the time it was counted for. "
        "`detail`: what it counts and where it comes from.",
    ),
    Event(
        "loss",
        "loss",
        ("t_ns", "name", "count", "detail"),
        "Events of the family `name` that were counted and not kept. `detail`: why.",
    ),
    Event(
        "note",
        "loss",
        ("t_ns", "name", "detail"),
        "Something that was not recorded: `name` is the probe or the step, `detail` the reason.",
    ),
    Event(
        "end",
        "system",
        ("t_ns", "detail", "value"),
        "The last row of a recording that was closed. `detail`: why it ended; `value`: totals.",
    ),
    # Since version 2.
    Event(
        "access",
        "access",
        (
            "t_ns",
            "tgid",
            "tid",
            "cpu",
            "node",
            "mem_node",
            "addr",
            "ip",
            "access",
            "weight",
            "time_ns",
            "latency_cycles",
            "data_src",
            "name",
            "detail",
        ),
        "A memory access that a sample found. `name`: the source (`operand`, `pebs`, `ibs`, "
        "`spe`). `detail` of an operand sample: how the address was found, or what the time went "
        "to where there is none; of a hardware sample: where the data came from. `weight`: "
        "events that a hardware sample stands for. `addr` and `mem_node` are null where unknown.",
        ring="access",
        wire=("t_ns", "ip", "time_ns", "tgid", "tid", "cpu", "node", "access"),
    ),
    Event(
        "rate",
        "system",
        ("t_ns", "name", "time_ns", "count", "detail", "value"),
        "From now on the source `name` takes a sample every `time_ns` of CPU time, or, for "
        "hardware, every `count` events. `detail`: why; `value`: the measured costs.",
    ),
    Event(
        "tensor_at",
        "map",
        ("t_ns", "tgid", "tid", "addr", "bytes", "name", "path", "detail"),
        "The server gave the tensor `name` this address (uprobe on ggml_backend_tensor_alloc). "
        "`bytes`: its size, from the GGUF table (`path`) or its own shape; `detail`: its type.",
        ring="tensor",
        wire=("t_ns", "addr", "tgid", "tid"),
    ),
    Event(
        "buffer",
        "map",
        ("t_ns", "tgid", "addr", "bytes", "detail"),
        "A block of memory that was taken as one piece, inside a private mapping: the kernel "
        "merges neighbouring mappings. `bytes` 0: it is gone. `detail`: `malloc chunk` where the "
        "allocator's own marks tell; `ggml`, use and type where the server's do.",
    ),
)

EVENT = {event.kind: event for event in EVENTS}
FAMILIES: tuple[str, ...] = (
    "fault",
    "sched",
    "access",
    "place",
    "map",
    "count",
    "system",
    "loss",
)
RINGS: tuple[str, ...] = ("fault", "sched", "access", "tensor")
BPF_EVENTS: tuple[Event, ...] = tuple(event for event in EVENTS if event.ring)
