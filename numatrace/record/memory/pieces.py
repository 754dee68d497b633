"""Cut the mappings of a process into the pieces whose placement is told: tensors, else mappings."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numatrace.record.memory.maps import Mapping as MemoryMapping
    from numatrace.record.tensors.gguf_table import GgufTable, Tensor

MAX_PIECES = 200_000
"""A file of many tensors mapped many times could ask for any number: see `cut`."""

KERNEL_PAGES = ("[vvar", "[vsyscall]")
"""Mappings of the kernel's own pages, which no process owns: [vvar], [vvar_vclock], [vsyscall]."""


class Piece(NamedTuple):
    """A part of a mapping: `addr`, `bytes`, and `offset` in the file, all in bytes.

    `name` is the tensor's, None for a whole mapping and for a file's header and padding.
    `no_access`: nothing may touch it (`---p`): address space that is set aside, rarely memory.
    """

    addr: int
    bytes: int
    offset: int
    inode: int
    path: str
    name: str | None
    no_access: bool = False


class TensorIndex:
    """The tensors of a file that have bytes, in order of offset, none over another."""

    def __init__(self, table: GgufTable) -> None:
        self.tensors: list[Tensor] = []
        end = 0
        for tensor in sorted(table.tensors, key=lambda tensor: (tensor.offset, tensor.bytes)):
            if tensor.bytes > 0 and tensor.offset >= end:
                self.tensors.append(tensor)
                end = tensor.offset + tensor.bytes
        self.starts = [tensor.offset for tensor in self.tensors]
        self.ends = [tensor.offset + tensor.bytes for tensor in self.tensors]

    def within(self, start: int, end: int, most: int) -> list[Tensor]:
        """The tensors that have bytes in [start, end) of the file; none if more than `most`."""
        first, stop = bisect_right(self.ends, start), bisect_left(self.starts, end)
        return self.tensors[first:stop] if stop - first <= most else []


def _spans(
    tensors: Iterable[Tensor], start: int, end: int
) -> Iterator[tuple[int, int, str | None]]:
    """[start, end) of a file as (from, to, tensor or None), with no gap and no overlap."""
    at = start
    for tensor in tensors:
        if tensor.offset > at:
            yield at, tensor.offset, None
        stop = min(tensor.offset + tensor.bytes, end)
        yield max(at, tensor.offset), stop, tensor.name
        at = stop
    if at < end:
        yield at, end, None


def _cut_one(mapping: MemoryMapping, tensors: list[Tensor]) -> Iterator[Piece]:
    """The pieces of one mapping: they cover it to the byte."""
    no_access = mapping.perms[:3] == "---"
    first, size = mapping.offset, mapping.bytes
    for start, end, name in _spans(tensors, first, first + size):
        yield Piece(
            addr=mapping.start + start - first,
            bytes=end - start,
            offset=start,
            inode=mapping.inode,
            path=mapping.path,
            name=name,
            no_access=no_access,
        )


def cut(
    mappings: Iterable[MemoryMapping],
    tables: Mapping[tuple[int, int], GgufTable],
    limit: int = MAX_PIECES,
) -> list[Piece]:
    """The pieces of a process, in order of address; those of a mapping partition it to the byte.

    `tables`: GGUF tables by the (dev, inode) that the mappings show. A mapping of such a file is
    cut where tensors begin and end; any other stays whole, and so does one whose tensors would
    bring the number of pieces above `limit`. The kernel's own pages are left out.
    """
    pieces: list[Piece] = []
    indexes: dict[tuple[int, int], TensorIndex] = {}
    for mapping in mappings:
        if mapping.path.startswith(KERNEL_PAGES):
            continue
        key = (mapping.dev, mapping.inode)
        tensors: list[Tensor] = []
        if mapping.inode and key in tables:
            if key not in indexes:
                indexes[key] = TensorIndex(tables[key])
            # A tensor brings at most itself and the padding before it; one more ends the mapping.
            most = (limit - len(pieces) - 1) // 2
            tensors = indexes[key].within(mapping.offset, mapping.offset + mapping.bytes, most)
        pieces.extend(_cut_one(mapping, tensors))
    return pieces
