"""Which memory counts as weights, and where it lies: mapped tensors, private copies, unknown."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from numatrace.analyze.load import load
from numatrace.analyze.memory.regions import regions
from numatrace.analyze.memory.weights import weights_of
from numatrace.analyze.samples.measure import measure
from numatrace.trace.reader import Trace
from tests.unit.test_analyze_world import MIB, MODEL, PRIVATE_AT, SECOND, SERVER, WEIGHTS_AT, World
from tests.unit.test_causes_scenarios import copies

if TYPE_CHECKING:
    from numatrace.analyze.memory.weights import Weights


def weights(world: World) -> Weights:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.arrow"
        world.write(path)
        trace = Trace.open(path)
        try:
            loaded = load(list(trace.batches()))
        finally:
            trace.close()
    found = regions(loaded)
    return weights_of(loaded, found.of(SERVER), measure(loaded, found, SERVER), SERVER)


def reads(count: int, addr: int) -> tuple[str, list[dict[str, object]]]:
    """So many samples of reads, a millisecond each."""
    return "access", [
        {"t_ns": 2 * SECOND + n * 1_000_000, "tgid": SERVER, "tid": SERVER, "cpu": 0, "node": 0,
         "mem_node": 0, "addr": addr + 64 * n, "ip": 1, "access": 0, "weight": 1,
         "time_ns": 1_000_000, "name": "operand", "detail": "direct"}
        for n in range(count)
    ]  # fmt: skip


def test_mapped_tensors_alone() -> None:
    found = weights(World(weights={0: 48 * MIB, 1: 16 * MIB, -1: MIB}, private={1: 90 * MIB}))
    assert found.mapped_bytes == found.node_bytes == {0: 48 * MIB, 1: 16 * MIB}
    assert (found.private_bytes, found.absent_bytes, found.named) == ({}, MIB, True)
    assert (found.paths, found.private_share, found.holder) == ((MODEL,), 0.0, 0)


def test_a_tensor_with_a_copy_counts_where_its_copy_lies() -> None:
    world = World(weights={0: 64 * MIB}, **copies({1: 64 * MIB}))
    found = weights(world)
    assert (found.mapped_bytes, found.private_bytes) == ({}, {1: 64 * MIB})
    assert (found.paths, found.holder, found.named) == ((MODEL,), 1, True)
    world.extra = [(kind, rows[:1]) for kind, rows in world.extra]
    found = weights(world)
    assert (found.mapped_bytes, found.private_bytes) == ({0: 32 * MIB}, {1: 32 * MIB})
    assert found.parts == {0: 0.5, 1: 0.5}


def test_copies_take_the_nodes_of_their_mapping_by_their_part_of_it() -> None:
    world = World(weights={}, **copies({0: 48 * MIB, 1: 16 * MIB}))
    assert weights(world).private_bytes == {0: 48 * MIB, 1: 16 * MIB}
    world.extra = [(kind, rows[1:]) for kind, rows in world.extra]
    assert weights(world).private_bytes == {0: 24 * MIB, 1: 8 * MIB}


def test_without_any_name_all_large_private_memory_stands_for_them() -> None:
    found = weights(World(weights={}, private={0: 20 * MIB, 1: 4 * MIB}))
    assert (found.private_bytes, found.named) == ({0: 20 * MIB, 1: 4 * MIB}, False)
    assert "tensors unknown" in found.name


@pytest.mark.parametrize(("mapped_reads", "counts"), [(0, False), (2, False), (40, True)])
def test_mapped_tensors_that_are_read_no_more_do_not_count(mapped_reads: int, counts: bool) -> None:
    world = World(weights={0: 64 * MIB}, private={1: 32 * MIB}, type="Q4_0")
    world.extra = [reads(300, PRIVATE_AT), reads(mapped_reads, WEIGHTS_AT)]
    found = weights(world)
    assert found.private_bytes == {1: 32 * MIB}
    assert bool(found.mapped_bytes) == counts
    assert not found.named


def test_nothing_at_all() -> None:
    found = weights(World(weights={}))
    assert (found.node_bytes, found.parts, found.holder, found.mapped) == ({}, {}, None, False)
