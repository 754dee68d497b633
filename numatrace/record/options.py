"""What the user asked `record` to do."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from numatrace.record.bpf.plan import Plan
from numatrace.record.sampling.budget import START_PERIOD_NS

if TYPE_CHECKING:
    from pathlib import Path

CPUS_PER_RING = 32
"""For so many CPUs a ring of `ring_pages` holds their samples between two looks."""

MAX_PAGES = 8192
"""Of a ring that grows with the number of CPUs."""


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of one recording."""

    output: Path
    force: bool = False
    follow: bool = True
    duration_s: float | None = None
    interval_s: float = 1.0
    """Between batches; at most this much is lost by a kill."""
    drain_s: float = 0.2
    quiet_s: float = 0.5
    """Between two looks at the rings, and while they are nearly empty. Each look takes a CPU from a
    thread for which others wait: some 0.5 ms."""
    place_interval_s: float = 5.0
    """Between placement snapshots; stretched when one costs more than its share of time."""
    fault_records_per_s: int = 20_000
    """Above this rate fault records are thinned out; the totals stay exact."""
    ring_pages: int = 256
    """Pages of each ring buffer, a power of two."""
    access: bool = True
    """Sample memory accesses."""
    frequency_hz: int | None = None
    """Ticks a second of each CPU's clock; None: as many as the budget allows."""
    max_overhead: float = 0.01
    """What recording may cost, as a share of the CPU time that the followed processes use."""
    patience_s: float = 30.0
    """So long samples of code that is new wait for a helper to decode it while CPUs are idle."""
    started: float = field(default_factory=time.monotonic)
    """When the program began to work on this recording (time.monotonic)."""

    def plan(self) -> Plan:
        """The compile-time constants that follow."""
        pages = self.ring_pages
        many = (os.cpu_count() or 1) // CPUS_PER_RING
        access_pages = min(pages << many.bit_length(), max(pages, MAX_PAGES))
        return Plan(
            follow=self.follow,
            access=self.access,
            access_ring_pages=access_pages,
            tensor_ring_pages=4 * pages,  # a load comes all at once
            fault_ring_pages=pages,
            sched_ring_pages=pages,
        )

    @property
    def first_period_ns(self) -> int:
        """Between two ticks of a CPU's clock, to begin with."""
        return 1_000_000_000 // self.frequency_hz if self.frequency_hz else START_PERIOD_NS
