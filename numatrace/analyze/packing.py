"""Several small whole numbers as one, so that rows are sorted and added up by one key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numatrace.analyze.rows import Numbers


class Packing:
    """Named fields of so many bits each, the first one highest; 64 at most together."""

    def __init__(self, **bits: int) -> None:
        self.bits = bits
        shift = sum(bits.values())
        if shift > 64:
            raise ValueError(f"{shift} bits do not fit into 64")
        self._shifts: dict[str, int] = {}
        for name, count in bits.items():
            shift -= count
            self._shifts[name] = shift

    def pack(self, **fields: Numbers) -> Numbers:
        """Return the keys (uint64) of equally long columns that are in range; all are needed."""
        keys = np.zeros(len(fields[next(iter(self.bits))]), np.uint64)
        for name in self.bits:
            keys |= fields[name].astype(np.uint64) << np.uint64(self._shifts[name])
        return keys

    def field(self, keys: Numbers, name: str) -> Numbers:
        """Return one field of every key, as int64."""
        mask = np.uint64((1 << self.bits[name]) - 1)
        found: Numbers = (keys >> np.uint64(self._shifts[name]) & mask).astype(np.int64)
        return found

    def with_field(self, keys: Numbers, name: str, values: Numbers) -> Numbers:
        """Return the keys with another value in one field."""
        change = (self.field(keys, name) ^ values).astype(np.uint64)
        changed: Numbers = keys ^ change << np.uint64(self._shifts[name])
        return changed
