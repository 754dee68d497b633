"""A trace as JSON lines: an object for each row, without the columns that are null in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from numatrace.export.sink import Sink

PIECE_ROWS = 8192
"""Rows that are worked on at once, column by column: row by row takes several times as long."""


class JsonLinesWriter:
    """Writes a line for each row, in ASCII: what a terminal would obey is escaped."""

    def __init__(self, sink: Sink, schema: pa.Schema) -> None:
        self._sink = sink
        self._schema = schema

    def write(self, batch: pa.RecordBatch) -> None:
        """Write the rows of a batch with the writer's schema."""
        for start in range(0, batch.num_rows, PIECE_ROWS):
            self._sink.write(_lines(batch.slice(start, PIECE_ROWS)))

    def close(self) -> None:
        """Nothing waits."""


def _lines(batch: pa.RecordBatch) -> bytes:
    fields = [
        pc.binary_join_element_wise(_text(f"{json.dumps(name)}: "), _json(column), _text(""))
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
        if column.null_count < batch.num_rows
    ]
    rows = pc.binary_join_element_wise(*fields, _text(", "), null_handling="skip")
    lines: list[str] = rows.to_pylist()
    return "".join(f"{{{line}}}\n" for line in lines).encode("ascii")


def _json(column: pa.Array) -> pa.Array:
    """Return each value as JSON, and null as null."""
    if pa.types.is_integer(column.type):
        return column.cast(pa.large_string())
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    texts = [json.dumps(text) for text in coded.dictionary.to_pylist()]
    return pa.array(texts, pa.large_string()).take(coded.indices)


def _text(value: str) -> pa.Scalar:
    return pa.scalar(value, pa.large_string())
