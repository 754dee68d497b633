"""The mappings of followed processes and where their pages lie, kept up to date in the trace."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from numatrace.model.errors import NumatraceError
from numatrace.record.machine import procfs
from numatrace.record.memory.buffers import Buffers
from numatrace.record.memory.maps import Mapping, diff_maps, read_maps
from numatrace.record.memory.pages import PARTS, Pages
from numatrace.record.memory.pieces import cut
from numatrace.record.tensors.gguf_table import GgufFinder, GgufTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numatrace.record.memory.placement import PlaceRow
    from numatrace.trace.writer import TraceWriter

GGUF_WAIT_S = 3.0
"""How long a first snapshot waits for the tensor tables, so that it is cut at tensors at once."""

GGUF_END_WAIT_S = 60.0
"""How long the end of a recording waits for them: a report without layers is half a report."""

BIG_BYTES = 16 << 20
"""So much new memory calls for a snapshot before its time."""

READ_SHARE, LOOK_SHARE = 0.0005, 0.002
"""Share of time that reading maps and querying pages may take, by coming less often."""

WHOLE_EVERY = PARTS
"""Of so many looks one is at all pages and at malloc's blocks; the others see whether pages moved,
and look at all if so."""

RETRY_S = 60.0
"""Between two attempts where placement cannot be queried."""


@dataclass(slots=True)
class Space:
    """One process's address space as last written."""

    argv: Sequence[str]
    attached: float
    pages: Pages
    mappings: Sequence[Mapping] = ()
    looks: int = 0
    read_due: float = 0.0
    look_due: float | None = None
    """None: waits for tensor tables."""


class Memory:
    """Writes `map`, `unmap`, `place`, `buffer` and `tensor` rows."""

    def __init__(
        self, writer: TraceWriter, interval_s: float, note: Callable[[str, str], None]
    ) -> None:
        self.writer = writer
        self.interval_s = interval_s
        self.note = note
        self.finder = GgufFinder()
        self.buffers = Buffers(writer)
        self.spaces: dict[int, Space] = {}
        self._ended_gguf_bytes: dict[int, int] = {}

    def attach(self, tgid: int, argv: Sequence[str] = ()) -> None:
        """Begin with a process, or begin anew after an exec."""
        old = self.spaces.get(tgid)
        space = Space(argv, time.monotonic(), Pages(tgid))
        if old is not None:
            space.mappings = old.mappings
            self.buffers.forget(tgid)
        self.spaces[tgid] = space
        self._read(tgid, space)
        self._take_tables(self.finder.poll())

    def look_again(self, tgid: int) -> None:
        """Read the mappings of a process now, and once more at the next `update`: they change."""
        space = self.spaces.get(tgid)
        if space is not None:
            self._read(tgid, space)
            space.read_due = 0.0

    def forget(self, tgid: int) -> None:
        """A process ended: what was written of it stands."""
        space = self.spaces.pop(tgid, None)
        self.buffers.forget(tgid)
        if space is not None and (mapped := self._mapped_gguf_bytes(space)) is not None:
            self._ended_gguf_bytes[tgid] = mapped

    def update(self) -> None:
        """Read mappings anew, take in tensor tables, and take the snapshots that are due."""
        now = time.monotonic()
        for tgid, space in list(self.spaces.items()):
            if now >= space.read_due:
                self._read(tgid, space)
        self._take_tables(self.finder.poll())
        for tgid, space in list(self.spaces.items()):
            if self._is_due(space, now):
                self._look(tgid, space, whole=space.looks % WHOLE_EVERY == 0)

    @property
    def waits_for_tables(self) -> bool:
        """Whether a tensor table is still being read."""
        return self.finder.busy

    def finish(self, hurry: Callable[[], bool]) -> None:
        """Wait for tensor tables until told to hurry, then take a last snapshot of what lives."""
        self._take_tables(self.finder.finish(GGUF_END_WAIT_S, hurry))
        for tgid, space in list(self.spaces.items()):
            self._read(tgid, space)
            self._look(tgid, space, whole=True)

    def close(self) -> None:
        """End what runs in the background."""
        self.finder.close()

    def gguf_bytes(self) -> dict[int, int]:
        """Bytes of GGUF files that each process maps; 0 for one that has one open only."""
        return self._ended_gguf_bytes | {
            tgid: found
            for tgid, space in self.spaces.items()
            if (found := self._mapped_gguf_bytes(space)) is not None
        }

    def _mapped_gguf_bytes(self, space: Space) -> int | None:
        models = {file for file, table in self.finder.tables.items() if table.tensors}
        mapped = [
            mapping.bytes
            for mapping in space.mappings
            if mapping.inode and (mapping.dev, mapping.inode) in models
        ]
        return sum(mapped) if mapped else None

    def _is_due(self, space: Space, now: float) -> bool:
        if space.look_due is not None:
            return now >= space.look_due
        return not self.finder.busy or now - space.attached >= GGUF_WAIT_S

    def _read(self, tgid: int, space: Space) -> None:
        started = time.thread_time()  # not the time that others ran: on a busy machine it is long
        mappings = read_maps(tgid)
        if mappings is None:
            return
        added, removed = diff_maps(space.mappings, mappings)
        space.mappings = mappings
        self._write_maps(tgid, added, removed)
        self.finder.look(tgid, added, space.argv)
        now = time.monotonic()
        space.read_due = now + (time.thread_time() - started) / READ_SHARE
        big = sum(mapping.bytes for mapping in added) >= BIG_BYTES
        if big and space.look_due is not None:
            space.look_due = now

    def _write_maps(self, tgid: int, added: list[Mapping], removed: list[Mapping]) -> None:
        now_ns = time.monotonic_ns()
        self.writer.add_rows(
            "unmap",
            [{"t_ns": now_ns, "tgid": tgid, "addr": m.start, "bytes": m.bytes} for m in removed],
        )
        self.writer.add_rows("map", [map_row(now_ns, tgid, m) for m in added])

    def _take_tables(self, tables: Iterable[GgufTable]) -> None:
        for table in tables:
            self._write_table(table)
            for tgid, space in self.spaces.items():
                self._cut_anew(tgid, space, table)

    def _write_table(self, table: GgufTable) -> None:
        now_ns = time.monotonic_ns()
        if table.problem:
            self.note(f"tensors of {table.path}", table.problem)
        self.writer.add_rows(
            "tensor",
            [
                {
                    "t_ns": now_ns,
                    "path": table.path,
                    "inode": table.inode,
                    "name": tensor.name,
                    "offset": tensor.offset,
                    "bytes": tensor.bytes,
                    "detail": tensor.type,
                    "value": json.dumps(tensor.shape),
                }
                for tensor in table.tensors
            ],
        )

    def _cut_anew(self, tgid: int, space: Space, table: GgufTable) -> None:
        """Have mappings of the file that were placed whole placed by tensor from now on."""
        mine = [
            mapping
            for mapping in space.mappings
            if (mapping.dev, mapping.inode) == (table.dev, table.inode)
        ]
        if not mine or space.look_due is None:
            return
        self._write_maps(tgid, mine, mine)
        space.pages.tell_again(table.inode)
        space.look_due = time.monotonic()

    def _look(self, tgid: int, space: Space, *, whole: bool) -> None:
        started = time.thread_time()
        pieces = cut(space.mappings, self.finder.tables)
        try:
            if whole or space.pages.moved(pieces):
                self._write_places(tgid, space.pages.look(pieces))
                self.buffers.update(tgid, space.mappings)
        except NumatraceError as error:
            if procfs.is_alive(tgid):
                self.note(error.what, error.why)
            space.look_due = time.monotonic() + RETRY_S
            return
        space.looks += 1
        rest_s = (time.thread_time() - started) / LOOK_SHARE
        space.look_due = time.monotonic() + max(self.interval_s, rest_s)

    def _write_places(self, tgid: int, rows: list[PlaceRow]) -> None:
        now_ns = time.monotonic_ns()
        self.writer.add_rows(
            "place", [{"t_ns": now_ns, "tgid": tgid, **row._asdict()} for row in rows]
        )


def map_row(t_ns: int, tgid: int, mapping: Mapping) -> dict[str, object]:
    """The `map` row of a mapping."""
    return {
        "t_ns": t_ns,
        "tgid": tgid,
        "addr": mapping.start,
        "bytes": mapping.bytes,
        "offset": mapping.offset,
        "inode": mapping.inode,
        "path": mapping.path or None,
        "detail": mapping.perms,
    }
