"""The Arrow schema and the numpy record types, derived from the event table."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from numatrace.model.events import COLUMNS, EVENTS, SCHEMA_VERSION, Column
from numatrace.model.records import ring_fields

VERSION_KEY = b"numatrace.schema_version"
WRITER_KEY = b"numatrace.writer"

VERSION_COLUMNS = {1: 28, 2: len(COLUMNS)}
"""How many columns each version of the schema has; they are only ever appended."""

KINDS = pa.array([event.kind for event in EVENTS], pa.string())
"""The dictionary of the `kind` column: a kind's index is its code."""

# `kind` is a dictionary that never grows. Free text stays plain: a growing dictionary needs delta
# batches, which polars refuses, and compression packs the repetition as well.
ARROW_TYPES: dict[str, pa.DataType] = {
    "u64": pa.uint64(),
    "s64": pa.int64(),
    "s32": pa.int32(),
    "u8": pa.uint8(),
    "enum": pa.dictionary(pa.int32(), pa.string()),
    "text": pa.string(),
}

NUMPY_TYPES = {"u64": "<u8", "s64": "<i8", "s32": "<i4", "u8": "u1"}


def arrow_field(column: Column) -> pa.Field:
    """The Arrow field of a column, with its unit and meaning as metadata."""
    metadata = {"unit": column.unit, "doc": column.doc}
    return pa.field(column.name, ARROW_TYPES[column.type], metadata=metadata)


def arrow_schema(writer: str = "") -> pa.Schema:
    """The schema of a trace file; `writer` names the program and version that writes it."""
    metadata: dict[bytes | str, bytes | str] = {
        VERSION_KEY: str(SCHEMA_VERSION).encode(),
        WRITER_KEY: writer.encode(),
    }
    return pa.schema([arrow_field(column) for column in COLUMNS], metadata=metadata)


def ring_dtype(ring: str) -> np.dtype[np.void]:
    """The layout of a ring's records as they lie in memory, without the ring's own header."""
    return np.dtype(
        [
            (field.name, NUMPY_TYPES[field.type], (field.length,))
            if field.length > 1
            else (field.name, NUMPY_TYPES[field.type])
            for field in ring_fields(ring)
        ]
    )
