"""What the user asked `record` to do."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from numatrace.record.plan import Plan

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of one recording."""

    output: Path
    force: bool = False
    follow: bool = True
    duration_s: float | None = None
    interval_s: float = 1.0
    """Between batches; at most this much is lost by a kill."""
    drain_s: float = 0.1
    """Between two looks at the rings. Each look takes a CPU from a thread for which others wait."""
    place_interval_s: float = 5.0
    """Between placement snapshots; stretched when one costs more than its share of time."""
    fault_records_per_s: int = 20_000
    """Above this rate fault records are thinned out; the totals stay exact."""
    ring_pages: int = 256
    """Pages of each ring buffer, a power of two."""
    started: float = field(default_factory=time.monotonic)
    """When the program began to work on this recording (time.monotonic)."""

    def plan(self) -> Plan:
        """The compile-time constants that follow."""
        pages = self.ring_pages
        return Plan(follow=self.follow, fault_ring_pages=pages, sched_ring_pages=pages)
