"""Find where each large block begins and ends that a process's malloc got from the kernel.

The kernel merges neighbouring anonymous mappings, so one mapping may be many blocks. glibc writes a
header before each (malloc/malloc.c): a chunk from mmap begins on a page with a word that is 0 and a
word with its size, whole pages, and the bit IS_MMAPPED. Where more than 16 bytes of alignment were
asked for (_int_memalign), a second header lies just before the block; its first word says how far
behind the first it is. Other allocators write no such thing: nothing is found, nothing is claimed.
Nor is a block below malloc's threshold, which lies in a heap: it is at most 32 MiB.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numatrace.record.memory.process_memory import ADDRESS_LIMIT, MAX_PIECES, read_pieces

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numatrace.record.memory.maps import Mapping as MemoryMapping
    from numatrace.trace.writer import TraceWriter

MIN_BYTES = 1 << 20
"""Blocks and mappings from this size on are told: the buffers of a model are far larger."""

MAX_MAPPINGS = 1024
"""Mappings of one process that are looked into at one snapshot, the largest first."""

MAX_READS = 8192
"""System calls of one snapshot of one process: each takes some 2 µs."""

MAX_SEARCHED_PAGES = 4096
"""Pages of one mapping that are searched for a chunk where none begins."""

DETAIL = "malloc chunk"

PAGE = mmap.PAGESIZE
HEADER = 16
IS_MMAPPED = 2
FLAGS = 7
MIN_LEAD = 32
"""MINSIZE: no header is nearer to the one before."""

ALIGNMENTS = tuple(1 << power for power in range(6, 22))
"""What blocks may be aligned to: 64 bytes (ggml_aligned_malloc) to 2 MiB (huge pages)."""

Array = np.ndarray[Any, Any]
_PAIR = np.dtype([("before", "<u8"), ("size", "<u8")])


class Block(NamedTuple):
    """What the allocator handed out: from `addr` to the end of its pages, in bytes."""

    addr: int
    bytes: int


class Chunk(NamedTuple):
    """What the allocator got from the kernel, [start, end), and the block in it."""

    start: int
    end: int
    block: Block


def leads(start: int) -> tuple[int, ...]:
    """How far behind a chunk's start its second header may lie, ascending, from 0 for none."""
    found = {0}
    for alignment in ALIGNMENTS:
        lead = -(start + HEADER) % alignment
        found.add(lead if lead >= MIN_LEAD else lead + alignment)
    return tuple(sorted(found))


def parse_chunk(heads: Mapping[int, tuple[int, int]], start: int, limit: int) -> Chunk | None:
    """Return the chunk at `start` in a mapping that ends at `limit`, or None where there is none.

    `heads`: the two words at 0 and at those of the `leads` of `start` that could be read, by how
    far behind `start` they lie.
    """
    before, word = heads.get(0, (0, 0))
    size = word & ~FLAGS
    if before or word & FLAGS != IS_MMAPPED or size % PAGE or not 0 < size <= limit - start:
        return None
    seconds = [
        lead
        for lead, head in sorted(heads.items())
        if lead and head == (lead, (size - lead) | IS_MMAPPED)
    ]
    behind = (seconds[0] if seconds else 0) + HEADER
    return Chunk(start, start + size, Block(start + behind, size - behind))


class Walk:
    """One walk through the private mappings of a process, of bounded length."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.reads = 0

    def blocks(self, mappings: Iterable[MemoryMapping]) -> list[Block]:
        """Return the large blocks in the largest private mappings."""
        private = [mapping for mapping in mappings if is_private(mapping)]
        private.sort(key=lambda mapping: (-mapping.bytes, mapping.start))
        return [
            chunk.block
            for mapping in private[:MAX_MAPPINGS]
            for chunk in self.chunks(mapping)
            if chunk.block.bytes >= MIN_BYTES
        ]

    def chunks(self, mapping: MemoryMapping) -> Iterator[Chunk]:
        """Yield the chunks in a mapping, one after the other.

        Where none begins, the next is searched for. One found so must have a second header, or end
        where another begins or the mapping ends: else it was something that only looked like one.
        """
        at, found = mapping.start, self._chunk(mapping.start, mapping.end)
        left = MAX_SEARCHED_PAGES
        while at < mapping.end:
            if found is None:
                found, searched = self._search(at, mapping.end, left)
                left -= searched
                if found is None:
                    return
            yield found
            at = found.end
            found = self._chunk(at, mapping.end)

    def _chunk(self, start: int, limit: int) -> Chunk | None:
        if start >= limit:
            return None
        heads = dict(zip([0], self._read([start]).tolist(), strict=False))
        chunk = parse_chunk(heads, start, limit)
        if chunk is None or chunk.end - start < MIN_BYTES:
            return chunk
        pages = (min(chunk.end, start + ALIGNMENTS[-1]) - start) // PAGE
        there = set(present_pages(self.pid, start, pages))
        behind = [lead for lead in leads(start) if lead and start + lead - lead % PAGE in there]
        words = self._read([start + lead for lead in behind]).tolist()
        return parse_chunk(heads | dict(zip(behind, words, strict=False)), start, limit)

    def _search(self, start: int, limit: int, most: int) -> tuple[Chunk | None, int]:
        """The first chunk behind `start`, and how many pages were looked at."""
        searched = 0
        while searched < most and start < limit:
            count = min(MAX_PIECES, most - searched, (limit - start) // PAGE)
            for page in self._candidates(present_pages(self.pid, start, count)):
                chunk = self._chunk(page, limit)
                if chunk is not None and self._is_confirmed(chunk, limit):
                    return chunk, searched + (page - start) // PAGE
            searched += count
            start += count * PAGE
        return None, searched

    def _candidates(self, pages: list[int]) -> list[int]:
        heads = self._read(pages)
        size = heads["size"]
        right = (heads["before"] == 0) & (size & FLAGS == IS_MMAPPED) & (size >= PAGE)
        return [pages[number] for number in np.flatnonzero(right)]

    def _is_confirmed(self, chunk: Chunk, limit: int) -> bool:
        has_second = chunk.block.addr - chunk.start > HEADER
        return has_second or chunk.end == limit or self._chunk(chunk.end, limit) is not None

    def _read(self, addrs: list[int]) -> Array:
        self.reads += 1
        if self.reads > MAX_READS or not addrs or addrs[-1] >= ADDRESS_LIMIT:
            return np.zeros(0, _PAIR)
        data = read_pieces(self.pid, addrs, HEADER)
        return np.frombuffer(data, _PAIR, len(data) // HEADER)


def is_private(mapping: MemoryMapping) -> bool:
    """Whether a mapping is large and may be malloc's: private, writable, with no file or name."""
    return not mapping.path and mapping.perms == "rw-p" and mapping.bytes >= MIN_BYTES


def present_pages(pid: int, start: int, count: int) -> list[int]:
    """Return the addresses of those of `count` pages that are in memory.

    Reading another one would bring it there. Documentation/admin-guide/mm/pagemap.rst: bit 63.
    """
    try:
        fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        data = os.pread(fd, 8 * count, start // PAGE * 8)
    except OSError:
        return []
    finally:
        os.close(fd)
    entries = np.frombuffer(data, "<u8", len(data) // 8)
    return [start + PAGE * number for number in np.flatnonzero(entries >> np.uint64(63)).tolist()]


class Buffers:
    """Writes `buffer` rows: blocks that are new or changed; those that are gone have 0 bytes."""

    def __init__(self, writer: TraceWriter) -> None:
        self.writer = writer
        self._written: dict[int, dict[int, int]] = {}

    def update(self, tgid: int, mappings: Iterable[MemoryMapping]) -> None:
        """Walk through a process whose mappings these are, and write what changed."""
        found = {block.addr: block.bytes for block in Walk(tgid).blocks(mappings)}
        before = self._written.get(tgid, {})
        news = {addr: size for addr, size in found.items() if before.get(addr) != size}
        news |= {addr: 0 for addr in before if addr not in found}
        self._written[tgid] = found
        now_ns = time.monotonic_ns()
        self.writer.add_rows(
            "buffer",
            [
                {"t_ns": now_ns, "tgid": tgid, "addr": addr, "bytes": size, "detail": DETAIL}
                for addr, size in sorted(news.items())
            ],
        )

    def forget(self, tgid: int) -> None:
        """A process ended: what was written of it stands."""
        self._written.pop(tgid, None)
