"""Ask the kernel on which NUMA node a process's pages lie: all of a piece, or a sample of them."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from numatrace.model.errors import CapabilityError, NumatraceError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from numatrace.record.memory.pieces import Piece

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
"""The unit of every query; a huge page answers for each base page in it."""

BATCH_PAGES = 16_384
"""Pages per system call, some 4 ms: between calls Python handles signals."""

BUDGET_PAGES = 65_536
"""Pages looked at per process and snapshot, some 20 ms however large the process."""

FLOOR_PAGES = 4096
"""A mapping below 32 MiB is looked at whole, a larger one with no fewer pages than 16 MiB have: at
most 0.8 points of standard error if its pages are scattered at random. Halved for many mappings."""

PIECE_FLOOR_PAGES = 4
"""So many pages are looked at of every piece that has them."""

NO_ACCESS_PAGES = 64
"""Address space set aside may be a thousand times the memory; it must not eat the budget."""

RESIDUES = 16
"""Strata take turns in the page number modulo this: see `_draw`."""

MAX_NODES = 1 << 10
"""Most nodes a kernel can have (CONFIG_NODES_SHIFT is at most 10)."""

MOVE_PAGES = {
    "x86_64": 279,
    "aarch64": 239,
    "riscv64": 239,
    "loongarch64": 239,
    "ppc64le": 301,
    "s390x": 310,
}
"""Number of move_pages(2) by machine: arch/*/entry/syscalls/*.tbl and asm-generic/unistd.h."""

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]


class ProcessGoneError(NumatraceError):
    """The process ended, or has no memory any more."""


class PlaceRow(NamedTuple):
    """A row of kind `place` but `t_ns` and `tgid`. `mem_node` -1: pages that are not present."""

    addr: int
    bytes: int
    mem_node: int
    node_bytes: int
    pages: int
    sampled_pages: int
    piece_pages: int
    offset: int
    inode: int
    path: str | None
    name: str | None


@dataclass(frozen=True, slots=True)
class PagePlan:
    """The pages to look at: parallel arrays, one entry per page, in order of piece and address.

    `address` of the page; `piece`, index of the piece that it belongs to; `weight`, bytes of that
    piece that it stands for. `piece_pages`: pages that each piece has, one entry per piece.
    """

    address: U64
    piece: I64
    weight: I64
    piece_pages: I64


def _mix(value: U64) -> U64:
    """Scatter integers over all 64 bits (the finalizer of splitmix64, Steele et al. 2014)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _mapping_of(pieces: Sequence[Piece]) -> I64:
    """A number for each piece that is the same for the pieces of one mapping of a file."""
    starts_anew = np.ones(len(pieces), np.int64)
    for index in range(1, len(pieces)):
        before, piece = pieces[index - 1], pieces[index]
        starts_anew[index] = not (
            piece.inode
            and piece.inode == before.inode
            and piece.addr == before.addr + before.bytes
            and piece.offset == before.offset + before.bytes
        )
    return np.cumsum(starts_anew) - 1


def _halved(size: I64, floor: int, shift: int = 63) -> I64:
    """Sizes in pages, halved at most `shift` times each, but not to below `floor` pages."""
    halvings = np.log2(np.maximum(size / floor, 1)).astype(np.int64)
    return size >> np.minimum(halvings, shift)


def _share_budget(pieces: Sequence[Piece], pages: I64, budget: int) -> I64:
    """Pages to look at of each piece: all, or by size with a floor per mapping and per piece.

    Rates are powers of two. So a mapping that comes or grows elsewhere rarely changes which pages
    are looked at here: unchanged memory is to give unchanged counts. And each stratum has as many
    pages, or nearly: with one page in some and two in others, pages that alternate between two
    nodes would be drawn as coins are tossed, where one of each two is exact (see `_draw`).
    """
    if pages.sum() <= budget:
        return pages
    mapping = _mapping_of(pieces)
    reserved = np.fromiter((piece.no_access for piece in pieces), bool, len(pieces))
    size = np.bincount(mapping, pages).astype(np.int64)
    most = np.where(np.bincount(mapping, reserved) > 0, np.minimum(size, NO_ACCESS_PAGES), size)
    floor = FLOOR_PAGES
    while floor > 1 and np.minimum(most, _halved(size, floor)).sum() > budget * 3 // 4:
        floor //= 2
    at_least = np.minimum(pages, PIECE_FLOOR_PAGES)
    for shift in range(64):
        wanted = np.minimum(most, _halved(size, floor, shift))
        # As floats: pages × wanted may pass 2^63, and a page more or less is nothing.
        rate: npt.NDArray[np.float64] = (wanted / size)[mapping]
        share: I64 = (pages * rate).astype(np.int64).clip(at_least, pages)
        if share.sum() <= budget or not (size >> shift).any():
            break
    return share


def plan_pages(
    pieces: Sequence[Piece], budget: int = BUDGET_PAGES, page_bytes: int = PAGE_BYTES
) -> PagePlan:
    """Choose the pages to look at: all if no more than `budget`, else a stratified random sample.

    A piece is divided into strata of nearly equal size, and one page is drawn from each. A page's
    weight is its bytes in the piece divided by its chance to be drawn (Horvitz and Thompson 1952):
    so sums of weights are unbiased, and exact in a census, where each stratum is one page.
    The draw depends on nothing but the piece's address and size and the size of the sample.
    More than `budget` pages are looked at where there are more than `budget` / 4 pieces.
    """
    addr = np.fromiter((piece.addr for piece in pieces), np.uint64, len(pieces))
    size = np.fromiter((piece.bytes for piece in pieces), np.uint64, len(pieces))
    unit = np.uint64(page_bytes)
    first_page = addr // unit
    piece_pages = ((addr + size - np.uint64(1)) // unit - first_page).astype(np.int64) + 1
    share = _share_budget(pieces, piece_pages, budget)

    piece = np.repeat(np.arange(len(pieces)), share)
    stratum = np.arange(len(piece)) - np.repeat(np.cumsum(share) - share, share)
    page, inverse_chance = _draw(addr[piece], stratum, share[piece], piece_pages[piece])

    address = (first_page[piece] + page.astype(np.uint64)) * unit
    begin = np.maximum(address, addr[piece])
    end = np.minimum(address + unit, addr[piece] + size[piece])
    return PagePlan(address, piece, inverse_chance * (end - begin).astype(np.int64), piece_pages)


def _draw(seed: U64, stratum: I64, strata: I64, pages: I64) -> tuple[I64, I64]:
    """A page of each stratum (number `stratum` of the `strata` of `pages`), and 1 / its chance.

    Random, because a fixed stride would alias with interleaved pages: every n-th may lie on the
    same node. But within each 16 strata, the page numbers modulo 16 take turns, from a random start
    (random each time, or the turns would alias with runs of pages): so memory interleaved page
    by page over 2, 4, 8 or 16 nodes comes out exact.
    """
    # stratum × pages // strata, in parts: the product itself can pass 2^63.
    whole, rest = pages // strata, pages % strata
    begin = stratum * whole + stratum * rest // strata
    end = (stratum + 1) * whole + (stratum + 1) * rest // strata
    # The largest power of two that every stratum of the piece has a page for.
    turns = np.int64(1) << np.log2(np.minimum(whole, RESIDUES)).astype(np.int64)
    start = _mix(seed)
    turn_start = _mix(~start + (stratum // turns).astype(np.uint64)) >> np.uint64(32)
    residue = (turn_start.astype(np.int64) + stratum) % turns
    first = begin + (residue - begin) % turns
    choices = -(-(end - first) // turns)
    random = _mix(start + stratum.astype(np.uint64)) % choices.astype(np.uint64)
    return first + turns * random.astype(np.int64), turns * choices


@cache
def _syscall() -> tuple[int, ctypes._NamedFuncPointer]:
    """Number of move_pages(2) and the C library's `syscall`. Raises CapabilityError."""
    number = MOVE_PAGES.get(platform.machine())
    if number is None or sys.maxsize < 1 << 32:
        raise CapabilityError(
            "cannot ask where memory lies",
            f"the number of move_pages(2) on {platform.machine()} is not known here",
            "add it to MOVE_PAGES in numatrace/record/memory/placement.py",
        )
    function = ctypes.CDLL(None, use_errno=True).syscall
    pointer = ctypes.c_void_p
    integer = ctypes.c_long
    function.argtypes = [integer, integer, ctypes.c_ulong, pointer, pointer, pointer, integer]
    function.restype = ctypes.c_long
    return number, function


def _raise(pid: int, code: int) -> None:
    """The error that a failed move_pages(2) means."""
    what = f"cannot ask where the memory of process {pid} lies"
    why = f"move_pages(2): {errno.errorcode.get(code, code)}, {os.strerror(code)}"
    if code in (errno.ESRCH, errno.EINVAL):  # EINVAL: a zombie or a kernel thread, without memory
        raise ProcessGoneError(what, why, "check that the process still runs")
    if code in (errno.EPERM, errno.EACCES):
        todo = "record as root (sudo); a container needs CAP_SYS_PTRACE and CAP_SYS_NICE"
        raise CapabilityError(what, why, todo)
    if code == errno.ENOSYS:
        raise CapabilityError(what, why, "use a kernel with CONFIG_NUMA and CONFIG_MIGRATION")
    raise NumatraceError(what, why, "record again; if it stays, report it with this message")


def query_nodes(pid: int, addresses: U64, batch: int = BATCH_PAGES) -> I32:
    """Node of the page at each address in a process, or a negative errno.

    -ENOENT: no page present in this process's page table, even if the file's page is in the page
    cache or other processes map it; -EFAULT: the shared zero page, or nothing mapped. Moves
    nothing: move_pages(2) without nodes only tells. Raises ProcessGoneError and CapabilityError.
    """
    if pid <= 0:
        raise ValueError(f"pid {pid}: not a process")
    number, function = _syscall()
    addresses = np.ascontiguousarray(addresses, np.uint64)
    status = np.full(len(addresses), -errno.ENOENT, np.int32)
    for start in range(0, len(addresses), batch):
        asked, told = addresses[start : start + batch], status[start : start + batch]
        if function(number, pid, len(asked), asked.ctypes.data, None, told.ctypes.data, 0) < 0:
            _raise(pid, ctypes.get_errno())
    return status


def _round_to(total: int, weights: Sequence[int]) -> list[int]:
    """Whole numbers in the proportion of the weights whose sum is `total` (largest remainders)."""
    whole = sum(weights)
    shares = [divmod(total * weight, whole) for weight in weights]
    missing = total - sum(share for share, _ in shares)
    order = sorted(range(len(shares)), key=lambda index: -shares[index][1])
    up = set(order[:missing])
    return [share + (index in up) for index, (share, _) in enumerate(shares)]


def tally(pieces: Sequence[Piece], plan: PagePlan, nodes: I32) -> list[PlaceRow]:
    """The `place` rows of the pieces, given what `query_nodes` said of the plan's pages.

    `node_bytes` of a piece sum to its `bytes`: exact in a census, else in the proportion of the
    weights. Any negative status counts as not present.
    """
    node = np.where((nodes < 0) | (nodes >= MAX_NODES), -1, nodes).astype(np.int64)
    width = int(node.max(initial=-1)) + 2
    key = plan.piece * width + node + 1
    present, inverse, pages = np.unique(key, return_inverse=True, return_counts=True)
    # Sums of bytes in a float are exact up to 2^53: more than a process can address.
    weights = np.bincount(inverse, plan.weight, len(present)).astype(np.int64)
    found: defaultdict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for where, count, weight in zip(
        present.tolist(), pages.tolist(), weights.tolist(), strict=True
    ):
        found[where // width].append((where % width - 1, count, weight))
    piece_pages = plan.piece_pages.tolist()
    return [
        row for index, on in found.items() for row in _rows(pieces[index], piece_pages[index], on)
    ]


def _rows(piece: Piece, piece_pages: int, on: list[tuple[int, int, int]]) -> list[PlaceRow]:
    """The rows of one piece from its (node, pages, weight)."""
    sampled = sum(pages for _, pages, _ in on)
    node_bytes = _round_to(piece.bytes, [weight for _, _, weight in on])
    return [
        PlaceRow(
            addr=piece.addr,
            bytes=piece.bytes,
            mem_node=node,
            node_bytes=estimate,
            pages=pages,
            sampled_pages=sampled,
            piece_pages=piece_pages,
            offset=piece.offset,
            inode=piece.inode,
            path=piece.path or None,
            name=piece.name,
        )
        for (node, pages, _), estimate in zip(on, node_bytes, strict=True)
    ]


def _by_piece(rows: Iterable[PlaceRow]) -> dict[Hashable, list[PlaceRow]]:
    pieces: defaultdict[Hashable, list[PlaceRow]] = defaultdict(list)
    for row in rows:
        pieces[row.addr, row.bytes, row.offset, row.inode, row.path, row.name].append(row)
    return pieces


def changed(previous: Iterable[PlaceRow], current: Iterable[PlaceRow]) -> list[PlaceRow]:
    """The rows of pieces that are new or not as they were: all of a piece's rows, or none.

    So the last rows of a piece that were written say all of it. What is gone is not told here.
    """
    before = _by_piece(previous)
    return [
        row for key, rows in _by_piece(current).items() if rows != before.get(key) for row in rows
    ]
