"""The columns that a trace writer gets, read row by row."""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


def rows(columns: Mapping[str, Any], n: int, *names: str) -> Iterator[tuple[Any, ...]]:
    """Yield the values of these columns, which are lists, arrays or one value for all, by row."""
    return zip(*(_values(columns.get(name), n) for name in names), strict=True)


def _values(column: Any, n: int) -> Iterable[Any]:
    if isinstance(column, np.ndarray):
        column = column.tolist()
    return column if isinstance(column, list) else repeat(column, n)


def integers(column: Any, n: int, default: int) -> np.ndarray[Any, Any]:
    """Return a column as signed integers, `default` where it has nothing."""
    if isinstance(column, np.ndarray):
        return np.asarray(np.ma.filled(column.astype(np.int64), default))
    values = [default if value is None else value for value in _values(column, n)]
    return np.array(values, np.int64)
