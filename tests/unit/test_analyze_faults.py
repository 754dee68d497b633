"""Faults go to the mapping that held the address at that time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numatrace.analyze.memory.mappings import AddressSpace, Mapping
from numatrace.analyze.rows import exact_sum, group_sums
from tests.unit.test_analyze_world import MIB, MODEL, PAGE, SECOND, SERVER, WEIGHTS_AT, World

A, B = 0x10_0000, 0x20_0000


def faults(*rows: tuple[int, int, int]) -> tuple[str, list[dict[str, object]]]:
    return "fault", [
        {"t_ns": t_ns, "tgid": SERVER, "tid": SERVER, "addr": addr, "weight": weight}
        for t_ns, addr, weight in rows
    ]


def mapped(t_ns: int, addr: int, path: str, size: int = 16 * PAGE) -> tuple[str, list]:
    row = {"t_ns": t_ns, "tgid": SERVER, "addr": addr, "bytes": size, "offset": 0,
           "inode": 7 if path.startswith("/") else 0, "path": path, "detail": "rw-p"}  # fmt: skip
    return "map", [row]


def unmapped(t_ns: int, addr: int, size: int = 16 * PAGE) -> tuple[str, list]:
    return "unmap", [{"t_ns": t_ns, "tgid": SERVER, "addr": addr, "bytes": size}]


def counted(*extra: tuple[str, list], together: bool = False) -> tuple[dict[str, int], int]:
    """Faults by region's class, and the unattributed ones."""
    report = World(extra=list(extra), together=together).report()
    found: dict[str, int] = {}
    for region in report.regions:
        if region.faults:
            found[region.cls.split()[0]] = found.get(region.cls.split()[0], 0) + region.faults
    loss = next(loss for loss in report.losses if loss.family == "fault")
    return found, loss.unattributed


def test_a_fault_in_the_model_counts_for_the_weights() -> None:
    end = WEIGHTS_AT + 64 * MIB
    found, unattributed = counted(
        faults((SECOND, WEIGHTS_AT, 3), (SECOND, end - 1, 4), (SECOND, end, 5))
    )
    assert (found, unattributed) == ({"weights": 7}, 5)


def test_a_fault_before_its_mapping_was_reported_waits_for_it() -> None:
    assert counted(faults((10, A, 5)), mapped(20, A, "[heap]")) == ({"heap": 5}, 0)
    assert counted(faults((10, A, 5)), mapped(20, B, "[heap]")) == ({}, 5)


def test_an_address_that_was_used_twice_is_told_apart_by_time() -> None:
    found, unattributed = counted(
        mapped(10, A, "[heap]"),
        faults((15, A, 1), (15, A + PAGE, 2)),
        unmapped(20, A),
        mapped(20, A, "[stack]"),
        faults((25, A, 4)),
    )
    assert (found, unattributed) == ({"heap": 3, "stack": 4}, 0)


def test_within_one_batch_time_decides_and_not_the_order_of_rows() -> None:
    extra = [
        faults((25, A, 4), (15, A, 1)),
        mapped(20, A, "[stack]"),
        mapped(10, A, "[heap]"),
        unmapped(20, A),
    ]
    assert counted(*extra, together=True) == ({"heap": 1, "stack": 4}, 0)


def test_a_fault_that_arrives_after_the_unmapping_finds_the_mapping_that_went() -> None:
    found = counted(mapped(10, A, "[heap]"), unmapped(20, A), faults((15, A, 2)))
    assert found == ({"heap": 2}, 0)


def test_faults_that_no_row_stands_for_are_unattributed() -> None:
    exact = {"t_ns": 30, "tgid": SERVER, "tid": SERVER, "node": 0, "count": 100}
    report = World(
        extra=[faults((SECOND, WEIGHTS_AT, 64)), ("fault_count", [exact])], losses={"fault": 2}
    ).report()
    loss = next(loss for loss in report.losses if loss.family == "fault")
    assert (loss.recorded, loss.attributed, loss.unattributed, loss.lost) == (100, 64, 34, 2)
    assert report.threads[0].faults == 100


def test_private_memory_that_comes_and_goes_counts_together() -> None:
    extra: list[tuple[str, list]] = []
    for turn in range(50):
        addr = A + turn * 32 * PAGE
        extra += [mapped(10 + turn, addr, ""), faults((10 + turn, addr, 1))]
        extra += [unmapped(11 + turn, addr)]
    assert counted(*extra) == ({"anonymous": 50}, 0)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), max_size=20),
    st.lists(st.integers(0, 40), min_size=1, max_size=20),
)
def test_lookup_agrees_with_a_plain_search(spans: list[tuple[int, int]], asked: list[int]) -> None:
    space = AddressSpace()
    plain: list[Mapping] = []
    for start, size in spans:
        mapping = Mapping(start, start + size, str(len(plain)), 0, "rw-p")
        covered = space.add(mapping, 1)
        apart = [each for each in plain if each.end <= start or each.start >= mapping.end]
        assert {each.start for each in covered} == {each.start for each in plain} - {
            each.start for each in apart
        }
        plain = [*apart, mapping]
    starts, inside = space.locate(np.array(asked, np.uint64))
    for addr, start, found in zip(asked, starts.tolist(), inside.tolist(), strict=True):
        expected = [each for each in plain if each.start <= addr < each.end]
        assert bool(found) == bool(expected)
        assert space.find(addr) == (expected[0] if expected else None)
        assert not found or space.at(start) == expected[0]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, (1 << 64) - 1)), max_size=30))
def test_sums_are_exact_beyond_64_bits(pairs: list[tuple[int, int]]) -> None:
    keys = np.array([key for key, _ in pairs], np.int64)
    numbers = np.array([value for _, value in pairs], np.uint64)
    assert exact_sum(numbers) == sum(value for _, value in pairs)
    expected = {(key,): sum(v for k, v in pairs if k == key) for key, _ in pairs}
    assert dict(group_sums([keys], numbers)) == expected


@pytest.mark.parametrize("name", ["/tmp/x.gguf", MODEL + " (deleted)"])
def test_a_mapped_model_without_a_table_is_weights_all_the_same(name: str) -> None:
    assert counted(mapped(10, A, name), faults((15, A, 2))) == ({"weights": 2}, 0)
