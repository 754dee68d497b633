"""Modes of work: stretches of time in which the same code runs, found by what the samples hit."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numatrace.analyze.rows import Numbers

WORDS = 96
"""Places of code that are told apart, the most frequent; the rest are one."""
CODE_SHIFT = 6
"""Instructions within 64 bytes are one place of code."""
WINDOW_SAMPLES = 32
"""Samples of a window from which modes are learned."""
WINDOWS = 1024
MODES = 6
ROUNDS = 20
"""Steps of the iteration; it is near its end after ten."""
ALIKE = 0.25
"""Modes with less than this total variation distance are one: the share of samples that would
have to be elsewhere to turn one into the other."""
LEAST_SAMPLES = 24
"""A mode of fewer is noise."""
TEMPER = 0.5
"""Weight of a sample as evidence. Those of one thread after another are not independent."""
SWITCH_COST = 8.0
"""A change of mode needs this much evidence, in nats: five samples or so of distinct code."""


class Run(NamedTuple):
    """Bins [first, last) in one mode, all of one burst."""

    first: int
    last: int
    mode: int


def words(code: Numbers, spoken: Numbers) -> Numbers:
    """Return each sample's word (int64, 0 to WORDS - 1) from its place of code (uint64).

    Samples that are not `spoken` (a mask) have none: -1.
    """
    places, which, counts = np.unique(code[spoken], return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    number = np.full(len(places), WORDS - 1, np.int64)
    number[order[:WORDS]] = np.arange(min(WORDS, len(places)))
    found = np.full(len(code), -1, np.int64)
    found[spoken] = number[which.reshape(-1)]
    return found


def find_runs(spoken: list[tuple[Numbers, int]], of_sample: Numbers, burst: Numbers) -> list[Run]:
    """Return the runs of modes over all bins.

    `spoken`: words of every sample, -1 for none, and how many different ones there are;
    `of_sample`: bin of every sample; `burst`: of every bin, ascending.
    """
    tables = [_table(word, of_sample, len(burst), size) for word, size in spoken]
    counts = np.concatenate(tables, axis=1)
    windows = _windows(counts, burst)
    modes = viterbi(_scores(counts, learn(windows)), burst)
    cuts = np.flatnonzero((np.diff(modes) != 0) | (np.diff(burst) != 0)) + 1
    starts = [0, *cuts.tolist()]
    return [
        Run(first, last, int(modes[first]))
        for first, last in zip(starts, [*starts[1:], len(modes)], strict=True)
    ]


def _table(word: Numbers, row: Numbers, rows: int, size: int) -> Numbers:
    """Return how often each word is in each row, as float64."""
    inside = (row >= 0) & (word >= 0)
    flat = np.bincount(row[inside] * size + word[inside], minlength=rows * size)
    return flat.reshape(rows, size).astype(np.float64)


def _windows(counts: Numbers, burst: Numbers) -> Numbers:
    """Return the counts of windows: neighbouring bins of a burst that together have enough."""
    size = max(WINDOW_SAMPLES, counts.sum() / WINDOWS)
    samples = counts.sum(axis=1)
    # Windows end where the running total passes a multiple of the size, and with the burst.
    steps = (np.cumsum(samples) - samples) // size
    new = np.concatenate([[True], (np.diff(steps) > 0) | (np.diff(burst) != 0)])
    found = np.add.reduceat(counts, np.flatnonzero(new), axis=0)
    said: Numbers = found[found.sum(axis=1) > 0]
    return said if len(said) else np.ones((1, counts.shape[1]))


def learn(windows: Numbers, modes: int = MODES) -> Numbers:
    """Return what each mode says: for each the probability of every word.

    A mixture of multinomial distributions by expectation maximization, from a start that splits
    the windows along their main direction until there are enough parts.
    """
    parts = _split(np.sqrt(windows / windows.sum(axis=1, keepdims=True)), modes)
    member = np.eye(parts.max() + 1)[parts]
    for _ in range(ROUNDS):
        spoken, share = _spoken(member, windows)
        scores = _scores(windows, spoken) + np.log(share)
        member = np.exp(scores - scores.max(axis=1, keepdims=True))
        member /= member.sum(axis=1, keepdims=True)
    return _spoken(_merged(member, windows), windows)[0]


def _scores(counts: Numbers, spoken: Numbers) -> Numbers:
    """Return the log likelihood of each row of counts (rows) in each mode (columns)."""
    # einsum, not a matrix product: for the small ones here, a threaded BLAS mostly waits.
    found: Numbers = TEMPER * np.einsum("wv,mv->wm", counts, np.log(spoken))
    return found


def _spoken(member: Numbers, windows: Numbers) -> tuple[Numbers, Numbers]:
    """Return the modes' words, none of them impossible, and the modes' shares of the windows."""
    counts = np.einsum("wm,wv->mv", member, windows) + 0.05
    share = member.sum(axis=0) + 0.5
    return counts / counts.sum(axis=1, keepdims=True), share / share.sum()


def _split(points: Numbers, parts: int) -> Numbers:
    """Return the part of each point. The widest part is cut at its middle, again and again."""
    part = np.zeros(len(points), np.int64)
    for number in range(1, parts):
        spread = [
            float(((points[part == each] - points[part == each].mean(axis=0)) ** 2).sum())
            for each in range(number)
        ]
        widest = int(np.argmax(spread))
        mine = np.flatnonzero(part == widest)
        if len(mine) < 2 or spread[widest] <= 1e-9:
            break
        centred = points[mine] - points[mine].mean(axis=0)
        along = np.einsum("wv,v->w", centred, _direction(centred))
        if not (along > 0).any() or not (along <= 0).any():
            break
        part[mine[along > 0]] = number
    return part


def _direction(centred: Numbers) -> Numbers:
    """Return about the direction in which the points vary most, by power iteration."""
    direction: Numbers = centred[int(np.argmax((centred**2).sum(axis=1)))]
    for _ in range(ROUNDS):
        along = np.einsum("wv,v->w", centred, direction)
        direction = np.einsum("wv,w->v", centred, along)
        direction = direction / max(float(np.sqrt((direction**2).sum())), 1e-300)
    return direction


def _merged(member: Numbers, windows: Numbers) -> Numbers:
    """Return the memberships with modes that are alike, or too small, made one."""
    while member.shape[1] > 1:
        counts = np.einsum("wm,wv->mv", member, windows)
        size = counts.sum(axis=1)
        rates = counts / np.maximum(size, 1e-9)[:, None]
        apart = np.abs(rates[:, None, :] - rates[None, :, :]).sum(axis=2) / 2
        np.fill_diagonal(apart, np.inf)
        small = int(np.argmin(size))
        if size[small] < LEAST_SAMPLES:
            first, second = small, int(np.argmin(apart[small]))
        else:
            first, second = divmod(int(np.argmin(apart)), len(apart))
            if apart[first, second] >= ALIKE:
                break
        member[:, second] += member[:, first]
        member = np.delete(member, first, axis=1)
    return member


def viterbi(scores: Numbers, burst: Numbers) -> Numbers:
    """Return the likeliest mode of every bin, if changes within a burst cost SWITCH_COST.

    `scores`: log likelihood of each bin (rows) in each mode (columns).
    """
    bins, modes = scores.shape
    fresh = np.concatenate([[True], np.diff(burst) != 0])
    came = np.zeros((bins, modes), np.int64)
    stay = np.arange(modes)
    best = np.zeros(modes)
    for number in range(bins):
        top = int(np.argmax(best))
        switch = best[top] - (0.0 if fresh[number] else SWITCH_COST)
        came[number] = np.where(best >= switch, stay, top)
        best = np.maximum(best, switch) + scores[number]
        best -= best.max()
    path = np.zeros(bins, np.int64)
    path[-1] = int(np.argmax(best))
    for number in range(bins - 1, 0, -1):
        path[number - 1] = came[number, path[number]]
    return path
