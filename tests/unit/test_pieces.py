"""Pieces: those of a mapping partition it to the byte, and each byte has the right tensor."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from numatrace.record.memory.maps import Mapping
from numatrace.record.memory.pieces import Piece, cut
from numatrace.record.tensors.gguf_table import GgufTable, Tensor

UNHURRIED = settings(deadline=None)
DEV, INODE = 7, 11


def table(spans: list[tuple[int, int]]) -> GgufTable:
    tensors = tuple(Tensor(f"t{at}", "F16", at, size, (size,)) for at, size in spans)
    return GgufTable("/m.gguf", DEV, INODE, tensors=tensors)


def mapping(start: int, size: int, offset: int = 0, perms: str = "r--s") -> Mapping:
    return Mapping(start, start + size, perms, offset, DEV, INODE, "/m.gguf")


@st.composite
def disjoint(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Tensors as (offset, bytes), with gaps and empty ones among them."""
    spans, at = [], draw(st.integers(0, 50))
    for gap, size in draw(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 60)), max_size=12)):
        spans.append((at + gap, size))
        at += gap + size
    return spans


@UNHURRIED
@given(disjoint(), st.integers(0, 400), st.integers(1, 500), st.integers(0, 1 << 40))
def test_each_byte_belongs_to_its_tensor(
    spans: list[tuple[int, int]], offset: int, size: int, start: int
) -> None:
    pieces = cut([mapping(start, size, offset)], {(DEV, INODE): table(spans)})
    owner = {byte: f"t{at}" for at, length in spans for byte in range(at, at + length)}
    covered: list[tuple[int, int, str | None]] = []
    for piece in pieces:
        assert piece.bytes > 0
        covered += [
            (piece.addr + byte, piece.offset + byte, piece.name) for byte in range(piece.bytes)
        ]
    expected = [(start + byte, offset + byte, owner.get(offset + byte)) for byte in range(size)]
    assert covered == expected
    # No piece could be longer: neighbours differ.
    names = [piece.name for piece in pieces]
    assert all(one != other for one, other in pairwise(names))


@UNHURRIED
@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=20),
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 300)), max_size=5),
    st.integers(0, 30),
)
def test_pieces_partition_whatever_the_table_says(
    spans: list[tuple[int, int]], parts: list[tuple[int, int]], limit: int
) -> None:
    """Overlapping tensors, a file mapped in part and twice, and a limit that is reached."""
    mappings = [mapping(1000 * at, size, offset) for at, (offset, size) in enumerate(parts)]
    pieces = cut(mappings, {(DEV, INODE): table(spans)}, limit)
    at = 0
    for each in mappings:
        end = each.start
        while end < each.end:
            piece = pieces[at]
            assert (piece.addr, piece.offset) == (end, each.offset + end - each.start)
            end += piece.bytes
            at += 1
        assert end == each.end
    assert at == len(pieces) <= limit + len(mappings)


def test_sum_of_a_tensors_pieces_is_the_tensor() -> None:
    spans = [(100, 50), (150, 1000), (1200, 7)]
    holes = [mapping(4096, 160), mapping(8192, 900, 160), mapping(16384, 200, 1060)]
    pieces = cut(holes, {(DEV, INODE): table(spans)})
    for at, size in spans:
        assert sum(piece.bytes for piece in pieces if piece.name == f"t{at}") == size


def test_other_mappings_stay_whole_and_kernel_pages_are_left_out() -> None:
    other = Mapping(0, 4096, "rw-p", 0, 0, 0, "[heap]")
    reserved = Mapping(4096, 8192, "---p", 0, 0, 0, "")
    same_inode = Mapping(8192, 12288, "r--p", 0, DEV + 1, INODE, "/other")
    kernel = [
        Mapping(1 << 20, (1 << 20) + 4096, "r--p", 0, 0, 0, name)
        for name in ("[vvar]", "[vvar_vclock]", "[vsyscall]")
    ]
    pieces = cut([other, reserved, same_inode, *kernel], {(DEV, INODE): table([(0, 10)])})
    assert pieces == [
        Piece(0, 4096, 0, 0, "[heap]", None),
        Piece(4096, 4096, 0, 0, "", None, no_access=True),
        Piece(8192, 4096, 0, INODE, "/other", None),
    ]


def test_many_tensors_mapped_many_times_stay_bounded() -> None:
    spans = [(at * 10, 10) for at in range(100_000)]
    mappings = [mapping(at << 24, 1_000_000) for at in range(5_000)]
    pieces = cut(mappings, {(DEV, INODE): table(spans)}, limit=300_000)
    assert len(pieces) == 100_000 + 4_999  # a second one might bring padding, and pass the limit
    assert sum(piece.bytes for piece in pieces) == 5_000 * 1_000_000
