"""Take rows of one kind out of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from numatrace.model.events import EVENT

if TYPE_CHECKING:
    from collections.abc import Iterator

Numbers = np.ndarray[Any, np.dtype[Any]]


def taken(batch: pa.RecordBatch, kind: str, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield some columns of the rows of one kind, with None for null."""
    part = of_kind(batch, kind, columns)
    return zip(*(part.column(name).to_pylist() for name in columns), strict=True)


def of_kind(batch: pa.RecordBatch, kind: str, columns: tuple[str, ...]) -> pa.RecordBatch:
    """Return some columns of the rows of one kind."""
    chosen = batch.column("kind").indices.to_numpy() == EVENT[kind].code
    part = batch.select(columns)
    return part.filter(pa.array(chosen)) if chosen.any() else part.slice(0, 0)


def numbers(part: pa.RecordBatch, name: str) -> Numbers:
    """Return a column of numbers, with 0 for null."""
    column = part.column(name)
    if column.null_count:
        column = column.fill_null(0)
    found: Numbers = column.to_numpy()
    return found
