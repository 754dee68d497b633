"""Take the rows of one kind out of a batch, as numpy arrays and Python lists."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from numatrace.model.events import EVENT, EVENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

Numbers = np.ndarray[Any, np.dtype[Any]]


FEW = 8
"""Different keys that are looked for one by one; to sort all takes as long as some ten."""
RUNS = 32
"""A kind's rows that lie in at most so many runs are copied run by run, else one by one."""


class Rows:
    """The rows of one kind in one batch; a column is taken out when it is asked for."""

    def __init__(self, kind: str, views: _Views, chosen: list[slice] | Numbers) -> None:
        self.kind = kind
        self._views = views
        self._chosen = chosen
        """Where the rows are in the batch: in runs, or the index of each."""

    def __len__(self) -> int:
        """Return the number of rows."""
        if isinstance(self._chosen, list):
            return sum(run.stop - run.start for run in self._chosen)
        return len(self._chosen)

    def at(self, chosen: Numbers) -> Rows:
        """Return some of the rows, by index."""
        every = np.arange(self._views.batch.num_rows)
        return Rows(self.kind, self._views, self._picked(every)[chosen])

    def numbers(self, column: str, missing: int = 0) -> Numbers:
        """Return a column as int64 or uint64, with `missing` where the trace holds null.

        Only the columns typed u64 come as uint64; for them `missing` must not be negative.
        """
        values, valid = self._views.column(column)
        picked = self._picked(values)
        present = None if valid is None else self._picked(valid)
        if present is not None and not present.all():
            picked = np.where(present, picked, picked.dtype.type(missing))
        return picked if picked.dtype == np.uint64 else picked.astype(np.int64)

    def present(self, column: str) -> Numbers:
        """Return for each row whether the column is not null."""
        _, valid = self._views.column(column)
        return np.ones(len(self), bool) if valid is None else self._picked(valid)

    def integers(self, column: str, missing: int = 0) -> list[int]:
        """Return a column as Python integers."""
        values: list[int] = self.numbers(column, missing).tolist()
        return values

    def texts(self, column: str) -> list[str]:
        """Return a text column, with "" where the trace holds null."""
        return [value or "" for value in self._texts(column).to_pylist()]

    def coded(self, column: str) -> tuple[Numbers, list[str]]:
        """Return a text column as indices into a list of different texts, "" for null.

        The list may have texts of other rows of the batch, too.
        """
        if isinstance(self._chosen, list):
            codes, texts = self._views.coded(column)
            return self._picked(codes), texts
        return _coded(self._texts(column))

    def _picked(self, values: Numbers) -> Numbers:
        if not isinstance(self._chosen, list):
            return values[self._chosen]
        parts = [values[run] for run in self._chosen]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _texts(self, name: str) -> pa.Array:
        column = self._views.batch.column(name)
        if not isinstance(self._chosen, list):
            return column.take(pa.array(self._chosen))
        parts = [column.slice(run.start, run.stop - run.start) for run in self._chosen]
        return parts[0] if len(parts) == 1 else pa.concat_arrays(parts)


class _Views:
    """The columns of numbers of a batch as numpy arrays, on the batch's own memory."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch
        self._columns: dict[str, tuple[Numbers, Numbers | None]] = {}
        self._coded: dict[str, tuple[Numbers, list[str]]] = {}

    def column(self, name: str) -> tuple[Numbers, Numbers | None]:
        """Return a column's values, and a mask of those that are not null; None if none is."""
        if name not in self._columns:
            self._columns[name] = _view(self.batch.column(name))
        return self._columns[name]

    def coded(self, name: str) -> tuple[Numbers, list[str]]:
        """Return a column of texts as indices into the list of the different ones."""
        if name not in self._coded:
            self._coded[name] = _coded(self.batch.column(name))
        return self._coded[name]


def _view(array: pa.Array) -> tuple[Numbers, Numbers | None]:
    """Return an array's values on its own memory, and a mask of those that are not null."""
    if not array.null_count:
        return array.to_numpy(), None
    # The bitmap itself: is_valid() of Arrow takes several times as long.
    bitmap, data = array.buffers()
    valid = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little").view(bool)
    filled = pa.Array.from_buffers(array.type, len(array), [None, data], 0, array.offset)
    return filled.to_numpy(), valid[array.offset : array.offset + len(array)]


def _coded(texts: pa.Array) -> tuple[Numbers, list[str]]:
    coded = texts.dictionary_encode()
    different: list[str] = coded.dictionary.to_pylist()
    codes, valid = _view(coded.indices)
    if valid is not None:
        codes = np.where(valid, codes, np.int32(len(different)))
    return codes.astype(np.int64), [*different, ""]


def split(batch: pa.RecordBatch) -> dict[str, Rows]:
    """Return the batch's rows by kind, in their order; only the kinds that it holds."""
    codes = batch.column("kind").indices.to_numpy(zero_copy_only=False)
    cuts = np.flatnonzero(codes[1:] != codes[:-1]) + 1
    bounds = [0, *cuts.tolist(), len(codes)] if len(codes) else []
    runs: dict[int, list[slice]] = {}
    for first, last in itertools.pairwise(bounds):
        runs.setdefault(int(codes[first]), []).append(slice(first, last))
    views = _Views(batch)
    return {
        EVENTS[code].kind: Rows(
            EVENTS[code].kind,
            views,
            mine if len(mine) <= RUNS else np.flatnonzero(codes == code),
        )
        for code, mine in sorted(runs.items())
    }


def exact_sum(values: Numbers) -> int:
    """Return the sum of unsigned 64-bit values without overflow."""
    wide = values.astype(np.uint64)
    high = int((wide >> np.uint64(32)).sum())
    return (high << 32) + int((wide & np.uint64(0xFFFFFFFF)).sum())


def alike(keys: Numbers) -> list[Numbers]:
    """Return the indices of equal keys together: one array for every different key, in order."""
    if len(keys) and (keys == keys[0]).all():
        return [np.arange(len(keys))]
    names = np.unique(keys)
    if len(names) <= FEW:
        return [np.flatnonzero(keys == name) for name in names]
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
