"""Figures with their spread."""

from __future__ import annotations

import math
import random
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Two-sided 95 % quantiles of Student's t by degrees of freedom.
STUDENT = {
    1: 12.71,
    2: 4.30,
    3: 3.18,
    4: 2.78,
    5: 2.57,
    6: 2.45,
    7: 2.36,
    8: 2.31,
    9: 2.26,
    10: 2.23,
}


def spread(values: Sequence[float], unit: str, digits: int = 2) -> str:
    """Median with minimum and maximum."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} {unit} ({low:.{digits}f} to {high:.{digits}f}, {len(values)} runs)"


def ratio(pairs: Sequence[tuple[float, float]]) -> str:
    """Geometric mean of the ratios of pairs, with its 95 % interval (Student, on logarithms)."""
    logs = [math.log(a / b) for a, b in pairs]
    mean = statistics.fmean(logs)
    quantile = STUDENT.get(len(logs) - 1, 2.0)
    half = quantile * statistics.stdev(logs) / math.sqrt(len(logs))
    low, high = math.exp(mean - half), math.exp(mean + half)
    return f"{math.exp(mean):.4f} (95 %: {low:.4f} to {high:.4f}, {len(logs)} pairs)"


RESAMPLES = 4000
TRIMMED = 0.2
"""Of the pairs at either end: a neighbour's burst of work spoils a pair, and means no more."""


def trimmed_ratio(pairs: Sequence[tuple[float, float]]) -> str:
    """Geometric mean of the middle pairs' ratios, with its 95 % interval (percentile bootstrap)."""
    logs = [math.log(a / b) for a, b in pairs]
    dice = random.Random(1)
    drawn = sorted(_trimmed_mean(dice.choices(logs, k=len(logs))) for _ in range(RESAMPLES))
    low, high = (math.exp(drawn[int(part * RESAMPLES)]) for part in (0.025, 0.975))
    middle = math.exp(_trimmed_mean(logs))
    return f"{middle:.4f} (95 %: {low:.4f} to {high:.4f}, middle of {len(logs)} pairs)"


def _trimmed_mean(values: Sequence[float]) -> float:
    cut = int(TRIMMED * len(values))
    return statistics.fmean(sorted(values)[cut : len(values) - cut])
