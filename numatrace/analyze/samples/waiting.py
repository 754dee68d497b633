"""Samples whose mapping has not been reported yet: the recorder looks at it once a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.memory.locate import NOWHERE

if TYPE_CHECKING:
    from numatrace.analyze.memory.locate import Locator
    from numatrace.analyze.rows import Numbers

WAITING = 1 << 18
"""Samples that wait at a time; a GiB of first touches, were every one sampled."""
PATIENCE_NS = 30_000_000_000
"""A mapping that is first seen later than this after a sample is another one. The recorder looks
once a second, and less often on a machine that is short of CPU time."""


class Waiting:
    """Samples that wait, each with the columns that its owner wants back."""

    def __init__(self) -> None:
        self._columns: tuple[Numbers, ...] | None = None

    def __len__(self) -> int:
        """Return how many samples wait."""
        return 0 if self._columns is None else len(self._columns[0])

    def add(self, times: Numbers, tgids: Numbers, addrs: Numbers, *columns: Numbers) -> Numbers:
        """Let samples wait as far as there is room; return the indices of those that cannot."""
        room = max(0, WAITING - len(self))
        new = tuple(each[:room] for each in (times, tgids, addrs, *columns))
        old = self._columns
        self._columns = (
            new
            if old is None
            else tuple(np.concatenate(pair) for pair in zip(old, new, strict=True))
        )
        return np.arange(min(room, len(times)), len(times))

    def settle(self, locator: Locator, now_ns: int) -> tuple[list[Numbers], list[Numbers]]:
        """Return the columns of those that have a place now, and of those that waited too long.

        Of both, the first column is the place; then come the owner's. Lists are empty when
        nothing waited.
        """
        if self._columns is None:
            return [], []
        times, tgids, addrs, *columns = self._columns
        places = locator.now(tgids, addrs)
        # Not now - PATIENCE: times are unsigned.
        late = times + np.uint64(PATIENCE_NS) < np.uint64(now_ns)
        found = (places != NOWHERE) & ~late
        rest = ~(found | late)
        self._columns = tuple(each[rest] for each in self._columns)
        first, second = ([each[rows] for each in (places, *columns)] for rows in (found, late))
        return first, second

    def finish(self) -> list[Numbers]:
        """Return the owner's columns of all that still wait, and forget them."""
        columns, self._columns = self._columns, None
        return [] if columns is None else list(columns[3:])
