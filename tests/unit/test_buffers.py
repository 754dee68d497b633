"""Blocks of a real malloc, found from outside, against what the program itself was given."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numatrace.record.memory.buffers import (
    MIN_BYTES,
    PAGE,
    Block,
    Buffers,
    Walk,
    leads,
    parse_chunk,
)
from numatrace.record.memory.maps import Mapping, read_maps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20

PROGRAM = r"""
#define _GNU_SOURCE
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Lines: m SIZE, p ALIGNMENT SIZE, f ADDRESS, r SIZE (a mapping of our own, full of noise). */
int main(void)
{
	char line[64];
	size_t size, alignment, at;
	void *block;

	mallopt(M_MMAP_THRESHOLD, 128 << 10);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "m %zu", &size) == 1) {
			block = malloc(size);
			printf("%zu %zu\n", (size_t)block, malloc_usable_size(block));
		} else if (sscanf(line, "p %zu %zu", &alignment, &size) == 2) {
			if (posix_memalign(&block, alignment, size))
				return 1;
			printf("%zu %zu\n", (size_t)block, malloc_usable_size(block));
		} else if (sscanf(line, "f %zu", &at) == 1) {
			free((void *)at);
			printf("0 0\n");
		} else if (sscanf(line, "r %zu", &size) == 1) {
			unsigned *noise;

			noise = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			for (size_t i = 0; i < size / sizeof(*noise); i++)
				noise[i] = random();
			printf("%zu %zu\n", (size_t)noise, size);
		}
		fflush(stdout);
	}
	return 0;
}
"""


class Program:
    """A program that allocates what it is told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def do(self, line: str) -> Block:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return Block(*map(int, self.process.stdout.readline().split()))

    def mappings(self) -> list[Mapping]:
        found = read_maps(self.process.pid)
        assert found is not None
        return list(found)

    def blocks(self) -> set[Block]:
        return set(Walk(self.process.pid).blocks(self.mappings()))


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("malloc")
    (folder / "program.c").write_text(PROGRAM)
    command = ["gcc", "-O1", "-Wall", "-Werror", "-o", folder / "program", folder / "program.c"]
    subprocess.run(command, check=True)
    return folder / "program"


@contextmanager
def running(binary: Path) -> Iterator[Program]:
    process = subprocess.Popen(
        [binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        yield Program(process)
    finally:
        process.kill()
        process.communicate()


def test_each_block_is_found_to_the_byte_where_mappings_merge(binary: Path) -> None:
    """Bounds are those of malloc_usable_size, for every way to ask, in one merged mapping."""
    with running(binary) as program:
        asked = [
            "m 3000000",
            "p 64 20000000",
            "p 32 5000001",
            "p 128 1100000",
            "p 4096 7000000",
            "p 2097152 9000000",
            "m 200000",
            "p 64 33554432",
            "m 1048576",
        ]
        given = [program.do(line) for line in asked]
        assert program.blocks() == {block for block in given if block.bytes >= MIN_BYTES}
        holding = {
            mapping.start
            for mapping in program.mappings()
            for block in given
            if mapping.start <= block.addr < mapping.end
        }
        assert len(holding) < len(given) / 2, "the kernel merged them: else this shows little"


def test_freed_and_new_blocks_are_told_and_nothing_twice(binary: Path) -> None:
    rows: list[dict[str, Any]] = []
    buffers = Buffers(Recorder(rows))
    with running(binary) as program:
        first, second = program.do("m 5000000"), program.do("p 64 6000000")
        pid = program.process.pid
        buffers.update(pid, program.mappings())
        assert {(row["addr"], row["bytes"]) for row in rows} == {first, second}
        buffers.update(pid, program.mappings())
        assert len(rows) == 2
        program.do(f"f {first.addr}")
        third = program.do("m 9000000")
        buffers.update(pid, program.mappings())
    assert {(row["addr"], row["bytes"]) for row in rows[2:]} >= {third}
    told = {row["addr"]: row["bytes"] for row in rows}
    assert {addr: size for addr, size in told.items() if size} == dict([second, third])
    assert all(row["tgid"] == pid and row["detail"] == "malloc chunk" for row in rows)


def test_memory_that_is_not_mallocs_is_not_claimed_and_does_not_hide_a_block(binary: Path) -> None:
    """Noise beside and between blocks, in the same merged mapping."""
    with running(binary) as program:
        blocks = {program.do("p 64 4000000")}
        noise = program.do("r 2097152")
        blocks.add(program.do("p 64 5000000"))
        program.do("r 1048576")
        found = program.blocks()
    assert found <= blocks
    assert blocks - found == set(), "a block was not found behind other memory"
    assert all(b.addr >= noise.addr + noise.bytes or b.addr + b.bytes <= noise.addr for b in found)


def test_looking_does_not_bring_memory_in(binary: Path) -> None:
    """Pages that were never touched stay so: they would be placed, and would count."""
    with running(binary) as program:
        program.do("m 60000000")
        pid = program.process.pid
        before = resident_pages(pid)
        assert len(program.blocks()) == 1
        assert resident_pages(pid) == before


def resident_pages(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1])


class Recorder:
    """Takes rows as the writer does."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def add_rows(self, kind: str, rows: list[dict[str, Any]]) -> None:
        assert kind == "buffer"
        self.rows += rows


WORDS = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 64).map(lambda pages: pages * PAGE | 2))


@given(
    st.dictionaries(
        st.integers(0, 1 << 22),
        st.tuples(st.one_of(st.just(0), st.integers(0, 2**64 - 1)), WORDS),
        max_size=20,
    ),
    st.tuples(st.just(0), WORDS),
    st.integers(1, 1 << 34).map(lambda page: page * PAGE),
    st.integers(1, 64).map(lambda pages: pages * PAGE),
)
def test_whatever_lies_there_a_chunk_is_within_its_mapping(
    heads: dict[int, tuple[int, int]], first: tuple[int, int], start: int, size: int
) -> None:
    chunk = parse_chunk(heads | {0: first}, start, start + size)
    if chunk is not None:
        assert start == chunk.start < chunk.end <= start + size
        assert chunk.block.addr + chunk.block.bytes == chunk.end
        assert chunk.end % PAGE == 0


@given(st.integers(1, 1 << 34), st.integers(6, 21), st.integers(2, 1 << 20))
def test_every_aligned_block_is_understood(page: int, power: int, pages: int) -> None:
    """The oracle: what _int_memalign does with a chunk from mmap."""
    start, alignment = page * PAGE, 1 << power
    lead = -(start + 16) % alignment
    if lead < 32:
        lead += alignment
    size = pages * PAGE + 4 * alignment
    size += -size % PAGE
    memory = {0: (0, size | 2), lead: (lead, (size - lead) | 2)}
    heads = {each: memory.get(each, (7, 7)) for each in leads(start)}
    chunk = parse_chunk(heads, start, start + size)
    assert chunk is not None
    assert chunk.block.addr == start + lead + 16
    assert chunk.block.addr % alignment == 0


def test_a_process_that_ended_has_no_blocks() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    mapping = Mapping(0x7F0000000000, 0x7F0000000000 + 4 * MIB, "rw-p", 0, 0, 0, "")
    assert Walk(process.pid).blocks([mapping]) == []
