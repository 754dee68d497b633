"""What the trace says in documents: machine, processes, threads, tensor tables, notes."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from numatrace.model.document import loads
from numatrace.model.errors import TraceError
from numatrace.model.machine import Devices, Kernel, Links, Memory, Sysctl
from numatrace.model.process import Process, Thread
from numatrace.model.topology import Topology

if TYPE_CHECKING:
    from numatrace.analyze.rows import Rows

PROCESSES = 16_384
THREADS = 131_072
TENSORS = 500_000
REMARKS = 64
NUMBERS = 2_000_000
"""Documents, tensors, remarks, and numbers of CPUs in them that are kept; more is damage."""
SHAPE = re.compile(r"\[[0-9]{1,18}(?:, ?[0-9]{1,18}){0,3}\]")
"""At most four dimensions (GGML_MAX_DIMS)."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A row of a GGUF file's tensor table; offset and size in bytes, in the file."""

    path: str
    inode: int
    name: str
    offset: int
    bytes: int
    type: str
    shape: tuple[int, ...] = ()
    """As in the file: the first is the length of a row (ggml's `ne`)."""


class Documents:
    """The latest document of every kind, in one pass over the batches."""

    def __init__(self) -> None:
        self.topology: Topology | None = None
        self.memory: Memory | None = None
        self.first_memory: Memory | None = None
        """As it was at attach; `memory` is the latest."""
        self.sysctl = Sysctl({})
        self.kernel = Kernel()
        self.devices = Devices()
        self.links: Links | None = None
        self.processes: dict[int, Process] = {}
        self.threads: dict[tuple[int, int], Thread] = {}
        self._lists: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._numbers = 0
        self.tensors: dict[tuple[str, int, str], Tensor] = {}
        self.problems: list[str] = []
        self.notes: dict[str, None] = {}
        self.losses: Counter[str] = Counter()
        self.ended = ""
        self.recorded: Counter[str] = Counter()
        self.attributed: Counter[str] = Counter()

    def take(self, batch: dict[str, Rows]) -> None:
        """Take one batch. A document that makes no sense is named in `problems` and left out."""
        for kind, take in (
            ("system", self._system),
            ("process", self._process),
            ("thread", self._thread),
        ):
            for values in _documents(batch.get(kind)):
                self.recorded["system"] += 1
                try:
                    take(*values)
                    self.attributed["system"] += 1
                except TraceError as error:
                    self._problem(f"{error.what}: {error.why}")
        self._tensors(batch.get("tensor"))
        self._losses(batch.get("loss"))
        self._remarks(batch)

    def mapped_inodes(self) -> set[int]:
        """Return the inodes of all files that have a tensor table."""
        return {tensor.inode for tensor in self.tensors.values() if tensor.inode}

    def _problem(self, text: str) -> None:
        if len(self.problems) < REMARKS and text not in self.problems:
            self.problems.append(text)

    def _system(self, _tgid: int, _tid: int, name: str, value: str) -> None:
        document = loads(value, name or "system")
        if name == "topology":
            self.topology = Topology.from_json(document)
        elif name == "memory":
            self.memory = Memory.from_json(document)
            self.first_memory = self.first_memory or self.memory
        elif name == "sysctl":
            self.sysctl = Sysctl.from_json(document)
        elif name == "kernel":
            self.kernel = Kernel.from_json(document)
        elif name == "devices":
            self.devices = Devices.from_json(document)
        elif name == "links":
            self.links = Links.from_json(document)

    def _process(self, tgid: int, _tid: int, _name: str, value: str) -> None:
        process = Process.from_json(loads(value, "process"))
        _require(process.tgid == tgid and tgid > 0, "process", f"pid {process.tgid} in row {tgid}")
        if tgid in self.processes or len(self.processes) < PROCESSES:
            self.processes[tgid] = process

    def _thread(self, tgid: int, tid: int, _name: str, value: str) -> None:
        thread = Thread.from_json(loads(value, "thread"))
        _require(thread.tid == tid and tid > 0, "thread", f"tid {thread.tid} in row {tid}")
        if (tgid, tid) in self.threads or len(self.threads) < THREADS:
            self.threads[tgid, tid] = self._shared(thread)

    def _shared(self, thread: Thread) -> Thread:
        """The thread with its lists of CPUs and nodes shared with others that have the same.

        A few characters of text can name 16,384 CPUs, and there may be 131,072 threads.
        """
        lists = []
        for numbers in (thread.cpus_allowed, thread.mems_allowed):
            if numbers not in self._lists:
                self._numbers += len(numbers)
                _require(self._numbers <= NUMBERS, "thread", "too many different lists of CPUs")
                self._lists[numbers] = numbers
            lists.append(self._lists[numbers])
        return replace(thread, cpus_allowed=lists[0], mems_allowed=lists[1])

    def _tensors(self, rows: Rows | None) -> None:
        if rows is None:
            return
        self.recorded["map"] += len(rows)
        texts = (rows.texts(name) for name in ("path", "name", "detail", "value"))
        numbers = (rows.integers(name) for name in ("inode", "offset", "bytes"))
        for path, name, type_, shape, inode, offset, size in zip(*texts, *numbers, strict=True):
            key = path, inode, name
            if name and (key in self.tensors or len(self.tensors) < TENSORS):
                self.tensors[key] = Tensor(path, inode, name, offset, size, type_, shape_of(shape))
                self.attributed["map"] += 1

    def _losses(self, rows: Rows | None) -> None:
        for name, count in _pairs(rows, "name", "count"):
            if name in self.losses or len(self.losses) < REMARKS:
                self.losses[str(name)[:REMARKS]] += int(count)

    def _remarks(self, batch: dict[str, Rows]) -> None:
        for name, detail in _pairs(batch.get("note"), "name", "detail"):
            if len(self.notes) < REMARKS:
                self.notes[f"{name}: {detail}"[:1024]] = None
        ends = batch.get("end")
        if ends is not None:
            self.ended = ends.texts("detail")[-1][:1024] or "closed"


def _documents(rows: Rows | None) -> list[tuple[int, int, str, str]]:
    if rows is None:
        return []
    system = rows.kind == "system"
    numbers = [[0] * len(rows)] * 2 if system else [rows.integers(n) for n in ("tgid", "tid")]
    return list(zip(*numbers, rows.texts("name"), rows.texts("value"), strict=True))


def _pairs(rows: Rows | None, text: str, other: str) -> list[tuple[str, str | int]]:
    if rows is None:
        return []
    values = rows.texts(other) if other == "detail" else rows.integers(other)
    return list(zip(rows.texts(text), values, strict=True))


def shape_of(text: str) -> tuple[int, ...]:
    """Return a shape from its JSON list; empty where it is none that ggml could have."""
    if not SHAPE.fullmatch(text):
        return ()
    return tuple(int(number) for number in text[1:-1].split(","))


def _require(holds: bool, what: str, why: str) -> None:
    if not holds:
        raise TraceError(f"the document '{what}' of this trace makes no sense", why, "record again")
