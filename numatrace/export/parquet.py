"""A trace as Parquet: the same columns, with their units and meanings, in larger pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import parquet

if TYPE_CHECKING:
    from numatrace.export.sink import Sink

GROUP_ROWS = 131_072
GROUP_BYTES = 64 << 20
"""A row group is written when so much waits: a recorder's batch of a second is too little for one,
and memory stays bounded."""


class ParquetWriter:
    """Writes row groups, zstd-compressed."""

    def __init__(self, sink: Sink, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = parquet.ParquetWriter(sink, schema, compression="zstd")
        self._waiting: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Take the rows of a batch with the writer's schema."""
        self._waiting.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.get_total_buffer_size()
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is waiting, and the footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema))
        self._waiting, self._rows, self._bytes = [], 0, 0
