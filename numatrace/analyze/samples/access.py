"""Memory accesses by thread, place, nodes and phase: one pass, in bounded memory."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.cells import Cells
from numatrace.analyze.memory.locate import NOWHERE
from numatrace.analyze.packing import Packing
from numatrace.analyze.phases.phases import Phases
from numatrace.analyze.samples.blocks import Blocks
from numatrace.analyze.samples.columns import (
    KERNEL_REASONS,
    NO_MAPPING,
    OPERAND_TIME,
    PLACED,
    REASON,
    SAMPLES,
    TIME_NS,
    UNKNOWN,
    WAITING,
    samples,
)
from numatrace.analyze.samples.waiting import Waiting
from numatrace.model.access import HARDWARE_SOURCES, OPERAND

if TYPE_CHECKING:
    from collections.abc import Callable

    from numatrace.analyze.memory.locate import Locator
    from numatrace.analyze.rows import Numbers, Rows
    from numatrace.analyze.samples.columns import Samples
    from numatrace.analyze.threads.residency import Residency, ThreadKey

CELL = Packing(place=20, slot=17, pair=13, phase=3, served=3)
"""A cell of the matrix: place of the locator, thread or worker slot, nodes of CPU and memory,
phase, and what served it."""
ELSEWHERE = Packing(reason=6, slot=17, phase=3, hardware=1)
"""Samples without a place."""
SOURCES = (OPERAND, *HARDWARE_SOURCES)
CELLS = 1 << 18
"""Cells that are kept apart; beyond, the smallest are merged into what their place is part of. A
server of 64 threads, 1,000 tensors and 2 nodes has 256,000."""
WORKING = np.array([name != "load" for name in Phases.names])
"""Which phases are not loading, by index."""


class Access:
    """All samples of all processes."""

    def __init__(self, residency: Residency, limit: int = CELLS) -> None:
        """Take who is who, and how many cells to keep."""
        self.cells = Cells(4, 2)
        self.elsewhere = Cells(2, 0)
        self.blocks = {hardware: Blocks() for hardware in (False, True)}
        self.slots = _Ids(CELL.bits["slot"], (0, 0))
        self.pairs = _Ids(CELL.bits["pair"], (UNKNOWN, UNKNOWN))
        self.recorded = 0
        self.sources: Counter[str] = Counter()
        """Samples of every source."""
        self.merges = 0
        """How often cells had to be merged."""
        self._limit = limit
        self._residency = residency
        self._waiting = Waiting()

    def take(self, rows: Rows, places: Numbers, phases: Phases) -> None:
        """Take a batch's samples, each with its place or NOWHERE."""
        self.recorded += len(rows)
        batch = samples(rows)
        codes, names = rows.coded("name")
        counts = np.bincount(codes, minlength=len(names)).tolist()
        self.sources.update(
            {
                name: count
                for name, count in zip(names, counts, strict=True)
                if count and name in SOURCES
            }
        )
        slots = self.slots.of(batch.tgids, batch.tids, self._slot)
        phase = phases.at(batch.times)
        elsewhere = np.flatnonzero(batch.reasons != PLACED)
        self._elsewhere(batch, slots, phase, elsewhere)
        keys = CELL.pack(
            place=np.maximum(places, 0),
            slot=slots,
            pair=self.pairs.of(batch.nodes, batch.mem_nodes),
            phase=phase,
            served=batch.served,
        )
        placed = batch.reasons == PLACED
        found = np.flatnonzero(placed & (places != NOWHERE))
        self.cells.add(keys[found], batch.integers[found], batch.floats[found])
        self._wait(batch, keys, np.flatnonzero(placed & (places == NOWHERE)))
        told = found[WORKING[phase[found]] & batch.known()[found]]
        for hardware, blocks in self.blocks.items():
            mine = told[(batch.served[told] != OPERAND_TIME) == hardware]
            columns = (slots, batch.times, batch.weights, batch.remote())
            blocks.add(*(column[mine] for column in columns))

    def settle(self, locator: Locator, now_ns: int) -> None:
        """Give waiting samples to mappings that have been reported since."""
        found, late = self._waiting.settle(locator, now_ns)
        if found:
            places, keys, integers, floats = found
            self.cells.add(CELL.with_field(keys, "place", places), integers, floats)
        if late:
            self._nowhere(late[1], late[2])

    def trim(self, locator: Locator) -> None:
        """Merge what is small when there are too many cells."""
        if len(self.cells.keys) > self._limit:
            merge(self.cells, locator, self._limit // 2)
            self.merges += 1

    def finish(self) -> None:
        """Samples that still wait belong to no mapping that was ever reported."""
        left = self._waiting.finish()
        if left:
            self._nowhere(left[0], left[1])
        self.cells.settle()
        self.elsewhere.settle()

    @property
    def attributed(self) -> int:
        """Samples given to a place, to the kernel, or to waiting for another thread."""
        reasons = ELSEWHERE.field(self.elsewhere.keys, "reason")
        known = np.isin(reasons, [REASON[reason] for reason in (*KERNEL_REASONS, WAITING)])
        placed = int(self.cells.integers[:, SAMPLES].sum())
        return placed + int(self.elsewhere.integers[known, SAMPLES].sum())

    def _slot(self, tgid: int, tid: int) -> ThreadKey:
        if not tgid:
            return 0, 0  # a row that makes no sense is no thread
        sums = self._residency.sums((tgid, tid))
        return sums.tgid, sums.tid

    def _elsewhere(self, batch: Samples, slots: Numbers, phase: Numbers, chosen: Numbers) -> None:
        keys = ELSEWHERE.pack(
            reason=batch.reasons[chosen],
            slot=slots[chosen],
            phase=phase[chosen],
            hardware=batch.served[chosen] != OPERAND_TIME,
        )
        self._add_elsewhere(keys, batch.integers[chosen])

    def _wait(self, batch: Samples, keys: Numbers, chosen: Numbers) -> None:
        columns = (batch.times, batch.tgids, batch.addrs, keys, batch.integers, batch.floats)
        left = chosen[self._waiting.add(*(column[chosen] for column in columns))]
        self._nowhere(keys[left], batch.integers[left])

    def _nowhere(self, keys: Numbers, integers: Numbers) -> None:
        """Count samples whose address no mapping held; keys are those of a cell."""
        made = ELSEWHERE.pack(
            reason=np.full(len(keys), REASON[NO_MAPPING]),
            slot=CELL.field(keys, "slot"),
            phase=CELL.field(keys, "phase"),
            hardware=CELL.field(keys, "served") != OPERAND_TIME,
        )
        self._add_elsewhere(made, integers)

    def _add_elsewhere(self, keys: Numbers, integers: Numbers) -> None:
        self.elsewhere.add(keys, integers[:, : TIME_NS + 1], np.zeros((len(keys), 0)))


class _Ids:
    """Small numbers for pairs of numbers, at most so many bits; further pairs are `rest`."""

    def __init__(self, bits: int, rest: tuple[int, int]) -> None:
        self.keys = [rest]
        self._ids = {rest: 0}
        self._limit = 1 << bits

    def of(
        self,
        first: Numbers,
        second: Numbers,
        name: Callable[[int, int], tuple[int, int]] = lambda first, second: (first, second),
    ) -> Numbers:
        """Return each pair's number; `name` says which pair stands for it.

        Both are numbers of 32 bits with a sign.
        """
        keys, which = _numbered(first << 32 | second & 0xFFFFFFFF)
        seconds = (keys & 0xFFFFFFFF).astype(np.int32)
        named = zip((keys >> 32).tolist(), seconds.tolist(), strict=True)
        ids = np.array([self._id(name(*pair)) for pair in named], np.int64)
        return ids[which]

    def _id(self, pair: tuple[int, int]) -> int:
        if pair not in self._ids and len(self.keys) < self._limit:
            self._ids[pair] = len(self.keys)
            self.keys.append(pair)
        return self._ids.get(pair, 0)


def _numbered(keys: Numbers) -> tuple[Numbers, Numbers]:
    """Return the different keys in ascending order, and which of them each one is."""
    if len(keys) and int(keys.max()) - int(keys.min()) < len(keys):
        # Threads of one process, close together: no need to sort and to search.
        above = keys - keys.min()
        offsets = np.flatnonzero(np.bincount(above))
        number = np.zeros(int(offsets[-1]) + 1, np.int64)
        number[offsets] = np.arange(len(offsets))
        return offsets + keys.min(), number[above]
    found = np.unique(keys)
    return found, np.searchsorted(found, keys)


def merge(cells: Cells, locator: Locator, goal: int) -> None:
    """Merge the smallest cells into what their place is part of, until `goal` or no more can.

    Where that is not enough, threads and then nodes are no longer told apart. Sums stay what they
    are; only how finely they are told apart changes.
    """
    for coarser in (_parents(locator), _rest("slot"), _rest("pair")):
        while len(cells.keys) > goal:
            keys = coarser(cells.keys)
            order = np.argsort(cells.integers[:, SAMPLES], kind="stable")
            order = order[(keys != cells.keys)[order]]
            if not len(order):
                break
            chosen = order[: len(cells.keys) - goal]
            merged = cells.keys.copy()
            merged[chosen] = keys[chosen]
            cells.rename(merged)


def _parents(locator: Locator) -> Callable[[Numbers], Numbers]:
    def coarser(keys: Numbers) -> Numbers:
        places, which = np.unique(CELL.field(keys, "place"), return_inverse=True)
        up = [locator.parent(place) for place in places.tolist()]
        return CELL.with_field(keys, "place", np.array(up, np.int64)[which])

    return coarser


def _rest(field: str) -> Callable[[Numbers], Numbers]:
    return lambda keys: CELL.with_field(keys, field, np.zeros(len(keys), np.int64))
