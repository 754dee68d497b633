"""THE event table: every column and every kind of row that a trace holds.

The C header `bpf/events.h`, the numpy record types, the Arrow schema and the reference page
`numatrace guide trace` are all derived from here; CI fails when a generated file is stale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SCHEMA_VERSION = 1
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
)

COLUMN = {column.name: column for column in COLUMNS}


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of row. `ring` names the BPF ring buffer it arrives in, if it comes from BPF."""

    kind: str
    family: str
    columns: tuple[str, ...]
    doc: str
    ring: str | None = None

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
        "A document about the machine: name `topology`, `memory`, `sysctl`, `kernel`, `recorder`.",
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
        ("t_ns", "tgid", "tid", "node", "name", "count"),
        "A kernel counter's growth since the recording began, such as `minflt` of a process.",
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
)

EVENT = {event.kind: event for event in EVENTS}
FAMILIES: tuple[str, ...] = ("fault", "sched", "place", "map", "count", "system", "loss")
RINGS: tuple[str, ...] = ("fault", "sched")
BPF_EVENTS: tuple[Event, ...] = tuple(event for event in EVENTS if event.ring)
