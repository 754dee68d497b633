"""How much samples that follow one another are alike: what it takes from the sample's size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.cells import Cells
from numatrace.analyze.packing import Packing
from numatrace.analyze.rows import alike
from numatrace.analyze.samples.intervals import Weighed

if TYPE_CHECKING:
    from numatrace.analyze.rows import Numbers

KEY = Packing(slot=17, block=47)
FIRST_SHIFT = 28
"""Blocks of time are 2^28 ns long at first, 268 ms: longer than a layer takes, and most tokens."""
BLOCKS = 1 << 18
"""Blocks of all threads that are kept; beyond, their length doubles."""
LEAST_BLOCKS = 10
"""With fewer blocks the spread between them says nothing."""
MANY_BLOCKS = 30
"""Blocks are made longer as long as this many are left of each group."""
WEIGHT, REMOTE, SQUARES = range(3)


class Blocks:
    """Weight and remote weight of every thread's samples in blocks of time."""

    def __init__(self, blocks: int = BLOCKS) -> None:
        self._cells = Cells(0, 3)
        self._shift = FIRST_SHIFT
        self._limit = blocks

    def add(self, slots: Numbers, times: Numbers, weights: Numbers, remote: Numbers) -> None:
        """Take samples: their thread's number, time, weight, and whether they were remote."""
        if not len(times):
            return
        weight = weights.astype(np.float64)
        block = times >> np.uint64(self._shift)
        values = np.stack([weight, np.where(remote, weight, 0.0), weight**2], axis=1)
        slots, block, values = _dense(slots, block, values)
        keys = KEY.pack(slot=slots, block=block)
        self._cells.add(keys, np.zeros((len(keys), 0), np.int64), values)
        if len(self._cells.keys) > self._limit:
            self.settle()

    def settle(self) -> None:
        """Double the blocks' length until there are few enough."""
        while self._cells.settle() > self._limit and self._shift < 63:
            self._shift += 1
            blocks = KEY.field(self._cells.keys, "block") >> 1
            self._cells.rename(KEY.with_field(self._cells.keys, "block", blocks))

    def over_time(self, slots: Numbers) -> tuple[list[tuple[int, int, Weighed]], float | None]:
        """Return the blocks of these threads together, in order, and the design effect near by.

        A block: its start and end [ns], and its sums. The design effect is that of blocks within
        stretches of LEAST_BLOCKS: what changes more slowly is what a timeline is to show.
        """
        self.settle()
        mine = np.isin(KEY.field(self._cells.keys, "slot"), slots)
        blocks = KEY.field(self._cells.keys[mine], "block").astype(np.int64)
        none, values = np.zeros(len(blocks), np.int64), self._cells.floats[mine]
        if not len(blocks):
            return [], None
        _, blocks, values = _together(none, blocks, values)
        near = effect(np.arange(len(blocks)) // LEAST_BLOCKS, values)
        sums = zip(blocks.tolist(), *values.T.tolist(), strict=True)
        return [
            (
                block << self._shift,
                (block + 1) << self._shift,
                Weighed(weight=weight, remote=remote, squares=squares),
            )
            for block, weight, remote, squares in sums
        ], near

    def of_threads(self, slots: Numbers) -> float | None:
        """Return the design effect of shares of single threads, over these threads; see `effect`.

        Threads are not compared with one another: that their shares differ is no error.
        """
        return self._largest(slots, "slot")

    def of_all(self, slots: Numbers) -> float | None:
        """Return the design effect of shares of these threads together.

        The threads of a pool read the same layer at the same time, so their blocks are one.
        """
        return self._largest(slots, None)

    def _largest(self, slots: Numbers, group: str | None) -> float | None:
        """Return the largest effect of blocks and of blocks of twice, four times … their length.

        What changes more slowly than the blocks are long shows in longer ones only.
        """
        self.settle()
        mine = np.isin(KEY.field(self._cells.keys, "slot"), slots)
        keys, values = self._cells.keys[mine], self._cells.floats[mine]
        groups = KEY.field(keys, group) if group else np.zeros(len(keys), np.int64)
        blocks = KEY.field(keys, "block")
        found: list[float] = []
        while True:
            groups, blocks, values = _together(groups, blocks, values)
            each = effect(groups, values)
            found += [] if each is None else [each]
            if len(blocks) < 2 * MANY_BLOCKS * max(1, len(np.unique(groups))):
                return max(found, default=None)
            blocks = blocks >> 1


def _dense(slots: Numbers, blocks: Numbers, values: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Add up rows of the same slot and block where these are few: a batch is a second or so."""
    low = blocks.min()
    length, width = int(slots.max()) + 1, int(blocks.max() - low) + 1
    if length * width > len(slots):
        return slots, blocks, values
    which = slots * width + (blocks - low).astype(np.int64)
    found = np.flatnonzero(np.bincount(which))
    sums = [np.bincount(which, column)[found] for column in values.T]
    return found // width, low + (found % width).astype(np.uint64), np.stack(sums, axis=1)


def _together(
    groups: Numbers, blocks: Numbers, values: Numbers
) -> tuple[Numbers, Numbers, Numbers]:
    """Add up the rows of the same group and block."""
    order = np.lexsort((blocks, groups))
    groups, blocks = groups[order], blocks[order]
    new = (groups[1:] != groups[:-1]) | (blocks[1:] != blocks[:-1])
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(groups)), bool), new]))
    return groups[starts], blocks[starts], np.add.reduceat(values[order], starts, axis=0)


def effect(groups: Numbers, values: Numbers) -> float | None:
    """Return the design effect of a share, at least 1; None when there are too few blocks.

    It is the variance of the share as the blocks of each group show it, against that of as many
    independent samples: for a ratio Σx/Σw over n clusters n/(n-1)·Σ(x - R·w)² against R(1-R)·Σw²
    of the samples (Cochran, Sampling Techniques, chapters 6 and 9A; Kish's deff).
    """
    shown = independent = 0.0
    for rows in alike(groups):
        part = values[rows]
        weight = part[:, WEIGHT].sum()
        if len(part) < LEAST_BLOCKS or weight <= 0:
            continue
        share = part[:, REMOTE].sum() / weight
        spread = ((part[:, REMOTE] - share * part[:, WEIGHT]) ** 2).sum()
        shown += spread * len(part) / (len(part) - 1)
        independent += share * (1 - share) * part[:, SQUARES].sum()
    return max(1.0, float(shown / independent)) if independent > 0 else None
