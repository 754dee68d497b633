"""A trace as CSV (RFC 4180 with line feeds): texts in quotes, null as nothing at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import csv

if TYPE_CHECKING:
    from numatrace.export.sink import Sink


class CsvWriter:
    """Writes a line of names and then rows.

    Values are not changed, whatever a program would make of them: a text stands in quotes, with
    `""` for each quote in it.
    """

    def __init__(self, sink: Sink, schema: pa.Schema) -> None:
        self._schema = pa.schema(
            [
                field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field
                for field in schema
            ]
        )
        # "needed" puts texts in quotes and leaves null and numbers without: null is not "".
        options = csv.WriteOptions(quoting_style="needed")
        self._writer = csv.CSVWriter(sink, self._schema, write_options=options)

    def write(self, batch: pa.RecordBatch) -> None:
        """Write the rows of a batch with the writer's schema."""
        columns = [
            column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
            for column in batch.columns
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        """Write what is waiting."""
        self._writer.close()
