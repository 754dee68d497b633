"""How long a server stays in a part of its memory: the pace at which it passes over its weights.

Every pass of a model reads all of its weights, layer by layer. While one pass takes long, samples
that hit the same block of memory come close together in time, and far from those of other passes;
when passes are shorter than the time between samples, they come at any time. So among pairs of
samples, those of one block are closer than chance would have it, up to a lag of about a quarter
of the time of a pass: at a lag of τ, pairs within a pass of T are T/2τ times as many as in a long
stretch of time where samples come at random. No address needs a name for this, and no sample its
exact time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numatrace.analyze.rows import Numbers

GRANULE_SHIFT = 16
"""Memory is judged in granules of 64 KiB."""
HOT = 0.01
HOT_LEAST = 8
"""A granule with more than this share of all samples, and so many, is not swept but lived in."""
BLOCKS = 64
PAIR_BLOCKS = 8
"""Swept memory is one of so many blocks. Pairs are made in fewer, larger ones, in which the
server stays long enough for two ticks of the clock even where passes are not very slow."""
DIFFERENT = 4.0
"""Blocks that samples must hit: pairs in one block cannot be enriched by more than their number, so
that a pass of which only a small part is seen says nothing."""
PIECE_NS = 120_000_000_000
"""Pairs are made in pieces of a stretch that are no longer ..."""
SUBSET = 512
SUBSETS = 16
"""... and in random subsets of its samples, of about so many samples, and at most so many."""
GROUPS = 64
"""Subsets in all pieces that are used; of more, every second, third and so on."""
LAGS = 96
"""Pairs are made of a sample and so many that follow it in the same block."""
CHANCE_PAIRS = 2
"""Pairs at random for every pair of one block."""
SHORTEST_NS = 1_000_000
STEPS = 17
"""Lags looked at: from 1 ms to a minute, each twice the one before."""
RETURNS = 12
ENRICHED = 2.0
LEAST_PAIRS = 8
LEAST_SIGMA = 2.5
SURE_SIGMA = 1.0
"""Pairs are enriched if there are so many times as many as by chance, more than so many, and more
by so many standard deviations; they are not enriched if so many more would not make them so."""
PASS = 4.0
"""A pass takes so many times the lag up to which pairs are enriched: twice ENRICHED."""
SEEN = 1.25
"""A pass must take so many ticks of the clock for each block for pairs in a block to be seen."""


class Pace(NamedTuple):
    """How long a pass over the model takes: between `low` and `high` [ns]."""

    low: float
    high: float


UNKNOWN = Pace(0.0, math.inf)


def swept(addr: Numbers, write: Numbers) -> Numbers:
    """Return which samples hit memory that is only read, and nowhere in particular."""
    granules, which, counts = np.unique(
        addr >> np.uint64(GRANULE_SHIFT), return_inverse=True, return_counts=True
    )
    which = which.reshape(-1)
    written = np.bincount(which, write, len(granules)) > 0
    hot = counts > max(HOT_LEAST, HOT * len(addr))
    found: Numbers = ~(written | hot)[which]
    return found


def blocks(addr: Numbers, usual: Numbers, count: int = BLOCKS) -> Numbers:
    """Return the block of each address: `count` of them, each with as many of the `usual` ones.

    Addresses are uint64, and there is a usual one.
    """
    ordered = np.sort(usual)
    edges = ordered[np.arange(1, count) * len(ordered) // count]
    found: Numbers = np.searchsorted(edges, addr, side="right").astype(np.int64)
    return found


def returns(t_ns: Numbers, block: Numbers, apart_ns: float) -> Numbers:
    """Return how long ago each sample's block was last hit: the power of two of the milliseconds.

    From 0 to RETURNS - 1; -1 for the first of a block. Samples are in order of time.
    """
    order = _by_number(block)
    times, blocks_ = t_ns[order], block[order]
    new = np.concatenate([[True], blocks_[1:] != blocks_[:-1]])
    starts = np.flatnonzero(new | np.concatenate([[True], np.diff(times) >= apart_ns]))
    lags = np.diff(times[starts], prepend=times[:1]).astype(np.float64)
    classes = np.log2(np.maximum(lags, SHORTEST_NS) / SHORTEST_NS).astype(np.int64)
    classes = np.where(new[starts], -1, np.minimum(classes, RETURNS - 1))
    found = np.empty(len(t_ns), np.int64)
    found[order] = np.repeat(classes, np.diff(np.append(starts, len(times))))
    return found


def pace(t_ns: Numbers, addr: Numbers, stretch: Numbers, apart_ns: float) -> Pace:
    """Return how long passes take, from samples of swept memory. Pairs are made within a stretch.

    Samples are in order of time, `stretch` is ascending, `addr` uint64. Samples of a block that
    are less than `apart_ns` apart count as one: all CPUs' clocks tick at the same moment, when
    all threads are at the same tensor.
    """
    if len(t_ns) < LEAST_PAIRS:
        return UNKNOWN
    block = blocks(addr, addr, PAIR_BLOCKS)
    chosen = moments(t_ns, block, apart_ns)
    t_ns, block, stretch = t_ns[chosen], block[chosen], stretch[chosen]
    group = _groups(t_ns, stretch)
    if _different(block, group) < DIFFERENT:
        return UNKNOWN
    order = np.argsort(group, kind="stable")
    t_ns, block, group = t_ns[order], block[order], group[order]
    first, lags = _pairs(t_ns, block, group)
    chance = _chance(t_ns, group, first)
    lags, chance = lags[lags >= apart_ns], chance[chance >= apart_ns]
    if not len(lags) or not len(chance):
        return UNKNOWN
    low, high = _bounds(lags, chance)
    return Pace(PASS * low, max(PASS * high, SEEN * PAIR_BLOCKS * 2 * apart_ns))


def _bounds(lags: Numbers, chance: Numbers) -> tuple[float, float]:
    """Return the longest lag at which pairs are enriched, and that from which on they are not."""
    high, is_bounding = math.inf, True
    for step in (SHORTEST_NS * 2**step for step in reversed(range(STEPS))):
        pairs, usual = int((lags < step).sum()), float((chance < step).mean()) * len(lags)
        sigma = math.sqrt(pairs + 1)
        if pairs >= max(LEAST_PAIRS, ENRICHED * usual, usual + LEAST_SIGMA * sigma):
            # The lag at which the enrichment ends is between this step and the next.
            return float(step), max(high, 2.0 * step)
        is_bounding = is_bounding and pairs + SURE_SIGMA * sigma <= ENRICHED * usual
        high = float(step) if is_bounding else high
    return 0.0, high


def _different(block: Numbers, group: Numbers) -> float:
    """Return how many blocks a group hits on average: as many as equal ones (inverse Simpson)."""
    both = (group * PAIR_BLOCKS + block)[group >= 0]
    pairs, counts = np.unique(both, return_counts=True)
    _, which = np.unique(pairs // PAIR_BLOCKS, return_inverse=True)
    total = np.bincount(which.reshape(-1), counts)
    squares = np.bincount(which.reshape(-1), counts.astype(np.float64) ** 2)
    return float((total**3 / squares).sum() / total.sum())


def moments(t_ns: Numbers, block: Numbers, apart_ns: float) -> Numbers:
    """Return the first sample of every moment in a block, as ascending indices.

    Samples are in order of time.
    """
    order = _by_number(block)
    later = np.diff(t_ns[order]) >= apart_ns
    other = np.diff(block[order]) != 0
    return np.sort(order[np.concatenate([np.ones(min(1, len(order)), bool), later | other])])


def _by_number(numbers: Numbers) -> Numbers:
    """Return the indices that put whole numbers in ascending order, equal ones as they come."""
    # numpy sorts numbers of 16 bits by counting, an order of magnitude faster than others.
    narrow = len(numbers) and numbers.min() >= -(1 << 15) and numbers.max() < 1 << 15
    return np.argsort(numbers.astype(np.int16) if narrow else numbers, kind="stable")


def _groups(t_ns: Numbers, stretch: Numbers) -> Numbers:
    """Return the group that each sample is paired in: a random subset of a piece of a stretch."""
    starts = np.flatnonzero(np.concatenate([[True], np.diff(stretch) != 0]))
    began = np.repeat(t_ns[starts], np.diff(np.append(starts, len(t_ns))))
    piece = (t_ns - began) // PIECE_NS
    new = np.concatenate([[True], (np.diff(stretch) != 0) | (np.diff(piece) != 0)])
    number = np.cumsum(new) - 1
    counts = np.bincount(number)
    random = np.random.default_rng(0).random(len(t_ns))
    subset = (random * np.ceil(counts / SUBSET)[number]).astype(np.int64)
    group = np.where(subset < SUBSETS, number * SUBSETS + subset, -1)
    names = np.unique(group[group >= 0])
    return np.where(np.isin(group, names[:: len(names) // GROUPS + 1]), group, -1)


def _pairs(t_ns: Numbers, block: Numbers, group: Numbers) -> tuple[Numbers, Numbers]:
    """Return the first sample of every pair in the same block and group, and the lag [ns]."""
    both = group * PAIR_BLOCKS + block
    order = _by_number(both)
    order = order[both[order] >= 0]
    both, times = both[order], t_ns[order]
    firsts, lags = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for step in range(1, min(LAGS + 1, len(order))):
        hits = np.flatnonzero(both[step:] == both[:-step])
        firsts.append(order[hits])
        lags.append(times[hits + step] - times[hits])
    return np.concatenate(firsts), np.concatenate(lags)


def _chance(t_ns: Numbers, group: Numbers, first: Numbers) -> Numbers:
    """Return the lags of pairs of any two samples of a group, as often in each as `first` has."""
    random = np.random.default_rng(0)
    _, starts, which, counts = np.unique(
        group, return_index=True, return_inverse=True, return_counts=True
    )
    mine = np.repeat(which.reshape(-1)[first], CHANCE_PAIRS)
    low, count = starts[mine], counts[mine]
    one = low + (random.random(len(mine)) * count).astype(np.int64)
    other = low + (random.random(len(mine)) * count).astype(np.int64)
    lags: Numbers = np.abs(t_ns[one] - t_ns[other])[one != other]
    return lags
