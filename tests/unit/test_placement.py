"""Placement: conservation, unbiased samples, and what this machine's kernel says of real memory."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numatrace.model.errors import CapabilityError, NumatraceError
from numatrace.model.events import EVENT
from numatrace.record.memory import placement
from numatrace.record.memory.maps import read_maps
from numatrace.record.memory.pages import Pages
from numatrace.record.memory.pieces import Piece, cut
from numatrace.record.memory.placement import (
    BUDGET_PAGES,
    PIECE_FLOOR_PAGES,
    PagePlan,
    PlaceRow,
    ProcessGoneError,
    changed,
    plan_pages,
    query_nodes,
    tally,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNHURRIED = settings(deadline=None)
PAGE = 4096
KERNEL_KNOWN = platform.machine() in placement.MOVE_PAGES


def piece(addr: int, size: int, name: str | None = None, inode: int = 0) -> Piece:
    return Piece(addr, size, 0, inode, "", name)


@st.composite
def piece_lists(draw: st.DrawFn) -> list[Piece]:
    pieces, at = [], draw(st.integers(0, 1 << 46))
    for gap, size, reserved in draw(
        st.lists(
            st.tuples(st.integers(0, 9000), st.integers(1, 1 << 24), st.booleans()), max_size=8
        )
    ):
        pieces.append(Piece(at + gap, size, 0, 0, "", None, no_access=reserved))
        at += gap + size
    return pieces


@UNHURRIED
@given(piece_lists(), st.integers(1, 2000))
def test_pages_lie_in_their_piece_and_weights_are_its_bytes(
    pieces: list[Piece], budget: int
) -> None:
    plan = plan_pages(pieces, budget, PAGE)
    assert (plan.address % np.uint64(PAGE) == 0).all()
    assert len(np.unique(np.stack([plan.piece.astype(np.uint64), plan.address]), axis=1).T) == len(
        plan.address
    )
    for index, each in enumerate(pieces):
        address = plan.address[plan.piece == index].astype(np.int64)
        assert len(address) >= 1
        assert (address + PAGE > each.addr).all()
        assert (address < each.addr + each.bytes).all()
        pages = (each.addr + each.bytes - 1) // PAGE - each.addr // PAGE + 1
        assert plan.piece_pages[index] == pages
        weight = plan.weight[plan.piece == index]
        assert (weight > 0).all()
        if len(address) == pages:
            overlap = np.minimum(address + PAGE, each.addr + each.bytes) - np.maximum(
                address, each.addr
            )
            assert weight.sum() >= each.bytes
            if (weight == overlap).all():
                assert weight.sum() == each.bytes
    every = sum(plan.piece_pages.tolist())
    assert len(plan.address) <= max(budget, PIECE_FLOOR_PAGES * len(pieces))
    if every <= budget:
        assert len(plan.address) == every


@UNHURRIED
@given(piece_lists(), st.integers(1, 3000), st.integers(0, 2**32 - 1))
def test_node_bytes_sum_to_the_piece(pieces: list[Piece], budget: int, seed: int) -> None:
    plan = plan_pages(pieces, budget, PAGE)
    random = np.random.default_rng(seed)
    nodes = random.choice(np.array([0, 1, 5, -2, -14, -5], np.int32), len(plan.address))
    rows = tally(pieces, plan, nodes)
    for index, each in enumerate(pieces):
        mine = [row for row in rows if row.addr == each.addr]
        told = nodes[plan.piece == index]
        assert sum(row.node_bytes for row in mine) == each.bytes
        assert [row.mem_node for row in mine] == sorted({max(int(node), -1) for node in told})
        for row in mine:
            here = (told < 0) if row.mem_node < 0 else (told == row.mem_node)
            assert row.pages == here.sum() > 0
            assert (row.sampled_pages, row.bytes) == (len(told), each.bytes)
            assert row.sampled_pages <= row.piece_pages == plan.piece_pages[index]


@UNHURRIED
@given(st.integers(0, 9000), st.integers(1, 200_000), st.integers(0, 2**32 - 1))
def test_a_census_is_exact_to_the_byte(addr: int, size: int, seed: int) -> None:
    pieces = [piece(addr, size)]
    plan = plan_pages(pieces, BUDGET_PAGES, PAGE)
    nodes = np.random.default_rng(seed).integers(-1, 3, len(plan.address), np.int32)
    expected = {}
    for page, node in zip(plan.address.tolist(), nodes.tolist(), strict=True):
        overlap = min(page + PAGE, addr + size) - max(page, addr)
        expected[node] = expected.get(node, 0) + overlap
    rows = tally(pieces, plan, nodes)
    assert {row.mem_node: row.node_bytes for row in rows} == expected
    assert all(row.sampled_pages == row.piece_pages for row in rows)


@UNHURRIED
@given(st.integers(0, 10**15), st.lists(st.integers(1, 10**15), min_size=1, max_size=9))
def test_rounding_conserves_and_stays_within_one(total: int, weights: list[int]) -> None:
    shares = placement._round_to(total, weights)
    assert sum(shares) == total
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share * sum(weights) - total * weight) < sum(weights)


def interleaved(nodes: int, run: int) -> Callable[[np.ndarray, int], np.ndarray]:
    return lambda page, pages: page // run % nodes


def halves(page: np.ndarray, pages: int) -> np.ndarray:
    return (page >= pages // 2).astype(np.int64)


def quarter_absent(page: np.ndarray, pages: int) -> np.ndarray:
    return np.where(page < pages // 4, -2, page % 2)


def scattered(run: int) -> Callable[[np.ndarray, int], np.ndarray]:
    def node(page: np.ndarray, pages: int) -> np.ndarray:
        return np.random.default_rng(42).integers(0, 2, pages // run + 1)[page // run]

    return node


PATTERNS = {
    **{f"interleave {nodes} × {run}": interleaved(nodes, run)
       for nodes in (2, 3, 4, 8) for run in (1, 2, 4, 16, 512)},
    "halves": halves,
    "a quarter absent": quarter_absent,
    "scattered": scattered(1),
    "scattered by 16": scattered(16),
    "scattered by huge page": scattered(512),
}  # fmt: skip


def plan_of(plan: PagePlan, piece: int) -> PagePlan:
    mine = plan.piece == piece
    return PagePlan(plan.address[mine], plan.piece[mine], plan.weight[mine], plan.piece_pages)


def shares(rows: list[PlaceRow]) -> dict[int, float]:
    return {row.mem_node: row.node_bytes / row.bytes for row in rows}


@pytest.mark.parametrize(
    ("pattern", "gib"),
    # The truth of a scattered pattern takes all its pages.
    [
        (name, gib)
        for name in PATTERNS
        for gib in (1, 40, 700)
        if gib == 1 or "scattered" not in name
    ],
)
def test_a_sample_is_within_a_point_of_the_truth(pattern: str, gib: int) -> None:
    place, pages = PATTERNS[pattern], gib << 18
    truth = np.bincount(np.maximum(place(np.arange(1 << 18), 1 << 18), -1) + 1) / (1 << 18)
    pieces = [piece(0x7F00_0000_0000 + 3 * PAGE * gib, pages * PAGE)]
    plan = plan_pages(pieces)
    assert BUDGET_PAGES // 4 <= len(plan.address) <= BUDGET_PAGES
    page = (plan.address - np.uint64(pieces[0].addr)).astype(np.int64) // PAGE
    found = shares(tally(pieces, plan, place(page, pages).astype(np.int32)))
    for node, share in enumerate(truth.tolist(), -1):
        assert found.get(node, 0.0) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("mib", [17, 24, 31, 33, 63])
def test_interleaved_memory_of_any_size_is_within_a_point(mib: int) -> None:
    """Beside mappings that take the budget; wherever the mapping lies."""
    pages = mib << 8
    for at in range(40):
        mine = piece(0x7F00_0000_0000 + (at << 33) + at * PAGE, pages * PAGE)
        plan = plan_pages([mine, piece(1 << 40, 300 << 20)])
        address = plan.address[plan.piece == 0]
        page = (address - np.uint64(mine.addr)).astype(np.int64) // PAGE
        found = shares(tally([mine], plan_of(plan, 0), (page % 2).astype(np.int32)))
        assert found[0] == pytest.approx(0.5, abs=0.01), at


def test_a_sample_is_unbiased_at_every_page() -> None:
    """Over many addresses, each page of a piece is worth its own bytes."""
    pages, pieces_count = 50, 4000
    size = pages * PAGE - 1000
    total = np.zeros(pages)
    for start in range(0, pieces_count, 500):
        pieces = [piece((1 << 30) * (1 + start + at), size) for at in range(500)]
        plan = plan_pages(pieces, 500 * 10, PAGE)
        assert 500 * 4 <= len(plan.address) <= 500 * 10
        page = (plan.address % np.uint64(1 << 30)).astype(np.int64) // PAGE
        total += np.bincount(page, plan.weight, pages)
    mean = total / pieces_count / PAGE
    # A page is drawn with a chance of 1/7 or so: the mean of 4,000 scatters by 4 %.
    assert mean[:-1] == pytest.approx(np.ones(pages - 1), abs=0.2)
    assert mean[-1] == pytest.approx(1 - 1000 / PAGE, abs=0.2)
    assert mean.sum() * PAGE == pytest.approx(size, rel=0.01)


def test_what_comes_elsewhere_leaves_a_sample_as_it_was() -> None:
    big = [piece(1 << 40, 40 << 30)]
    alone = plan_pages(big)
    joined = plan_pages([*big, *(piece((1 << 44) + (at << 20), 70_000) for at in range(100))])
    assert (joined.address[joined.piece == 0] == alone.address).all()
    assert (plan_pages(big).address == alone.address).all()


def test_large_mappings_leave_small_ones_their_share() -> None:
    """A reservation of 20 TB and a model of 400 GB beside a heap of 16 MiB and 2,000 tensors."""
    tensors = [
        Piece((1 << 45) + at * 200_000_000, 200_000_000, at * 200_000_000, 5, "/m", f"t{at}")
        for at in range(2000)
    ]
    heap = piece(1 << 40, 16 << 20)
    pieces = [Piece(1 << 46, 20 << 40, 0, 0, "", None, no_access=True), heap, *tensors]
    looked = np.bincount(plan_pages(pieces).piece)
    assert looked.sum() <= BUDGET_PAGES
    assert looked[0] <= 64
    assert looked[1] == 4096
    assert looked[2:].min() >= 16


def test_no_pieces_and_more_pieces_than_budget() -> None:
    assert len(plan_pages([]).address) == 0
    assert tally([], plan_pages([]), np.zeros(0, np.int32)) == []
    many = plan_pages([piece(at << 20, PAGE * 9) for at in range(50_000)], 1000)
    assert (np.bincount(many.piece) == PIECE_FLOOR_PAGES).all()


def test_planning_and_counting_cost_little() -> None:
    pieces = [Piece(at * 40_000_000, 40_000_000, at * 40_000_000, 5, "", "t") for at in range(1000)]
    costs = []
    for _ in range(3):
        started = time.process_time()
        plan = plan_pages(pieces)
        tally(pieces, plan, (plan.address >> np.uint64(12)).astype(np.int32) & 1)
        costs.append(time.process_time() - started)
    assert min(costs) < 0.1  # some 0.03 s for 56,000 pages


ROW = PlaceRow(4096, 8192, 0, 8192, 2, 2, 2, 0, 0, None, None)


def test_rows_are_the_place_kind() -> None:
    assert ("t_ns", "tgid", *PlaceRow._fields) == EVENT["place"].columns


def test_changed_keeps_all_rows_of_what_changed() -> None:
    half = [ROW._replace(mem_node=0, node_bytes=4096, pages=1), ROW._replace(
        mem_node=1, node_bytes=4096, pages=1)]  # fmt: skip
    other = ROW._replace(addr=1 << 20)
    assert changed([], [ROW, other]) == [ROW, other]
    assert changed([ROW, other], [ROW, other]) == []
    assert changed([ROW, other], [*half, other]) == half
    assert changed([*half, other], [ROW, other]) == [ROW]
    assert changed([ROW, other], [ROW._replace(name="blk.0"), other]) == [
        ROW._replace(name="blk.0")
    ]
    assert changed([ROW, other], [other]) == []


# --- this machine's kernel


needs_query = pytest.mark.skipif(not KERNEL_KNOWN, reason="move_pages(2) has no number here")


@pytest.fixture
def region() -> Iterator[tuple[mmap.mmap, int]]:
    """1,024 pages of private memory of small pages, and their address."""
    memory = mmap.mmap(-1, 1024 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    yield memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


def pages_at(address: int, pages: int = 1024) -> np.ndarray:
    return address + np.arange(pages, dtype=np.uint64) * np.uint64(PAGE)


@needs_query
def test_written_read_and_untouched_memory(region: tuple[mmap.mmap, int]) -> None:
    memory, address = region
    for page in range(256):
        memory[page * PAGE] = 1
    for page in range(256, 512):
        assert memory[page * PAGE] == 0
    told = query_nodes(os.getpid(), pages_at(address), batch=100)
    assert (told[:256] >= 0).all()
    assert (told[256:512] == -errno.EFAULT).all()  # the shared zero page
    assert (told[512:] == -errno.ENOENT).all()
    assert query_nodes(os.getpid(), np.array([4096], np.uint64)).tolist() == [-errno.EFAULT]
    rows = Pages(os.getpid()).look([piece(address, 1024 * PAGE)])
    assert sum(row.node_bytes for row in rows if row.mem_node >= 0) == 256 * PAGE
    assert next(row for row in rows if row.mem_node == -1).pages == 768


def numa_maps(pid: int) -> dict[int, dict[int, int]]:
    """Pages per node of each mapping, as the kernel counts them."""
    found = {}
    for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines():
        nodes = {int(node): int(pages) for node, pages in re.findall(r" N(\d+)=(\d+)", line)}
        found[int(line.split()[0], 16)] = nodes
    return found


@needs_query
@pytest.mark.skipif(not Path("/proc/self/numa_maps").exists(), reason="no numa_maps here")
def test_every_mapping_agrees_with_numa_maps() -> None:
    """Of a process that does nothing meanwhile; numa_maps counts small pages as we do."""
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import json, sys; x = bytearray(30 << 20); print(flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        mappings = read_maps(child.pid)
        assert mappings
        rows = Pages(child.pid).look(cut(mappings, {}))
        truth = numa_maps(child.pid)
    finally:
        child.communicate(b"\n")
    compared = 0
    for mapping in mappings:
        mine = {
            row.mem_node: row.pages
            for row in rows
            if row.addr == mapping.start and row.mem_node >= 0
        }
        assert all(row.sampled_pages == row.piece_pages for row in rows)
        if mapping.path not in ("[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]"):
            assert mine == truth.get(mapping.start, {}), mapping
            compared += sum(mine.values())
    assert compared > 30 << 8


@needs_query
def test_who_is_gone_is_told() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProcessGoneError, match=f"process {child.pid} "):  # a zombie
        query_nodes(child.pid, pages_at(4096, 1))
    child.wait()
    with pytest.raises(ProcessGoneError, match="ESRCH"):
        query_nodes(child.pid, pages_at(4096, 1))
    with pytest.raises(ValueError, match="pid 0"):
        query_nodes(0, pages_at(4096, 1))


@needs_query
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become someone else")
def test_who_may_not_ask_is_told() -> None:
    setresuid = {"x86_64": 117, "aarch64": 147, "riscv64": 147}.get(platform.machine())
    if setresuid is None:
        pytest.skip("setresuid(2) has no number here")
    libc = ctypes.CDLL(None)
    # The bare system call changes this thread alone, and so for as long as we need.
    assert libc.syscall(setresuid, -1, 65534, -1) == 0
    try:
        assert libc.syscall(setresuid, 65534, -1, -1) in (0, -1)
        with pytest.raises(CapabilityError, match="EPERM") as caught:
            query_nodes(1, pages_at(4096, 1))
    finally:
        assert libc.syscall(setresuid, 0, 0, 0) == 0
    assert "sudo" in caught.value.todo


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ESRCH, ProcessGoneError),
        (errno.EACCES, CapabilityError),
        (errno.ENOSYS, CapabilityError),
        (errno.ENOMEM, NumatraceError),
    ],
)
def test_every_failure_has_its_words(code: int, kind: type[NumatraceError]) -> None:
    with pytest.raises(kind) as caught:
        placement._raise(5, code)
    assert type(caught.value) is kind
    assert errno.errorcode[code] in caught.value.why


def test_an_unknown_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement.platform, "machine", lambda: "vax")
    placement._syscall.cache_clear()
    try:
        with pytest.raises(CapabilityError, match="vax"):
            query_nodes(1, pages_at(4096, 1))
    finally:
        placement._syscall.cache_clear()
