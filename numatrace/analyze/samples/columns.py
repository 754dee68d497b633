"""A batch of access samples as columns: sound, bounded, each with what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from numatrace.model.access import DATA_CLASSES, FETCH, HARDWARE_SOURCES, HOW, KERNEL, OPERAND
from numatrace.model.cpulist import NODE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from numatrace.analyze.rows import Numbers, Rows

UNKNOWN: Final = -1
"""The node of memory or of a CPU that no row names, or of a page that is not present."""
SAMPLE_NS = 1 << 36
"""A sample stands for at most this CPU time, 69 s; more is damage, and cut to it."""
SAMPLE_EVENTS = 1 << 32
LATENCY_CYCLES = 1 << 24
"""Bounds of a sample's weight and latency; more is cut to them."""

NO_MAPPING: Final = "no mapping held the address"
NO_ADDRESS: Final = "the sample has no address"
FETCHED: Final = "an instruction, not data"
DAMAGED: Final = "the row makes no sense"
REASONS: Final = (*HOW, NO_MAPPING, NO_ADDRESS, FETCHED, DAMAGED)
"""Where the time of a sample without a place went."""
REASON = {reason: index for index, reason in enumerate(REASONS)}
KERNEL_REASONS = tuple(reason for reason in REASONS if reason.startswith("kernel"))
WAITING: Final = "spin"
"""The thread waited for another one: its time is that one's doing, not that of the polled word."""
PLACED: Final = -1
"""The reason of a sample whose address is to be looked up."""

OPERAND_TIME, LOCAL, REMOTE, CACHE, OTHER = range(5)
"""What served a sample: an operand sample does not know; of a hardware sample local memory,
another node's, a cache, or anything else."""
SERVED = {
    name: next(
        (code for word, code in (("cache", CACHE), ("local", LOCAL), ("remote", REMOTE))
         if word in name),
        OTHER,
    )
    for name in DATA_CLASSES
}  # fmt: skip

SAMPLES, TIME_NS, EVENTS, TIMED = range(4)
"""The whole numbers of a sample: 1, the time and the events that it stands for, and these events
again where their latency was measured."""
SQUARES, CYCLES = range(2)
"""The floats of a sample: the square of what it weighs, and latency times events."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Columns of equal length. A sample weighs its time, or its events if it is the hardware's."""

    times: Numbers
    tgids: Numbers
    tids: Numbers
    nodes: Numbers
    mem_nodes: Numbers
    addrs: Numbers
    served: Numbers
    reasons: Numbers
    """Index in REASONS, or PLACED."""
    weights: Numbers
    integers: Numbers
    floats: Numbers

    def known(self) -> Numbers:
        """Return which samples tell local and remote memory apart."""
        nodes = (self.nodes != UNKNOWN) & (self.mem_nodes != UNKNOWN)
        memory = (self.served == LOCAL) | (self.served == REMOTE)
        known: Numbers = np.where(self.served == OPERAND_TIME, nodes, memory)
        return known

    def remote(self) -> Numbers:
        """Return which samples read another node's memory, where that is known."""
        away = self.nodes != self.mem_nodes
        remote: Numbers = np.where(self.served == OPERAND_TIME, away, self.served == REMOTE)
        return remote


def samples(rows: Rows) -> Samples:
    """Return the columns of a batch's `access` rows."""
    sources = _mapped(rows, "name", _source)
    tgids, tids = rows.numbers("tgid"), rows.numbers("tid")
    sound = (sources >= 0) & (tgids > 0) & (tids > 0)
    hardware = sources > 0
    events = np.minimum(rows.numbers("weight", 1), SAMPLE_EVENTS).astype(np.int64)
    time_ns = np.minimum(rows.numbers("time_ns"), SAMPLE_NS).astype(np.int64)
    cycles = np.minimum(rows.numbers("latency_cycles"), LATENCY_CYCLES).astype(np.int64)
    weights = np.where(hardware, events, time_ns)
    timed = np.where(cycles > 0, events, 0)
    return Samples(
        times=rows.numbers("t_ns"),
        tgids=np.where(sound, tgids, 0),
        tids=np.where(sound, tids, 0),
        nodes=_nodes(rows, "node"),
        mem_nodes=_nodes(rows, "mem_node"),
        addrs=rows.numbers("addr"),
        served=np.where(hardware, _mapped(rows, "detail", _served), OPERAND_TIME),
        reasons=_reasons(rows, sound, hardware),
        weights=weights,
        integers=np.stack([np.ones_like(events), time_ns, events, timed], axis=1),
        floats=np.stack([weights.astype(np.float64) ** 2, cycles.astype(float) * timed], axis=1),
    )


def _reasons(rows: Rows, sound: Numbers, hardware: Numbers) -> Numbers:
    """Return why a sample has no place to look up, or PLACED."""
    access = rows.numbers("access")
    how = np.where(hardware, REASON[NO_ADDRESS], _mapped(rows, "detail", _how))
    kernel = np.isin(how, [REASON[reason] for reason in KERNEL_REASONS])
    in_kernel = kernel | (access & KERNEL > 0)
    waits = REASON[WAITING]
    how = np.where(~hardware & (_mapped(rows, "detail", _waits) > 0), waits, how)
    found = np.where(rows.present("addr") & (how != waits), PLACED, how)
    found = np.where(access & FETCH > 0, REASON[FETCHED], found)
    found = np.where(in_kernel, np.where(kernel, how, REASON["kernel"]), found)
    return np.where(sound, found, REASON[DAMAGED])


def _how(detail: str) -> int:
    """Return why a sample without an address has none; one that has an address needs no reason."""
    without = detail not in ("operand", "neighbour", "vector")
    return REASON[detail] if detail in HOW and without else REASON[NO_ADDRESS]


def _waits(detail: str) -> int:
    return int(detail == WAITING)


def _source(name: str) -> int:
    return {OPERAND: 0, **dict.fromkeys(HARDWARE_SOURCES, 1)}.get(name, -1)


def _served(detail: str) -> int:
    return SERVED.get(detail, OTHER)


def _mapped(rows: Rows, column: str, number: Callable[[str], int]) -> Numbers:
    """Return a number for every text of a column."""
    codes, texts = rows.coded(column)
    return np.array([number(text) for text in texts], np.int64)[codes]


def _nodes(rows: Rows, column: str) -> Numbers:
    nodes = rows.numbers(column, UNKNOWN)
    return np.where((nodes >= 0) & (nodes < NODE_LIMIT), nodes, UNKNOWN)
