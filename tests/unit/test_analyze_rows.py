"""Rows of a batch, their groups and their order, against plain Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numatrace.analyze.load import _ahead
from numatrace.analyze.packing import in_order
from numatrace.analyze.rows import FEW, RUNS, alike, split
from numatrace.analyze.samples.access import _Ids
from numatrace.analyze.samples.blocks import Blocks
from numatrace.model.events import COLUMNS, EVENTS
from numatrace.trace.schema import ARROW_TYPES, KINDS, arrow_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

U64 = st.integers(0, 2**64 - 1)
S32 = st.integers(-(2**31), 2**31 - 1)
ROW = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["access", "move", "rate"]),
        "addr": st.none() | U64,
        "mem_node": st.none() | S32,
        "access": st.none() | st.integers(0, 255),
        "name": st.none() | st.sampled_from(["", "operand", "pebs", "ä"]),
    }
)


def batch_of(rows: list[dict[str, object]]) -> pa.RecordBatch:
    arrays = []
    for column in COLUMNS:
        values = [row.get(column.name) for row in rows]
        if column.name == "kind":
            codes = [KINDS.to_pylist().index(value) for value in values]
            arrays.append(pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), KINDS))
        else:
            arrays.append(pa.array(values, ARROW_TYPES[column.type]))
    return pa.record_batch(arrays, schema=arrow_schema())


@given(st.lists(ROW, max_size=40), st.integers(0, 5), st.data())
def test_columns_are_those_of_the_rows(
    rows: list[dict[str, object]], skipped: int, data: st.DataObject
) -> None:
    # A slice, so that the arrays begin somewhere in their memory.
    found = split(batch_of(rows).slice(skipped))
    kept = rows[skipped:]
    order = [event.kind for event in EVENTS]
    assert list(found) == sorted({str(row["kind"]) for row in kept}, key=order.index)
    for kind, part in found.items():
        mine = [row for row in kept if row["kind"] == kind]
        check(part, mine)
        chosen = data.draw(st.lists(st.integers(0, len(mine) - 1), max_size=5))
        check(part.at(np.array(chosen, np.int64)), [mine[place] for place in chosen])


def check(part: object, mine: list[dict[str, object]]) -> None:
    assert len(part) == len(mine)
    for name, missing in (("addr", 7), ("mem_node", -1), ("access", 0), ("weight", 1)):
        expected = [missing if row.get(name) is None else row[name] for row in mine]
        numbers = part.numbers(name, missing)
        assert numbers.dtype == (np.uint64 if name in ("addr", "weight") else np.int64)
        assert numbers.tolist() == part.integers(name, missing) == expected
        assert part.present(name).tolist() == [row.get(name) is not None for row in mine]
    names = [row["name"] or "" for row in mine]
    codes, texts = part.coded("name")
    assert [texts[code] for code in codes] == part.texts("name") == names


def test_rows_that_take_turns_are_told_apart() -> None:
    count = 2 * RUNS + 2
    rows = [
        {"kind": ("access", "move")[place % 2], "addr": place, "name": str(place)}
        for place in range(2 * count)
    ]
    found = split(batch_of(rows))
    assert found["access"].integers("addr") == list(range(0, 2 * count, 2))
    assert found["move"].texts("name") == [str(place) for place in range(1, 2 * count, 2)]


@given(st.lists(st.integers(-3, 3 * FEW)) | st.lists(st.just(-(2**63))))
def test_equal_keys_are_together(keys: list[int]) -> None:
    found = [part.tolist() for part in alike(np.array(keys, np.int64))]
    expected = [
        [place for place, key in enumerate(keys) if key == wanted] for wanted in sorted(set(keys))
    ]
    assert found == expected


@given(st.lists(U64 | st.integers(0, 3), min_size=1), st.integers(0, 2**64 - 1))
def test_keys_are_ordered_as_sorted_orders_them(keys: list[int], mask: int) -> None:
    masked = [key & mask for key in keys]
    expected = sorted(range(len(masked)), key=masked.__getitem__)
    assert in_order(np.array(masked, np.uint64)).tolist() == expected


@given(
    st.lists(st.tuples(S32, S32) | st.tuples(st.just(9), st.integers(9, 15))),
    st.integers(1, 4),
)
def test_pairs_keep_their_numbers(pairs: list[tuple[int, int]], bits: int) -> None:
    ids = _Ids(bits, (0, 0))
    columns = np.array(pairs, np.int64).reshape(-1, 2)
    for _ in range(2):
        found = ids.of(columns[:, 0], columns[:, 1]).tolist()
        known = set(ids.keys)
        assert len(ids.keys) == len(known) <= 1 << bits
        for pair, number in zip(pairs, found, strict=True):
            assert ids.keys[number] == (pair if pair in known else (0, 0))


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(0, 3) | U64,
            st.integers(0, 1 << 20),
            st.booleans(),
        ),
        min_size=1,
    )
)
def test_blocks_have_the_weight_of_their_samples(
    samples: list[tuple[int, int, int, bool]],
) -> None:
    blocks = Blocks()
    slots, times, weights, remote = (np.array(each) for each in zip(*samples, strict=True))
    times = np.array([time for _, time, _, _ in samples], np.uint64)
    blocks.add(slots, times, weights, remote)
    blocks.settle()
    expected: dict[tuple[int, int], list[int]] = {}
    for slot, time, weight, away in samples:
        sums = expected.setdefault((slot, time >> 28), [0, 0, 0])
        for number, value in enumerate((weight, weight * away, weight**2)):
            sums[number] += value
    keys = [slot << 47 | block for slot, block in sorted(expected)]
    assert blocks._cells.keys.tolist() == keys
    assert blocks._cells.floats.tolist() == [expected[pair] for pair in sorted(expected)]


def test_reading_ahead_keeps_the_order_and_the_error() -> None:
    def batches(count: int) -> Iterator[int]:
        yield from range(count)
        raise OSError("gone")

    read: list[int] = []
    with pytest.raises(OSError, match="gone"):
        read.extend(_ahead(batches(5)))
    assert read == list(range(5))
    assert list(_ahead(range(7))) == list(range(7))
