"""Meter what a recording costs: the recorder's CPU time, its BPF programs, the clock interrupts."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from numatrace.record.bpf.plan import PROGRAMS
from numatrace.record.sampling.budget import Costs, Load
from numatrace.record.sampling.costs import PROGRAM_NS, ProgramStats, measure_tick_ns
from numatrace.record.summary import Overhead

if TYPE_CHECKING:
    from collections.abc import Callable

    from numatrace.record.bpf.probes import Probes
    from numatrace.record.sampling.sampler import AccessSampler
    from numatrace.record.totals import Totals

NS = 1e9

STATS_EVERY = 8
"""Intervals of which one is used to count the programs' run time."""

READER_NS = 20_000.0
"""Of the recorder for each sample, until it is measured."""

LEAST = 50
"""So many samples or ticks make a measurement."""

LEARN_SAMPLES = 10_000
"""So many samples teach the resolver most of a server's instructions, each of which it decodes
once. As that does not grow with the rate, a sample counts as no more than READER_NS until then."""


@dataclass(frozen=True, slots=True)
class _Counts:
    """Running totals at one moment."""

    t_s: float
    used_ns: int
    taken: int
    samples: int
    own_s: float
    running_s: float
    ended_s: float
    reader_s: float


class Meter:
    """Costs by the event, and what they came to."""

    def __init__(
        self,
        probes: Probes,
        sampler: AccessSampler,
        totals: Totals,
        running_helpers_s: Callable[[], float],
    ) -> None:
        self.sampler = sampler
        self.totals = totals
        self.running_helpers_s = running_helpers_s
        """CPU time of children that have not ended yet."""
        self.costs = Costs(0.0, PROGRAM_NS, READER_NS)
        self.program_cpus = 0.0
        """CPU time per second of all programs but the sampling one, in the last window."""
        self._program_s = 0.0
        self._programs_since = 0.0
        self._stats = ProgramStats(probes.descriptors())
        self._intervals = 0
        self._began = self._last = self._counts()

    def measure(self) -> None:
        """Measure the clock's cost, if it is to tick. Takes some milliseconds."""
        if self.sampler.wanted:
            self.costs = Costs(measure_tick_ns(), PROGRAM_NS, READER_NS)

    def start(self) -> None:
        """Count from now on."""
        self._began = self._last = self._counts()
        self._programs_since = self._began.t_s
        self._stats.begin()

    def tick(self) -> None:
        """Once in an interval: begin or end a window in which the programs' time is counted."""
        if self._intervals % STATS_EVERY == 0:
            self._take_programs()
        elif self._intervals % STATS_EVERY == STATS_EVERY - 1:
            self._stats.begin()
        self._intervals += 1

    def load(self) -> Load:
        """What happened since the last call."""
        before, now = self._last, self._counts()
        self._last = now
        seconds = max(now.t_s - before.t_s, 1e-6)
        taken = now.taken - before.taken
        samples, reader_s = now.samples - before.samples, now.reader_s - before.reader_s
        if samples >= LEAST:
            reader_ns = reader_s / samples * NS
            if now.samples < LEARN_SAMPLES:
                reader_ns = min(reader_ns, READER_NS)
            self.costs = Costs(self.costs.tick_ns, self.costs.program_ns, reader_ns)
        learning_s = max(0.0, reader_s - samples * self.costs.reader_ns / NS)
        own_s = now.own_s - before.own_s - reader_s
        helpers_s = max(0.0, now.running_s - before.running_s)
        return Load(
            used_cpus=(now.used_ns - before.used_ns) / NS / seconds,
            samples=taken / seconds,
            recorder_cpus=(own_s + helpers_s) / seconds,
            program_cpus=self.program_cpus,
            learning_cpus=learning_s / seconds,
        )

    def stop(self) -> None:
        """Count no more; the programs are about to be detached."""
        self._take_programs()

    def overhead(self) -> Overhead:
        """What the whole recording has cost so far."""
        began, now = self._began, self._counts()
        seconds = max(now.t_s - began.t_s, 1e-6)
        samples = now.taken - began.taken
        tick_ns = samples * self.costs.interrupt_ns
        rest_s = (now.t_s - self._programs_since) * self.program_cpus
        return Overhead(
            used_cpus=(now.used_ns - began.used_ns) / NS / seconds,
            recorder_cpus=(now.own_s - began.own_s + now.running_s) / seconds,
            program_cpus=(self._program_s + rest_s) / seconds,
            tick_cpus=tick_ns / NS / seconds,
            samples_per_s=samples / seconds,
            helpers_s=now.ended_s - began.ended_s,
        )

    def close(self) -> None:
        """Stop counting, in whatever state."""
        self._stats.close()

    def _take_programs(self) -> None:
        seconds, grown = self._stats.end()
        if not seconds:
            return
        now = time.monotonic()
        run_ns, runs = grown.pop(PROGRAMS["access"][1], (0, 0))
        if runs >= LEAST:
            # Of all ticks: those that hit others end sooner, but most of a tick is the interrupt.
            self.costs = Costs(self.costs.tick_ns, run_ns / runs, self.costs.reader_ns)
        self.program_cpus = sum(ns for ns, _ in grown.values()) / NS / seconds
        self._program_s += (now - self._programs_since) * self.program_cpus
        self._programs_since = now

    def _counts(self) -> _Counts:
        times = os.times()
        return _Counts(
            t_s=time.monotonic(),
            used_ns=self.totals.oncpu_ns,
            taken=self.sampler.taken,
            samples=self.sampler.samples,
            own_s=time.process_time(),
            running_s=self.running_helpers_s(),
            ended_s=times.children_user + times.children_system + self.sampler.helper_s,
            reader_s=self.sampler.reader_s,
        )
