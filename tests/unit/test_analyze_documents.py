"""Documents of a hostile trace stay within bounds."""

from __future__ import annotations

import json

import pyarrow as pa

from numatrace.analyze import documents
from numatrace.analyze.load import load
from numatrace.model.events import COLUMNS, EVENT
from numatrace.trace.schema import KINDS, arrow_schema


def threads(values: list[dict[str, object]]) -> pa.RecordBatch:
    """A batch of `thread` rows."""
    columns = {
        "t_ns": range(len(values)),
        "tgid": [1] * len(values),
        "tid": [value["tid"] for value in values],
        "name": ["x"] * len(values),
        "value": [json.dumps(value) for value in values],
    }
    schema = arrow_schema()
    code = pa.array([EVENT["thread"].code] * len(values), pa.int32())
    arrays = [
        pa.DictionaryArray.from_arrays(code, KINDS)
        if column.name == "kind"
        else pa.array(
            columns.get(column.name, [None] * len(values)), schema.field(column.name).type
        )
        for column in COLUMNS
    ]
    return pa.record_batch(arrays, schema=schema)


def a_thread(tid: int, cpus: str) -> dict[str, object]:
    return {"tid": tid, "comm": "x", "cpus_allowed": cpus, "mems_allowed": "0", "policy": ""}


def test_equal_lists_of_cpus_are_kept_once() -> None:
    loaded = load([threads([a_thread(tid, "0-9999") for tid in range(1, 50)])])
    kept = loaded.documents.threads.values()
    assert len({id(thread.cpus_allowed) for thread in kept}) == 1
    assert all(len(thread.cpus_allowed) == 10_000 for thread in kept)


def test_ever_other_lists_of_cpus_end_in_a_problem() -> None:
    rows = [a_thread(tid, f"{tid}-16000") for tid in range(1, 400)]
    loaded = load([threads(rows)])
    kept = sum(len(thread.cpus_allowed) for thread in loaded.documents.threads.values())
    assert kept <= documents.NUMBERS
    assert any("too many" in problem for problem in loaded.documents.problems)
