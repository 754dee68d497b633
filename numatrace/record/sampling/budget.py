"""Choose the sampling period so that recording costs the followed processes what was agreed.

Costs are measured, as a share of the CPU time that the followed processes use (of one CPU, where
they use less): the recorder's own CPU time, the run time of the BPF programs, and the clock
interrupts that hit a followed thread. Interrupts elsewhere take the same share of others' time,
and none where a CPU is idle.

The threads of a compute pool wait for one another after every operation, so that what an interrupt
takes from one of them all of them lose (Petrini and others, "The Case of the Missing Supercomputer
Performance", 2003). On a machine with many CPUs a small share of all their time can be much of the
server's: so the interrupts of all together are also held below the budget as a share of one CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

START_PERIOD_NS = 5_023_000
"""199 Hz. The first period is no shorter."""

LEARN_NS = 100_000
"""Of the recorder for a sample at the beginning, when most code is new: 200 to 400 us were seen in
the first second, 20 in the tenth."""

MIN_HZ = 19
MAX_HZ = 997
"""Bounds within which the budget decides, in ticks a second of each CPU. The slowest costs 0.1 % of
the time where a tick and its sample cost 50 us: to go lower would save nothing and see little."""

AIM = 0.85
"""Of the budget: what is left is for what changes until the next decision."""

DEADBAND = 1.2
"""By a smaller factor the period is not changed: each change restarts every CPU's clock."""

LONGER, SHORTER = 3.0, 2.0
"""Most that one decision changes the period by. It gives way faster than it comes back."""

JITTER = 0.03

FAULT_SHARE = 0.2
FAULT_NS = 400
"""Share of the budget that records of single page faults may take, and what one costs: 225 ns of
the recorder (`numatrace guide cost`), the rest in the kernel."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Measured costs of one event, in nanoseconds."""

    tick_ns: float
    """Of the clock's interrupt."""
    program_ns: float
    """Of the sampling program, at a tick that hits a followed thread."""
    reader_ns: float
    """Of the recorder, for each sample."""

    @property
    def interrupt_ns(self) -> float:
        """What a tick takes from a followed thread."""
        return self.tick_ns + self.program_ns


@dataclass(frozen=True, slots=True)
class Load:
    """What happened in a stretch of time, per second of it."""

    used_cpus: float
    """CPU time of the followed processes."""
    samples: float
    """Clock ticks that hit a followed thread."""
    recorder_cpus: float
    """CPU time of the recorder, what it took for samples apart."""
    program_cpus: float
    """CPU time of the other BPF programs."""
    learning_cpus: float = 0.0
    """CPU time of the recorder for decoding code that was new to it: fewer samples meet less of
    it, and it ends."""

    @property
    def whole_cpus(self) -> float:
        """What the budget is a share of."""
        return max(1.0, self.used_cpus)


def sampling_cpus(load: Load, costs: Costs) -> float:
    """CPU time per second that goes with the sampling rate."""
    readers = load.samples * costs.reader_ns / 1e9
    return interrupt_cpus(load, costs) + readers + load.learning_cpus


def interrupt_cpus(load: Load, costs: Costs) -> float:
    """Of that, what is taken from the followed threads in the middle of their work."""
    return load.samples * costs.interrupt_ns / 1e9


def overhead(load: Load, costs: Costs) -> float:
    """All cost as a share of the followed processes' CPU time."""
    fixed = load.recorder_cpus + load.program_cpus
    return (fixed + sampling_cpus(load, costs)) / load.whole_cpus


@dataclass(frozen=True, slots=True)
class Bounds:
    """Shortest and longest period in nanoseconds."""

    shortest_ns: int
    longest_ns: int

    def clip(self, period_ns: float) -> float:
        """The nearest period within."""
        return min(max(period_ns, self.shortest_ns), self.longest_ns)


def next_period(period_ns: int, load: Load, costs: Costs, budget: float, bounds: Bounds) -> float:
    """The period at which the overhead would come to AIM of the budget, or a step towards it.

    What goes with the rate is inversely proportional to the period, the rest is not. Nor are the
    interrupts to come to more of one CPU. The period itself is returned where the change is not
    worth it, or nothing ran that a tick could hit.
    """
    variable = sampling_cpus(load, costs)
    if variable <= 0:
        return period_ns
    room = AIM * budget * load.whole_cpus - load.recorder_cpus - load.program_cpus
    factor = variable / room if room > 0 else LONGER
    interrupts = interrupt_cpus(load, costs)
    factor = max(factor, interrupts / (AIM * budget))
    wanted = bounds.clip(period_ns * min(max(factor, 1 / SHORTER), LONGER))
    small = 1 / DEADBAND < wanted / period_ns < DEADBAND
    slowest = wanted >= bounds.longest_ns and wanted / period_ns <= 1 + 2 * JITTER
    within = overhead(load, costs) <= budget and interrupts <= budget
    return period_ns if small and (within or slowest) else wanted


def first_period(costs: Costs, budget: float, bounds: Bounds, cpus: int) -> float:
    """The period to begin with, when nothing is known of the load, and all code is new."""
    busiest_ns = max(costs.interrupt_ns + LEARN_NS, costs.interrupt_ns * cpus)
    return bounds.clip(max(busiest_ns / (AIM * budget), START_PERIOD_NS))


def fault_records(load: Load, budget: float, most: int) -> int:
    """How many records of single faults a second the budget has room for, up to `most`."""
    return min(most, int(FAULT_SHARE * budget * load.whole_cpus * 1e9 / FAULT_NS))


def scattered(period_ns: float, bounds: Bounds, rng: random.Random) -> int:
    """A period near the given one that is a prime number of microseconds.

    A round one could keep step with what the server does for each token, and always see the same.
    """
    near_us = int(bounds.clip(period_ns * rng.uniform(1 - JITTER, 1 + JITTER))) // 1000
    while not _is_prime(near_us):
        near_us += 1
    return near_us * 1000


def _is_prime(number: int) -> bool:
    if number < 4:
        return number > 1
    return all(number % divisor for divisor in (2, *range(3, int(number**0.5) + 1, 2)))
