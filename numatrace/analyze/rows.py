"""Take the rows of one kind out of a batch, as numpy arrays and Python lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from numatrace.model.events import EVENT, EVENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

Numbers = np.ndarray[Any, np.dtype[Any]]


class Rows:
    """The rows of one kind in one batch; a column is taken out when it is asked for."""

    def __init__(self, kind: str, batch: pa.RecordBatch, chosen: pa.Array | None = None) -> None:
        self.kind = kind
        self._batch = batch
        self._chosen = chosen
        self._count = batch.num_rows if chosen is None else chosen.true_count

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._count)

    def numbers(self, column: str, missing: int = 0) -> Numbers:
        """Return a column as int64 or uint64, with `missing` where the trace holds null.

        Only the columns typed u64 come as uint64; for them `missing` must not be negative.
        """
        array = self._column(column)
        if array.null_count:
            array = array.fill_null(missing)
        values: Numbers = array.to_numpy(zero_copy_only=False)
        return values if values.dtype == np.uint64 else values.astype(np.int64)

    def present(self, column: str) -> Numbers:
        """Return for each row whether the column is not null."""
        valid: Numbers = self._column(column).is_valid().to_numpy(zero_copy_only=False)
        return valid

    def integers(self, column: str, missing: int = 0) -> list[int]:
        """Return a column as Python integers."""
        values: list[int] = self.numbers(column, missing).tolist()
        return values

    def texts(self, column: str) -> list[str]:
        """Return a text column, with "" where the trace holds null."""
        return [value or "" for value in self._column(column).to_pylist()]

    def coded(self, column: str) -> tuple[Numbers, list[str]]:
        """Return a text column as indices into the list of its different texts, "" for null."""
        coded = self._column(column).dictionary_encode()
        texts: list[str] = coded.dictionary.to_pylist()
        codes = coded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)
        return codes.astype(np.int64), [*texts, ""]

    def _column(self, name: str) -> pa.Array:
        column = self._batch.column(name)
        return column if self._chosen is None else column.filter(self._chosen)


def split(batch: pa.RecordBatch) -> dict[str, Rows]:
    """Return the batch's rows by kind, in their order; only the kinds that it holds."""
    codes = batch.column("kind").indices.to_numpy(zero_copy_only=False)
    found = np.unique(codes).tolist()
    return {
        EVENTS[code].kind: Rows(
            EVENTS[code].kind, batch, pa.array(codes == code) if len(found) > 1 else None
        )
        for code in found
    }


def exact_sum(values: Numbers) -> int:
    """Return the sum of unsigned 64-bit values without overflow."""
    wide = values.astype(np.uint64)
    high = int((wide >> np.uint64(32)).sum())
    return (high << 32) + int((wide & np.uint64(0xFFFFFFFF)).sum())


def alike(keys: Numbers) -> list[Numbers]:
    """Return the indices of equal keys together: one array for every different key, in order."""
    if not len(keys):
        return []
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    return np.split(order, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1)


def group_sums(keys: Sequence[Numbers], values: Numbers) -> list[tuple[tuple[int, ...], int]]:
    """Return the sum of `values` for every distinct tuple of `keys`, ordered by key.

    Keys are equally long integer arrays. Sums are exact, whatever the values.
    """
    if not len(values):
        return []
    order = np.lexsort(tuple(reversed(keys)))
    ordered = [key[order] for key in keys]
    changed = np.zeros(len(values), dtype=bool)
    changed[0] = True
    for key in ordered:
        changed[1:] |= key[1:] != key[:-1]
    starts = np.flatnonzero(changed)
    wide = values[order].astype(np.uint64)
    high = np.add.reduceat(wide >> np.uint64(32), starts).tolist()
    low = np.add.reduceat(wide & np.uint64(0xFFFFFFFF), starts).tolist()
    names = zip(*(key[starts].tolist() for key in ordered), strict=True)
    return [(name, (h << 32) + w) for name, h, w in zip(names, high, low, strict=True)]


assert all(EVENT[event.kind].code == code for code, event in enumerate(EVENTS))
