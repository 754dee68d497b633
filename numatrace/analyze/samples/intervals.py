"""Shares with their 95 % interval, or none where samples are too few."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from numatrace.model.measured import Figure

if TYPE_CHECKING:
    from numatrace.model.measured import Source

Z_95 = 1.96
LEAST_SAMPLES = 30
"""A share of fewer independent samples is withheld: its interval is up to 34 points wide."""
LEAST_FOR_VERDICT = 100
"""A verdict needs this many: an interval of at most 20 points."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """What is known of a group of samples: sums over those whose memory's node is known."""

    samples: int = 0
    time_ns: int = 0
    weight: float = 0.0
    remote: float = 0.0
    """The part of `weight` that was remote."""
    squares: float = 0.0
    """Sum of the squares of the samples' weights."""
    lost_ns: float = 0.0

    def __add__(self, other: Weighed) -> Weighed:
        """Return the sums of both groups."""
        return Weighed(
            self.samples + other.samples,
            self.time_ns + other.time_ns,
            self.weight + other.weight,
            self.remote + other.remote,
            self.squares + other.squares,
            self.lost_ns + other.lost_ns,
        )

    def independent(self, design_effect: float = 1.0) -> float:
        """Return how many independent, equal samples tell as much.

        That is (Σw)²/Σw² (Kish 1965), less what their correlation takes.
        """
        return self.weight**2 / self.squares / design_effect if self.squares else 0.0

    def share(
        self, source: Source, design_effect: float = 1.0, least: float = LEAST_SAMPLES
    ) -> Figure | None:
        """Return the remote share, or None when there are too few samples."""
        count = self.independent(design_effect)
        if count < least or self.weight <= 0:
            return None
        share = min(1.0, max(0.0, self.remote / self.weight))
        low, high = wilson(share, count)
        return Figure(share, "share", source, low, high)


def wilson(share: float, count: float) -> tuple[float, float]:
    """Return the 95 % score interval of a share among `count` samples, which need not be whole.

    Wilson 1927; it holds near 0 and 1, where the usual interval has no width.
    """
    square = Z_95**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = (
        Z_95
        / (1 + square / count)
        * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    )
    # Rounding must not put the share itself outside.
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))
