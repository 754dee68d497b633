"""Placement on real nodes: every region over 16 MB within one point of the kernel's numa_maps."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from numatrace.record.memory.maps import read_maps
from numatrace.record.memory.pages import Pages
from numatrace.record.memory.pieces import cut
from numatrace.record.memory.placement import BUDGET_PAGES, PlaceRow, changed

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES = len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))
pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(NODES < 2, reason=f"needs two NUMA nodes, has {NODES}"),
    pytest.mark.skipif(not Path("/proc/self/numa_maps").exists(), reason="needs numa_maps"),
]

BIG = 16 << 20

# Maps regions whose pages lie in ways that the name says, prints their addresses, and waits; on
# "move" it moves one of them. The policy is the task's, not the mapping's, so that a
# region stays one mapping however its pages lie.
HELPER = r"""
import ctypes, json, mmap, os, platform, random, sys

X86 = platform.machine() == "x86_64"
MBIND, SET_MEMPOLICY, MOVE_PAGES = (237, 238, 279) if X86 else (235, 237, 239)
BIND, INTERLEAVE, MOVE = 2, 3, 2
regions, guarded = {}, set()
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.syscall.argtypes = [ctypes.c_long] + [ctypes.c_void_p] * 6
MIB = 1 << 20

def call(number, *words):
    if libc.syscall(number, *words, *[0] * (6 - len(words))) < 0:
        raise OSError(ctypes.get_errno(), "system call %d" % number)

def policy(mode, *nodes):
    mask = ctypes.c_ulong(sum(1 << node for node in nodes))
    call(SET_MEMPOLICY, mode, ctypes.addressof(mask) if nodes else 0, 64 if nodes else 0)

def region(mib, huge=False, fd=-1):
    flags = mmap.MAP_SHARED if fd >= 0 else mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    if fd >= 0:
        return mmap.mmap(fd, mib * MIB, flags=flags)
    # The kernel merges neighbours: a last page that nobody may touch keeps regions apart.
    memory = mmap.mmap(-1, mib * MIB + 4096, flags=flags)
    if libc.mprotect(address(memory) + mib * MIB, 4096, 0):
        raise OSError(ctypes.get_errno(), "mprotect")
    guarded.add(address(memory))
    memory.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
    return memory

def size(memory):
    return len(memory) - 4096 * (address(memory) in guarded)

def touch(memory, start=0, end=None):
    for at in range(start, size(memory) if end is None else end, 4096):
        memory[at] = 1

def address(memory):
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))

policy(INTERLEAVE, 0, 1)
regions["interleaved"] = region(32)
touch(regions["interleaved"])
regions["interleaved huge"] = region(48, huge=True)
touch(regions["interleaved huge"])
policy(BIND, 1)
regions["bound"] = region(20)
touch(regions["bound"])
regions["a quarter untouched"] = region(24)
touch(regions["a quarter untouched"], 6 * MIB)
policy(BIND, 0)
regions["halves"] = region(40)
touch(regions["halves"], 0, 20 * MIB)
policy(BIND, 1)
touch(regions["halves"], 20 * MIB)

regions["sampled, patchy"] = region(360)
dice, at = random.Random(7), 0
while at < 360 * MIB:
    end = min(at + dice.randint(1, 64) * 4096, 360 * MIB)
    policy(BIND, int(dice.random() < 0.7))
    touch(regions["sampled, patchy"], at, end)
    at = end
policy(INTERLEAVE, 0, 1)
regions["sampled, interleaved"] = region(320)
touch(regions["sampled, interleaved"])

policy(BIND, 1)
with open(sys.argv[1], "wb") as file:
    file.write(os.urandom(MIB) * 12)
    file.flush()
    policy(INTERLEAVE, 0, 1)
    file.write(os.urandom(MIB) * 12)
with open(sys.argv[1], "r+b") as file:
    regions["file"] = region(24, fd=file.fileno())
    total = sum(regions["file"][at] for at in range(0, 24 * MIB, 4096))

policy(0)
mask = ctypes.c_ulong(1)
regions["bound by mbind"] = region(18)
call(MBIND, address(regions["bound by mbind"]), 18 * MIB, BIND, ctypes.addressof(mask), 64, 0)
touch(regions["bound by mbind"])
print(json.dumps({name: [address(each), size(each)] for name, each in regions.items()}), flush=True)

sys.stdin.readline()
count = 5 * MIB // 4096
first = address(regions["bound"])
pages = (ctypes.c_ulong * count)(*range(first, first + 5 * MIB, 4096))
nodes, status = (ctypes.c_int * count)(), (ctypes.c_int * count)()
call(MOVE_PAGES, 0, count, *map(ctypes.addressof, (pages, nodes, status)), MOVE)
print("moved", flush=True)
sys.stdin.readline()
"""


class Helper:
    """The process whose memory is asked for; `regions` are (address, bytes) by name."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.regions: dict[str, tuple[int, int]] = json.loads(self.line())

    def line(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def move(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"move\n")
        self.process.stdin.flush()
        assert self.line() == b"moved\n"

    def place(self) -> list[PlaceRow]:
        return Pages(self.process.pid).look(cut(read_maps(self.process.pid) or (), {}))


@contextmanager
def helper(folder: Path) -> Iterator[Helper]:
    command = [sys.executable, "-c", HELPER, str(folder / "pages")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Helper(process)
    finally:
        process.kill()
        process.communicate()


def numa_maps(pid: int) -> dict[int, dict[int, int]]:
    """Bytes per node of each mapping, as the kernel counts them."""
    found = {}
    for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines():
        size = int((re.findall(r"kernelpagesize_kB=(\d+)", line) or ["4"])[0]) << 10
        nodes = {int(node): int(n) * size for node, n in re.findall(r" N(\d+)=(\d+)", line)}
        found[int(line.split()[0], 16)] = nodes
    return found


def shares_of(rows: list[PlaceRow]) -> np.ndarray:
    """Shares of the nodes (0 and 1) in what is present."""
    each = [sum(row.node_bytes for row in rows if row.mem_node == node) for node in (0, 1)]
    return np.array(each) / max(sum(each), 1)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helper]:
    with helper(tmp_path_factory.mktemp("pages")) as running:
        yield running


def test_every_region_agrees_with_numa_maps(target: Helper) -> None:
    """Exactly where all pages were looked at, else within one point if it is over 16 MB."""
    rows = target.place()
    truth = numa_maps(target.process.pid)
    exact = close = 0
    for mapping in read_maps(target.process.pid) or ():
        mine = [row for row in rows if row.addr == mapping.start]
        if not mine or mapping.path == "[vdso]":
            continue
        nodes = truth[mapping.start]
        found = {row.mem_node: row.node_bytes for row in mine if row.mem_node >= 0}
        assert sum(row.node_bytes for row in mine) == mapping.bytes
        if mine[0].sampled_pages == mine[0].piece_pages:
            assert found == nodes, mapping
            exact += 1
        elif mapping.bytes > BIG:
            for node in (0, 1):
                share = nodes.get(node, 0) / mapping.bytes
                assert found.get(node, 0) / mapping.bytes == pytest.approx(share, abs=0.01), mapping
            close += 1
    assert exact >= 10
    assert close >= 2


def test_the_regions_lie_as_they_were_made(target: Helper) -> None:
    """So that the comparison above compares what it says: mixtures, and samples among them."""
    rows = target.place()
    remote, sampled = {}, {}
    for name, (address, size) in target.regions.items():
        mine = [row for row in rows if row.addr == address]
        assert {row.bytes for row in mine} == {size}, name
        remote[name] = shares_of(mine)[1]
        sampled[name] = mine[0].sampled_pages < mine[0].piece_pages
    expected = {
        "interleaved": 0.5, "interleaved huge": 0.5, "bound": 1.0, "a quarter untouched": 1.0,
        "halves": 0.5, "sampled, patchy": 0.7, "sampled, interleaved": 0.5, "file": 0.75,
        "bound by mbind": 0.0,
    }  # fmt: skip
    assert {*remote} == {*expected}
    for name, share in remote.items():
        assert share == pytest.approx(expected[name], abs=0.05), name
    assert {name for name in sampled if sampled[name]} >= {
        "sampled, patchy",
        "sampled, interleaved",
    }
    assert sum({row.addr: row.sampled_pages for row in rows}.values()) <= BUDGET_PAGES


def test_what_has_not_changed_is_not_told_again(target: Helper) -> None:
    first, second = target.place(), target.place()
    assert changed(first, second) == []
    target.move()
    rows = changed(second, target.place())
    address, size = target.regions["bound"]
    moved = {row.mem_node: row.node_bytes for row in rows if row.addr == address}
    assert moved[0] == pytest.approx(5 << 20, abs=0.01 * size)
    assert sum(moved.values()) == size
    # The helper's own heap grew by what it took to do this; no other region changed.
    others = {start for start, _ in target.regions.values()} - {address}
    assert not others & {row.addr for row in rows}


def test_pages_of_others_are_not_this_process_own(tmp_path: Path) -> None:
    """A file in the page cache that this process has mapped and not touched is not present."""
    path = tmp_path / "cached"
    path.write_bytes(os.urandom(1 << 20) * 20)
    code = (
        "import mmap, sys; f = open(sys.argv[1], 'rb'); "
        "m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        rows = [
            row
            for row in Pages(process.pid).look(cut(read_maps(process.pid) or (), {}))
            if row.path == str(path)
        ]
        process.communicate(b"\n")
    assert [(row.mem_node, row.node_bytes) for row in rows] == [(-1, 20 << 20)]
