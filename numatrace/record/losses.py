"""What was counted and not kept, and how faults are thinned out before that happens."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numatrace.record.bpf.probes import Probes
    from numatrace.trace.writer import TraceWriter

MAX_FAULT_EVERY = 1 << 16


class Losses:
    """Writes a `loss` row for whatever was lost since the row before."""

    def __init__(self, probes: Probes, writer: TraceWriter) -> None:
        self.probes = probes
        self.writer = writer
        self._seen: dict[tuple[str, str], int] = {}

    def write(self) -> None:
        """Read the kernel's loss counters."""
        for reason, total in self.probes.losses().items():
            self._add(reason, total - self._seen.get(reason, 0))

    def write_unsampled(self) -> None:
        """At the end: a row without an address for faults that no sampled record stands for."""
        pending = self.probes.faults_pending()
        if pending:
            self.writer.add_columns("fault", {"t_ns": time.monotonic_ns(), "weight": pending}, 1)

    def by_family(self) -> dict[str, int]:
        """Events lost so far."""
        totals: Counter[str] = Counter()
        for (family, _), count in self._seen.items():
            totals[family] += count
        return dict(totals)

    def _add(self, reason: tuple[str, str], count: int) -> None:
        if count <= 0:
            return
        self._seen[reason] = self._seen.get(reason, 0) + count
        self.writer.add_columns(
            "loss",
            {"t_ns": time.monotonic_ns(), "name": reason[0], "count": count, "detail": reason[1]},
            1,
        )


class FaultThinner:
    """Sends fewer fault records while faults come too fast; totals and weights stay exact."""

    def __init__(self, probes: Probes, records_per_s: int) -> None:
        self.probes = probes
        self.records_per_s = records_per_s
        self.every = 1
        self._since = time.monotonic()
        self._records = 0

    def saw(self, records: int) -> None:
        """Take note of drained fault records; every quarter of a second, decide anew."""
        self._records += records
        now = time.monotonic()
        elapsed_s = now - self._since
        if elapsed_s < 0.25:
            return
        self._choose(self._records / elapsed_s)
        self._since, self._records = now, 0

    def _choose(self, rate: float) -> None:
        every = self.every
        while rate > self.records_per_s and every < MAX_FAULT_EVERY:
            every, rate = every * 2, rate / 2
        while every > 1 and rate * 4 < self.records_per_s:
            every, rate = every // 2, rate * 2
        if every != self.every:
            self.every = every
            self.probes.set_fault_every(every)
