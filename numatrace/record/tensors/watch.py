"""Watch a server give its tensors their addresses: write `tensor_at` and `buffer` rows.

A uprobe on ggml_backend_tensor_alloc, which every build of llama.cpp exports, sees each weight and
each part of the KV cache as it gets its address. The same function is called for the nodes of
compute graphs, hundreds at a time, again and again: a process that has come so far is muted, and
the probe goes when all have. It comes back for every process that is born or starts a program.
"""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from numatrace.model.errors import NumatraceError
from numatrace.record.bpf.maps import BpfMap
from numatrace.record.bpf.uprobe import attach_uprobe
from numatrace.record.machine import procfs
from numatrace.record.machine.files import read_bytes, read_link
from numatrace.record.memory.maps import read_maps
from numatrace.record.tensors.ggml_buffer import GgmlBuffer, describe
from numatrace.record.tensors.libraries import Identity, Libraries
from numatrace.record.tensors.names import Named, Namer, NameTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numatrace.record.bpf.probes import Probes
    from numatrace.record.tensors.gguf_table import GgufFinder
    from numatrace.trace.writer import TraceWriter

Array = np.ndarray[Any, Any]

FUNCTION = "ggml_backend_tensor_alloc"
RING = "tensor"
"""Of bpf/tensor.bpf.c, whose program is attached here."""

YOUNG_S = 10.0
"""How long a process is expected to load its libraries soon."""

YOUNG_PAUSE_S = 0.02
"""Between two looks at the mappings of a young process: libraries come some 50 ms before a load."""

COST_SHARE = 0.02
OLD_COST_SHARE = 0.001
"""Share of time that looks at mappings may take, and those of one process that is not young."""

ALLOWANCE = 6_000
FORGIVEN_PER_S = 100
"""Tensors of graphs after which a process is muted, and how many of them a second do not count.

TENSOR_ALLOWANCE in bpf/tensor.bpf.c. One costs the server 1.4 µs, so that it loses some 10 ms once,
and then 0.015 % of a CPU. (Ten times that if the kernel cannot emulate the first instruction.)
"""

MAX_BUFFERS = 4096
"""Of one process that are told."""

MAX_ENDED = 8
"""Processes that ended before the table of their model was there."""


@dataclass(slots=True)
class Watched:
    """A followed process."""

    since: float
    """When it began, on CLOCK_MONOTONIC in seconds: a server that runs already is not young."""
    counted_at: float
    """When records were last added to its allowance."""
    look_due: float = 0.0
    libraries: set[Identity] = field(default_factory=set)
    namer: Namer = field(default_factory=Namer)
    buffers: dict[int, GgmlBuffer] = field(default_factory=dict)
    """By the address of the struct, as last written."""
    muted: bool = False


def first_word(tgid: int) -> str:
    """The command line's first word; "" if it cannot be read."""
    data = read_bytes(f"/proc/{tgid}/cmdline", 4096) or b""
    return data.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _watched(tgid: int) -> Watched:
    now = time.monotonic()
    found = procfs.stat(tgid)
    boot_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    age_s = max(0.0, boot_s - found.start_ns / 1e9) if found is not None else 0.0
    return Watched(since=now - age_s, counted_at=now)


class TensorWatch:
    """Source of `tensor_at` and `buffer` rows. Where there is no probe, it only says why.

    Calls `on_load` with a process that just put tensors into memory, which may be new memory.
    """

    def __init__(
        self,
        probes: Probes,
        finder: GgufFinder,
        writer: TraceWriter,
        note: Callable[[str, str], None],
        on_load: Callable[[int], None],
    ) -> None:
        self.writer = writer
        self.note = note
        self.on_load = on_load
        self.libraries = Libraries(FUNCTION)
        self.table = NameTable(finder.tables)
        self.watched: dict[int, Watched] = {}
        self.records = 0
        """Records taken from the ring."""
        self._program: int | None = probes.programs.get(RING)
        self._refused = probes.refused.get(RING)
        self._left: BpfMap | None = None
        if self._program is not None:
            left = probes.bpf[b"tensor_left"]
            self._left = BpfMap(int(left.map_fd), "<i4", "<i8", int(left.max_entries))
        self._free_at = 0.0
        self._attached: dict[Identity, int] = {}
        self._ended: deque[tuple[int, Namer]] = deque(maxlen=MAX_ENDED)

    @property
    def attached_files(self) -> int:
        """How many files the probe is on."""
        return len(self._attached)

    @property
    def pause_s(self) -> float:
        """How long the next look may wait."""
        return YOUNG_PAUSE_S if self._program is not None and self._expects() else float("inf")

    def prepare(self, command: Sequence[str]) -> None:
        """Attach to what a command that is about to start will map, as far as it can be told."""
        if command and self._program is not None:
            self.libraries.prepare(command, os.environ)
            self._attach(self.libraries.found.keys())

    def start(self) -> None:
        """Say why there is no probe, if there is none."""
        if self._refused:
            self.note(f"uprobe on {FUNCTION}", self._refused)

    def attached(self, tgid: int) -> None:
        """Watch a process that was born, or runs another program."""
        if self._program is None:
            return
        self.watched.setdefault(tgid, _watched(tgid))
        # The interpreter of a virtual environment is a link: only its name tells the environment.
        names = {read_link(Path(f"/proc/{tgid}/exe")), first_word(tgid)}
        for program in filter(lambda name: name.startswith("/"), names):
            self.libraries.beside(program, f"/proc/{tgid}/root")
        self._attach(self.libraries.found.keys())

    def forget(self, tgid: int) -> None:
        """Stop watching a process; heads of it still wait for their table."""
        process = self.watched.pop(tgid, None)
        if process is None:
            return
        if process.namer.n_waiting:
            self._ended.append((tgid, process.namer))
        if self._left is not None:
            self._left.delete(np.array([tgid], "<i4"))

    def look(self, drained: Mapping[str, Array]) -> None:
        """Find the library in processes that do not have it yet, and take in what was seen."""
        self._look_at_maps()
        records = drained.get(RING)
        if records is None or not len(records):
            return
        self.records += len(records)
        self._refresh()
        for tgid in np.unique(records["tgid"]).tolist():
            # One that was just born may be told of in the same drain.
            process = self.watched.setdefault(tgid, _watched(tgid))
            self._take(tgid, process, records[records["tgid"] == tgid])

    def tick(self) -> None:
        """Name what waited for tensor tables, and take the probe off where it only costs."""
        self._refresh()
        self._detach_idle()

    def stop(self) -> None:
        """Take the probe off."""
        self._detach(set(self._attached))

    def finish(self) -> None:
        """Name what waits. Again when the last tensor tables are there, if they were not."""
        self._refresh()

    def close(self) -> None:
        """Take the probe off and close the files."""
        self.stop()
        self.libraries.close()

    def _expects(self) -> bool:
        """Whether a process may be about to load the library."""
        now = time.monotonic()
        return any(
            not process.libraries and now - process.since < YOUNG_S
            for process in self.watched.values()
        )

    def _refresh(self) -> None:
        if self.table.refresh():
            living = [(tgid, process.namer) for tgid, process in self.watched.items()]
            for tgid, namer in [*living, *self._ended]:
                self._write(tgid, namer.retry(self.table))

    def _look_at_maps(self) -> None:
        """Look at who is due, those first that have waited longest, as far as time may be spent."""
        now = time.monotonic()
        due = [
            (process.look_due, tgid)
            for tgid, process in self.watched.items()
            if not process.libraries and now >= process.look_due
        ]
        for _, tgid in sorted(due):
            if time.monotonic() < self._free_at:
                return
            self._look_at(tgid, self.watched[tgid])

    def _look_at(self, tgid: int, process: Watched) -> None:
        started_s = time.thread_time()
        try:
            mappings = read_maps(tgid) or ()
        except NumatraceError:  # Memory has told
            mappings = ()
        cost_s = time.thread_time() - started_s
        now = time.monotonic()
        share = COST_SHARE if now - process.since < YOUNG_S else OLD_COST_SHARE
        process.look_due = now + max(YOUNG_PAUSE_S / 2, cost_s / share)
        self._free_at = now + cost_s / COST_SHARE
        process.libraries = self.libraries.mapped_by(tgid, mappings)
        self._attach(process.libraries)

    def _attach(self, wanted: Iterable[Identity]) -> None:
        for identity in set(wanted) - self._attached.keys():
            if self._program is None:
                return
            library = self.libraries.found[identity]
            try:
                fd = attach_uprobe(library.fd, library.offset, self._program)
            except (NumatraceError, OSError) as error:
                self.note(f"uprobe on {FUNCTION}", str(error)[:200])
                self._program = None
                return
            self._attached[identity] = fd

    def _detach(self, identities: set[Identity]) -> None:
        for identity in identities:
            os.close(self._attached.pop(identity))

    def _detach_idle(self) -> None:
        """Take the probe off files that only muted processes map, and none is about to."""
        if self._expects():
            return
        loud = [process for process in self.watched.values() if process.libraries]
        for identity in list(self._attached):
            users = [process for process in loud if identity in process.libraries]
            if users and all(process.muted for process in users):
                self._detach({identity})

    def _take(self, tgid: int, process: Watched, records: Array) -> None:
        graph = np.zeros(len(records), bool)
        for pointer in np.unique(records["buffer"]).tolist():
            mine = records["buffer"] == pointer
            buffer = describe(tgid, pointer, records["addr"][mine].tolist())
            if buffer is not None:
                graph |= mine & (buffer.use == "compute")
                first_ns = int(records["t_ns"][mine].min())
                self._write_buffer(tgid, process, pointer, buffer, first_ns)
        waited = process.namer.n_waiting
        named = process.namer.take(records[~graph], self.table)
        self._write(tgid, named)
        useful = max(0, len(named) + process.namer.n_waiting - waited)
        if useful:
            self.on_load(tgid)
        self._allow(tgid, process, useful)

    def _allow(self, tgid: int, process: Watched, more: int) -> None:
        """Let a process send more records, unless it has used up its allowance on graphs."""
        if self._left is None or process.muted:
            return
        key = np.array([tgid], "<i4")
        left = self._left.get(key)
        if left is None:
            return
        now = time.monotonic()
        forgiven = int((now - process.counted_at) * FORGIVEN_PER_S)
        process.counted_at = now
        process.muted = left[0] + more <= 0
        self._left.put(key, np.minimum(left + more + forgiven, ALLOWANCE))

    def _write(self, tgid: int, tensors: Iterable[Named]) -> None:
        self.writer.add_rows(
            "tensor_at",
            [
                {
                    "t_ns": tensor.t_ns,
                    "tgid": tgid,
                    "tid": tensor.tid,
                    "addr": tensor.addr,
                    "bytes": tensor.bytes,
                    "name": tensor.name,
                    "path": tensor.path or None,
                    "detail": tensor.type,
                }
                for tensor in tensors
            ],
        )

    def _write_buffer(
        self, tgid: int, process: Watched, pointer: int, buffer: GgmlBuffer, t_ns: int
    ) -> None:
        """Write a buffer if it is news. `t_ns`: of its first tensor, which is not before it."""
        if process.buffers.get(pointer) == buffer or len(process.buffers) >= MAX_BUFFERS:
            return
        process.buffers[pointer] = buffer
        row = {
            "t_ns": t_ns,
            "tgid": tgid,
            "addr": buffer.addr,
            "bytes": buffer.bytes,
            "detail": buffer.detail,
        }
        self.writer.add_rows("buffer", [row])
