"""Sums by whole numbers, in arrays: what a streamed matrix is kept in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.packing import in_order

if TYPE_CHECKING:
    from numatrace.analyze.rows import Numbers

SPARE = 1 << 18
"""Rows that may wait before they are added up: some 20 MB."""


class Cells:
    """Integers and floats added up by key (uint64), in memory bounded by the number of keys."""

    def __init__(self, integers: int, floats: int) -> None:
        """Take how many integers (int64) and floats each key has."""
        self._shape = integers, floats
        self._parts: list[tuple[Numbers, Numbers, Numbers]] = []
        self._waiting = 0
        self.keys = np.zeros(0, np.uint64)
        self.integers = np.zeros((0, integers), np.int64)
        self.floats = np.zeros((0, floats), np.float64)

    def add(self, keys: Numbers, integers: Numbers, floats: Numbers) -> None:
        """Add a row of numbers to each key; keys may repeat."""
        if not len(keys):
            return
        self._parts.append((keys, integers, floats))
        self._waiting += len(keys)
        if self._waiting > SPARE:
            self.settle()

    def settle(self) -> int:
        """Add up what waits; return the number of keys. `keys` is then in ascending order."""
        if self._parts:
            parts = [(self.keys, self.integers, self.floats), *self._parts]
            self._parts, self._waiting = [], 0
            keys, integers, floats = (np.concatenate(each) for each in zip(*parts, strict=True))
            self._sum(keys, integers, floats)
        return len(self.keys)

    def rename(self, keys: Numbers) -> None:
        """Give all keys, settled before, new names; rows of the same name are added up."""
        self._sum(keys, self.integers, self.floats)

    def _sum(self, keys: Numbers, integers: Numbers, floats: Numbers) -> None:
        order = in_order(keys)
        ordered = keys[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        self.keys = ordered[starts]
        self.integers = _sums(integers, order, starts)
        self.floats = _sums(floats, order, starts)


def _sums(rows: Numbers, order: Numbers, starts: Numbers) -> Numbers:
    """Return the sums of rows in an order from each start to the next."""
    # Column by column: numpy is slow to add up short rows.
    found = np.empty((rows.shape[1], len(starts)), rows.dtype)
    for sums, column in zip(found, rows.T, strict=True):
        np.add.reduceat(column[order], starts, out=sums)
    return found.T
