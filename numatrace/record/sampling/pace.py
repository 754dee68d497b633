"""Keep sampling within its budget while a recording runs; each choice is a row of the trace."""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from numatrace.model.access import OPERAND
from numatrace.record.machine.files import read_integer
from numatrace.record.sampling.budget import (
    MAX_HZ,
    MIN_HZ,
    Bounds,
    fault_records,
    first_period,
    next_period,
    overhead,
    scattered,
)

if TYPE_CHECKING:
    from numatrace.record.losses import FaultThinner
    from numatrace.record.options import Options
    from numatrace.record.sampling.budget import Load
    from numatrace.record.sampling.meter import Meter
    from numatrace.record.sampling.sampler import AccessSampler

NS = 1_000_000_000
FIRST_S = 3.0
DECIDE_S = 5.0
"""Before the first decision, and between two."""

KERNEL_MAX_HZ = "/proc/sys/kernel/perf_event_max_sample_rate"


class Pace:
    """Decides the sampling period and the rate of fault records, every few seconds."""

    def __init__(
        self, meter: Meter, sampler: AccessSampler, thinner: FaultThinner, options: Options
    ) -> None:
        self.meter = meter
        self.sampler = sampler
        self.thinner = thinner
        self.options = options
        self.bounds = Bounds(NS // MAX_HZ, NS // MIN_HZ)
        self._random = random.Random()
        self._due = 0.0
        self._began = False

    def prepare(self) -> None:
        """Choose the rate to begin with; the cost of a tick is measured."""
        if not self.options.frequency_hz:
            budget, cpus = self.options.max_overhead, os.cpu_count() or 1
            first = first_period(self.meter.costs, budget, self.bounds, cpus)
            self.sampler.first_period_ns = scattered(first, self.bounds, self._random)

    def start(self) -> None:
        """Say at which rate the sampler began."""
        self._due = time.monotonic() + FIRST_S
        if self.sampler.cpu_count:
            self._limit()
            self._write("fixed by -F" if self.options.frequency_hz else "to begin with", None)

    def tick(self) -> None:
        """Decide, when it is time."""
        self.meter.tick()
        if not self._began:
            self._began = True
            self.meter.load()  # what attaching took is no measure of what comes
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + DECIDE_S
        load = self.meter.load()
        most = self.options.fault_records_per_s
        self.thinner.records_per_s = fault_records(load, self.options.max_overhead, most)
        if self.sampler.cpu_count:
            self._decide(load)

    def _limit(self) -> None:
        """Sample no faster than the kernel lets us and than the ring holds between two looks."""
        samples = self.sampler.room() / (2 * self.options.drain_s)
        limit_hz = samples / self.sampler.cpu_count
        limit_hz = min(limit_hz, read_integer(KERNEL_MAX_HZ) or limit_hz)
        self.bounds = Bounds(int(NS / max(min(limit_hz, MAX_HZ), MIN_HZ)), NS // MIN_HZ)
        hz = self.options.frequency_hz
        if hz and hz > limit_hz:
            self.sampler.note("-F", f"samples may be lost at more than {limit_hz:.0f} Hz here")
        if not hz and self.sampler.ticks.period_ns < self.bounds.shortest_ns:
            self.sampler.ticks.set_period(self.bounds.shortest_ns)

    def _decide(self, load: Load) -> None:
        period_ns, costs = self.sampler.ticks.period_ns, self.meter.costs
        if self.options.frequency_hz:
            self._write("fixed by -F", load)
            return
        wanted = next_period(period_ns, load, costs, self.options.max_overhead, self.bounds)
        over = overhead(load, costs) > self.options.max_overhead
        if wanted == period_ns:
            self._write(
                "over the budget at the slowest rate" if over else "within the budget", load
            )
            return
        self.sampler.ticks.set_period(scattered(wanted, self.bounds, self._random))
        self._write("over the budget" if wanted > period_ns else "below the budget", load)

    def _write(self, why: str, load: Load | None) -> None:
        """A `rate` row: the period from now on, and what was measured before."""
        costs = self.meter.costs
        value: dict[str, object] = {"cpus": self.sampler.cpu_count, "costs": asdict(costs)}
        if not self.options.frequency_hz:
            value["budget"] = self.options.max_overhead
        if load is not None:
            value |= {"overhead": overhead(load, costs), "load": asdict(load)}
        row = {
            "t_ns": time.monotonic_ns(),
            "name": OPERAND,
            "time_ns": self.sampler.ticks.period_ns,
            "detail": why,
            "value": json.dumps(value),
        }
        self.sampler.writer.add_rows("rate", [row])
