"""Where pieces lie at the end; regions, tensors, uncertainty; damaged documents."""

from __future__ import annotations

import random

import pytest

from numatrace.analyze.memory.classes import classify
from numatrace.analyze.memory.places import Piece, PieceKey, error_bytes
from numatrace.model.report import TYPES, Report, describe
from tests.unit.test_analyze_world import (
    MIB,
    MODEL,
    PAGE,
    PRIVATE_AT,
    SECOND,
    SERVER,
    WEIGHTS_AT,
    World,
    map_row,
    place_rows,
    weight_places,
)


def again(t_ns: int, weights: dict[int, int]) -> tuple[str, list]:
    return "place", [{**row, "t_ns": t_ns} for row in weight_places(weights)]


def test_the_last_snapshot_counts_and_changes_are_counted() -> None:
    moved = {0: 16 * MIB, 1: 48 * MIB}
    world = World(extra=[again(4 * SECOND, moved), again(6 * SECOND, moved)])
    region = world.report().regions[0]
    assert region.node_bytes == moved
    assert region.changes == 2, "each of the two tensors moved once"


def test_memory_that_was_unmapped_is_gone_while_the_process_lives() -> None:
    size = 32 * MIB
    gone = ("unmap", [{"t_ns": 5 * SECOND, "tgid": SERVER, "addr": PRIVATE_AT, "bytes": size}])
    world = World(private={0: size})
    assert sum(region.node_bytes.get(0, 0) for region in world.report().regions) == 96 * MIB
    world.extra = [gone]
    assert sum(region.node_bytes.get(0, 0) for region in world.report().regions) == 64 * MIB


def test_of_a_process_that_ended_the_last_placement_is_kept() -> None:
    rows = [{"t_ns": 9 * SECOND, "tgid": SERVER, "addr": WEIGHTS_AT, "bytes": 64 * MIB}]
    report = World(extra=[("unmap", rows)]).report()
    assert report.regions[0].node_bytes == {0: 64 * MIB}


def test_impossible_rows_are_unattributed_and_change_nothing() -> None:
    good = place_rows(PRIVATE_AT, {0: 32 * MIB})[0]
    bad = [
        {**good, "mem_node": -2},
        {**good, "mem_node": 5000},
        {**good, "node_bytes": 33 * MIB},
        {**good, "bytes": 0},
        {**good, "tgid": 0},
    ]
    report = World(extra=[("place", bad)]).report()
    loss = next(loss for loss in report.losses if loss.family == "place")
    assert loss.unattributed == len(bad)
    assert [region.label for region in report.regions] == ["tiny.gguf"]


def test_all_tensors_of_the_table_are_there_even_those_that_are_not_mapped() -> None:
    world = World()
    extra = {"t_ns": 3, "path": MODEL, "inode": 4711, "name": "output.weight", "offset": 64 * MIB,
             "bytes": 5 * MIB, "detail": "Q6_K", "value": "[1]"}  # fmt: skip
    world.extra = [("tensor", [extra])]
    report = world.report()
    assert sum(tensor.bytes for tensor in report.tensors) == 69 * MIB
    assert report.tensors[-1].node_bytes == {}
    assert [layer.layer for layer in report.layers] == [0, 1, None]


@pytest.mark.parametrize(
    ("path", "inode", "perms", "cls"),
    [
        ("/m/a.gguf", 1, "r--s", "weights"),
        ("/m/blobs/sha256-ab", 9, "r--s", "weights"),
        ("/m/blobs/sha256-ab (deleted)", 9, "r--s", "weights"),
        ("", 0, "rw-p", "anonymous"),
        ("[anon:arena]", 0, "rw-p", "anonymous"),
        ("[heap]", 0, "rw-p", "heap"),
        ("[stack]", 0, "rw-p", "stack"),
        ("[vdso]", 0, "r-xp", "other"),
        ("/lib/libc.so", 2, "r-xp", "code"),
        ("/lib/libc.so", 2, "r--p", "file"),
        ("/dev/nvidia0", 3, "rw-s", "other"),
        ("/memfd:x (deleted)", 3, "rw-s", "other"),
    ],
)
def test_classes(path: str, inode: int, perms: str, cls: str) -> None:
    assert classify(path, inode, perms, {9}).split()[0] == cls


def test_large_private_mappings_are_apart_and_small_ones_together() -> None:
    world = World(private={0: 32 * MIB})
    rows = [map_row(0x1000_0000 + n * MIB, 8 * PAGE, "", 0, "rw-p") for n in range(5)]
    places = [place_rows(0x1000_0000 + n * MIB, {1: 8 * PAGE})[0] for n in range(5)]
    world.extra = [("map", rows), ("place", places)]
    labels = {region.label: region for region in world.report().regions}
    assert labels[f"private memory at {PRIVATE_AT:#x}"].node_bytes == {0: 32 * MIB}
    assert labels["small private mappings"].node_bytes == {1: 40 * PAGE}


def test_the_interval_of_a_sample_covers_the_truth() -> None:
    """The oracle: cells drawn from memory whose placement is known, 95 % of them covered."""
    chance = random.Random(7)
    cells, drawn, share, covered = 4000, 250, 0.3, 0
    for _ in range(300):
        truth = [chance.random() < share for _ in range(cells)]
        seen = sum(truth[cell] for cell in chance.sample(range(cells), drawn))
        size = cells * 4 * PAGE
        piece = Piece(PieceKey(1, 0, ""), size, "", 0, 0, 1)
        piece.nodes = {1: size * seen // drawn, 0: size - size * seen // drawn}
        piece.looked_at = {1: seen * 4, 0: (drawn - seen) * 4}
        piece.sampled_pages, piece.piece_pages = drawn * 4, cells * 4
        miss = abs(piece.nodes[1] - sum(truth) * 4 * PAGE)
        covered += miss <= error_bytes([piece])
    assert 0.92 <= covered / 300 <= 0.99


def test_a_census_has_no_error() -> None:
    assert World().report().regions[0].error_bytes == 0


def test_a_document_that_makes_no_sense_is_named_and_the_rest_is_used() -> None:
    broken = {"t_ns": 3, "name": "memory", "value": '{"nodes": {"0": {"free_bytes": -1}}}'}
    report = World(extra=[("system", [broken])]).report()
    assert report.verdict.kind == "fix"
    assert any("memory" in problem for problem in report.provenance.problems)


def test_a_trace_without_its_end_says_so_and_is_still_judged() -> None:
    report = World(closed=False).report()
    assert report.provenance.ended == ""
    assert report.verdict.kind == "fix"


def test_every_field_of_the_report_is_described_and_written() -> None:
    document = World().report().to_json()
    for cls in TYPES:
        for field in describe(cls):
            assert field.doc
            assert "Annotated" not in field.type
    assert list(document) == [field.name for field in describe(Report)]
