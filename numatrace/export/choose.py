"""Which rows and columns of a trace are exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from numatrace.model.events import COLUMNS, EVENT, EVENTS
from numatrace.trace.schema import arrow_schema

if TYPE_CHECKING:
    from collections.abc import Collection


class Choice:
    """The rows of some kinds, with the columns that these kinds have; of no kinds: all there is."""

    def __init__(self, kinds: Collection[str] = (), writer: str = "") -> None:
        self.kinds = frozenset(kinds) or frozenset(EVENT)
        schema = arrow_schema(writer)
        if kinds:
            wanted = {"kind", *(name for kind in kinds for name in EVENT[kind].columns)}
            fields = [schema.field(column.name) for column in COLUMNS if column.name in wanted]
            schema = pa.schema(fields, metadata=schema.metadata)
        self.schema = schema
        codes = [event.code for event in EVENTS if event.kind in self.kinds]
        self._codes = None if len(codes) == len(EVENTS) else pa.array(codes, pa.int32())

    def of(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the chosen part of a batch, in the same order."""
        if self._codes is not None:
            kind = batch.column("kind").indices
            batch = batch.filter(pc.is_in(kind, value_set=self._codes))
        columns = [batch.column(name) for name in self.schema.names]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)
