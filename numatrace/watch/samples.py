"""Samples of memory accesses, as sums that say which part of them was remote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numatrace.analyze.samples.columns import WAITING
from numatrace.analyze.samples.intervals import Weighed
from numatrace.model.access import HARDWARE_SOURCES
from numatrace.watch.rows import integers
from numatrace.watch.snapshot import Remote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numatrace.watch.slots import ThreadKey

Array = np.ndarray[Any, Any]


def by_thread(columns: Mapping[str, Any], n: int) -> Iterator[tuple[ThreadKey, Weighed]]:
    """Yield the sums of each thread's samples whose nodes are both known, from `access` columns."""
    node, mem = (integers(columns.get(name), n, -1) for name in ("node", "mem_node"))
    known = (node >= 0) & (mem >= 0) & (np.asarray(columns.get("detail"), object) != WAITING)
    weight = _weights(columns, n)
    pairs = np.stack([integers(columns.get(name), n, 0) for name in ("tgid", "tid")], axis=1)
    keys, which = np.unique(pairs[known], axis=0, return_inverse=True)
    which = which.reshape(-1)
    sums = [
        np.bincount(which, values[known], len(keys)).tolist()
        for values in (np.ones(n), weight, weight * (node != mem), weight**2)
    ]
    for (tgid, tid), samples, whole, remote, squares in zip(keys.tolist(), *sums, strict=True):
        yield (tgid, tid), Weighed(round(samples), 0, whole, remote, squares)


def is_hardware(source: object) -> bool:
    """Whether the CPU itself took the samples of a source."""
    return source in HARDWARE_SOURCES


def _weights(columns: Mapping[str, Any], n: int) -> Array:
    """Time that the samples stand for; of hardware samples, how long they waited, or events."""
    if not is_hardware(columns.get("name")):
        return integers(columns.get("time_ns"), n, 0).astype(np.float64)
    cycles = integers(columns.get("latency_cycles"), n, 0)
    return np.where(cycles > 0, cycles, integers(columns.get("weight"), n, 1)).astype(np.float64)


def remote(weighed: Weighed, *, one_node: bool) -> Remote:
    """Return the remote share, or none where there are too few samples to say."""
    if one_node:
        return Remote(0.0 if weighed.weight else None, samples=weighed.samples)
    figure = weighed.share("operand sample")
    if figure is None:
        return Remote(samples=weighed.samples)
    return Remote(figure.value, figure.low, figure.high, weighed.samples)
