"""Name private memory: which tensor, or what else, lies at an address that no file backs."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from numatrace.analyze.memory.buffer_layout import ALIGNMENT, REPACKED, experts_of
from numatrace.analyze.memory.rows import (
    blocks_seen,
    buffers_seen,
    map_changes,
    new_programs,
    tensors_at,
)
from numatrace.analyze.memory.tensor_tables import SHARD, Tables
from numatrace.analyze.memory.trail import Trail

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numatrace.analyze.documents import Tensor
    from numatrace.analyze.memory.buffer_layout import Guess, Part
    from numatrace.analyze.memory.trail import Block, GgmlBuffer, TensorAt
    from numatrace.analyze.rows import Numbers, Rows

PROCESSES = 4096

LAYER = re.compile(r"(?:blk\.([0-9]{1,6})\.|cache_[a-z_]{1,16}_l([0-9]{1,5})$)")
"""Names of llama.cpp's tensors of a layer, and of a layer's cache."""

REPACKING = re.compile("REPACK|AMX|KLEIDIAI")
"""Types of ggml's buffers whose weights are not as in the file."""

MAX_GUESSES = 32
"""Blocks of a process, the largest first, whose size is compared with the models'."""

MAX_MODELS = 16
"""Models that the size of a block is compared with."""

Exactness = Literal["traced", "estimated"]
AnonymousClass = Literal["weights", "repacked weights", "KV cache", "compute"]


class Span(NamedTuple):
    """Private memory [start, end) of one process that has a name.

    `tensor`: "" where only class and layer are known; `layer`: None where it belongs to none;
    `path`: the model file, "" where unknown. `exactness`: `traced` where the server was seen to
    put it there, `estimated` where the sizes of buffers say so. `experts`: how many equal parts it
    has that are experts, one after the other; 0 for other tensors.
    """

    start: int
    end: int
    cls: AnonymousClass
    tensor: str
    layer: int | None
    path: str
    exactness: Exactness
    experts: int = 0


class NamedMemory:
    """The named private memory of every process as of the last batch that was taken."""

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        self._tables = Tables(tensors)
        self._memories: dict[int, _Memory] = {}

    def take(self, rows: dict[str, Rows]) -> None:
        """Take a batch: its rows of the kinds map, unmap, tensor, tensor_at, buffer, fork, exec."""
        if "tensor" in rows and self._tables.take(rows["tensor"]):
            for memory in self._memories.values():
                memory.stale = True
        for tgid, t_ns in new_programs(rows):
            if tgid in self._memories:
                self._trail(tgid).forget_before(t_ns)
        for tgid, changes in map_changes(rows).items():
            self._trail(tgid).map(changes)
        for tgid, buffers in buffers_seen(rows).items():
            self._trail(tgid).put(buffers)
        for tgid, blocks in blocks_seen(rows).items():
            self._trail(tgid).lay(blocks)
        for tgid, tensors in tensors_at(rows).items():
            self._trail(tgid).place(tensors)

    def version(self, tgid: int) -> int:
        """A number that grows whenever the spans of the process have changed."""
        return self._named(tgid).version

    def spans(self, tgid: int) -> list[Span]:
        """The spans of a process, by ascending address, none over another."""
        return self._named(tgid).spans

    def locate(self, tgid: int, addrs: Numbers) -> Numbers:
        """Return for each address (uint64) the index of its span in `spans(tgid)`, or -1."""
        named = self._named(tgid)
        if not named.spans:
            return np.full(len(addrs), -1, np.int64)
        place = np.searchsorted(named.starts, addrs, side="right").astype(np.int64) - 1
        inside = (place >= 0) & (addrs < named.ends[np.maximum(place, 0)])
        return np.where(inside, place, -1)

    def _trail(self, tgid: int) -> Trail:
        """The process's trail, about to be changed."""
        memory = self._memories.get(tgid)
        if memory is None:
            memory = _Memory()
            if len(self._memories) < PROCESSES:
                self._memories[tgid] = memory
        memory.stale = True
        return memory.trail

    def _named(self, tgid: int) -> _Memory:
        memory = self._memories.get(tgid)
        if memory is None:
            return _Memory()
        if memory.stale:
            memory.renew(list(_Namer(memory.trail, self._tables).spans()))
        return memory


class _Memory:
    """One process's trail, and the spans that follow from it."""

    def __init__(self) -> None:
        self.trail = Trail()
        self.stale = False
        self.version = 0
        self.spans: list[Span] = []
        self.starts = np.zeros(0, np.uint64)
        self.ends = np.zeros(0, np.uint64)

    def renew(self, spans: list[Span]) -> None:
        self.stale = False
        if spans != self.spans:
            self.version += 1
            self.spans = spans
            self.starts = np.array([span.start for span in spans], np.uint64)
            self.ends = np.array([span.end for span in spans], np.uint64)


class _Namer:
    """Names what a trail leads to."""

    def __init__(self, trail: Trail, tables: Tables) -> None:
        self.trail = trail
        self.tables = tables
        inodes = trail.inodes
        self.mapped = {path for path in tables.models() if tables.inodes(path) & inodes}

    def spans(self) -> list[Span]:
        """Return what was traced, then what is estimated in the gaps."""
        traced = [self._traced(each) for each in self.trail.tensors if self._is_private(each)]
        found = _filled(traced, self._compute())
        return _filled(found, self._estimates(found))

    def _is_private(self, item: TensorAt | GgmlBuffer | Block) -> bool:
        return self.trail.is_private(item.start, item.end)

    def _traced(self, tensor: TensorAt) -> Span:
        match = LAYER.match(tensor.name)
        layer = int(match[1] or match[2]) if match else None
        known = self.tables.find(tensor.path, tensor.name)
        experts = experts_of(tensor.name, known.shape) if known is not None else 0
        cls: AnonymousClass = "KV cache" if match and match[2] else self._weights_class(tensor)
        return Span(
            tensor.start, tensor.end, cls, tensor.name, layer, tensor.path, "traced", experts
        )

    def _weights_class(self, tensor: TensorAt) -> AnonymousClass:
        """Return whether weights are as in the file.

        Where ggml did not say: they are not if the file is mapped, for then only what is changed
        has memory of its own.
        """
        buffer = _holding(self.trail.buffers, tensor.start)
        type_ = buffer.type if buffer is not None else ""
        if type_:
            return "repacked weights" if REPACKING.search(type_) else "weights"
        mapped = SHARD.sub("", tensor.path) in self.mapped
        return "repacked weights" if mapped and tensor.type in REPACKED else "weights"

    def _compute(self) -> Iterator[Span]:
        for buffer in self.trail.buffers:
            if buffer.use == "compute" and self._is_private(buffer):
                yield Span(buffer.start, buffer.end, "compute", "", None, "", "traced")

    def _estimates(self, found: Sequence[Span]) -> Iterator[Span]:
        blocks = sorted(self.trail.blocks, key=lambda block: block.start - block.end)
        for block in filter(self._is_private, blocks[:MAX_GUESSES]):
            inside = _within(found, block.start, block.end)
            if any(span.cls == "compute" for span in inside):
                continue
            guess = self._guess(block)
            if guess is not None and _agrees(guess.parts, block.start, inside):
                yield from (_estimated(guess, part, block.start) for part in guess.parts)

    def _guess(self, block: Block) -> Guess | None:
        """Return what a block holds, if one thing only fits: of a mapped model, or else another."""
        size = block.end - block.start
        for paths in (self.mapped, self.tables.models().keys() - self.mapped):
            guesses = [
                guess
                for path in sorted(paths)[:MAX_MODELS]
                for guess in self.tables.guesses(path, size, mapped=path in self.mapped)
            ]
            if guesses:
                return guesses[0] if len(guesses) == 1 else None
        return None


def _estimated(guess: Guess, part: Part, base: int) -> Span:
    start = base + part.offset
    return Span(
        start,
        start + part.bytes,
        guess.cls,
        part.tensor,
        part.layer,
        part.path,
        "estimated",
        part.experts,
    )


def _agrees(parts: Sequence[Part], base: int, traced: Sequence[Span]) -> bool:
    """Whether no traced tensor contradicts a guess."""
    wanted = {part.tensor: base + part.offset for part in parts if part.tensor}
    return all(wanted.get(span.tensor, span.start) == span.start for span in traced)


def _holding(buffers: Sequence[GgmlBuffer], addr: int) -> GgmlBuffer | None:
    place = bisect_right(buffers, addr, key=lambda buffer: buffer.start) - 1
    return buffers[place] if place >= 0 and addr < buffers[place].end else None


def _within(spans: Sequence[Span], start: int, end: int) -> Sequence[Span]:
    """The spans, of ascending ones, that overlap a range."""
    first = bisect_right(spans, start, key=lambda span: span.end)
    return spans[first : bisect_left(spans, end, key=lambda span: span.start)]


def _filled(spans: list[Span], more: Iterable[Span]) -> list[Span]:
    """Spans with others put into the gaps between them, without slivers of padding."""
    added = [
        span._replace(start=start, end=end)
        for span in more
        for start, end in _gaps(spans, span.start, span.end)
        if end - start > ALIGNMENT or not _within(spans, span.start, span.end)
    ]
    return sorted([*spans, *added])


def _gaps(spans: Sequence[Span], start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a range that no span covers."""
    for span in _within(spans, start, end):
        if span.start > start:
            yield start, span.start
        start = max(start, span.end)
    if start < end:
        yield start, end
