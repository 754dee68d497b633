"""Looks at the pages of one process: a part of them tells whether all have to be looked at."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING

import pytest

from numatrace.record.memory import pages as module
from numatrace.record.memory.pages import PARTS, Pages
from numatrace.record.memory.pieces import Piece

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.record.memory.placement import U64

COUNT = 1024
BYTES = COUNT * mmap.PAGESIZE


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as made:
        made.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, BYTES, mmap.PAGESIZE):
            made[at] = 1
        yield made


def piece(memory: mmap.mmap) -> Piece:
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return Piece(address, BYTES, 0, 7, "/model", None)


def test_unchanged_memory_is_told_once_and_seen_not_to_move(memory: mmap.mmap) -> None:
    pages, pieces = Pages(os.getpid()), [piece(memory)]
    assert pages.moved(pieces)  # nothing is known yet
    assert sum(row.node_bytes for row in pages.look(pieces)) == BYTES
    assert not any(pages.moved(pieces) for _ in range(2 * PARTS))
    assert pages.look(pieces) == []


@pytest.mark.parametrize("page", [0, 5, COUNT - 1])
def test_one_page_that_changed_is_seen_within_a_round(memory: mmap.mmap, page: int) -> None:
    pages, pieces = Pages(os.getpid()), [piece(memory)]
    pages.look(pieces)
    memory.madvise(mmap.MADV_DONTNEED, page * mmap.PAGESIZE, mmap.PAGESIZE)
    assert sum(pages.moved(pieces) for _ in range(PARTS)) == 1
    rows = {row.mem_node: row.node_bytes for row in pages.look(pieces)}
    assert rows == {-1: mmap.PAGESIZE, 0: BYTES - mmap.PAGESIZE}
    assert not any(pages.moved(pieces) for _ in range(PARTS))


def test_other_pieces_call_for_a_look(memory: mmap.mmap) -> None:
    whole = piece(memory)
    pages = Pages(os.getpid())
    pages.look([whole])
    half = BYTES // 2
    cut = [whole._replace(bytes=half), whole._replace(addr=whole.addr + half, bytes=half)]
    assert pages.moved(cut)
    assert len(pages.look(cut)) == 2


def test_what_is_to_be_told_again_is(memory: mmap.mmap) -> None:
    pages, pieces = Pages(os.getpid()), [piece(memory)]
    first = pages.look(pieces)
    pages.tell_again(pieces[0].inode)
    assert pages.look(pieces) == first


def test_a_look_at_a_part_asks_for_a_part(
    memory: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages, pieces = Pages(os.getpid()), [piece(memory)]
    pages.look(pieces)
    asked: list[U64] = []
    query = module.query_nodes
    monkeypatch.setattr(
        module, "query_nodes", lambda pid, addr: asked.append(addr) or query(pid, addr)
    )
    for _ in range(PARTS):
        pages.moved(pieces)
    assert {len(each) for each in asked} == {COUNT // PARTS}
    assert len({address for each in asked for address in each.tolist()}) == COUNT
