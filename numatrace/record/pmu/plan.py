"""What was chosen to be sampled and counted, and the command lines of `perf` that do it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from numatrace.record.pmu.perf_script import script_arguments

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numatrace.record.pmu.tables import Count, Counts

BUFFER_PAGES = 64
"""Pages of perf's buffer of each CPU; perf reads it when it is half full, or when pinged."""
AUX_PAGES = 256
"""Pages of the buffer of each CPU's hardware trace (SPE)."""
INTERVAL_MS = 1000


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """One `perf record`. `events` are sampled together, each an argument of -e.

    `hz`: samples per second and thread (per second and CPU, system-wide), or else `period`:
    events per sample. `system_wide`: the PMU refuses to follow single processes. `modern`: perf
    has --control and --synth (5.11 and 5.12). `fields`: what `perf script` can print of it.
    """

    samples: str
    events: tuple[str, ...]
    population: str
    hz: int = 0
    period: int = 0
    system_wide: bool = False
    modern: bool = True
    fields: tuple[str, ...] = ()

    @property
    def own_clock(self) -> bool:
        """Whether times are of perf's clock: a hardware trace is stamped by the CPU."""
        return self.samples == "spe"


@dataclass(frozen=True, slots=True)
class CountPlan:
    """One `perf stat`: what is counted for the threads of the targets."""

    sets: tuple[Counts, ...]

    @property
    def counts(self) -> tuple[Count, ...]:
        """Every event that is counted, in the order of perf's arguments."""
        return tuple(count for each in self.sets for count in each.events)


def record_arguments(plan: SamplePlan, output: str = "-") -> list[str]:
    """Return the arguments of `perf record`, without a target."""
    clock = [] if plan.own_clock else ["-k", "CLOCK_MONOTONIC"]
    pages = f"{BUFFER_PAGES},{AUX_PAGES}" if plan.own_clock else str(BUFFER_PAGES)
    rate = ["-F", str(plan.hz)] if plan.hz else ["-c", str(plan.period)]
    # A hardware trace is decoded with the help of what perf synthesizes about processes.
    synth = ["--synth=no"] if plan.modern and not plan.own_clock else []
    events = [word for event in plan.events for word in ("-e", event)]
    common = ["-q", "--no-buildid", "--no-buildid-cache", "-d", "-W", "-T", "--sample-cpu"]
    return ["record", *common, *clock, *synth, "-m", pages, *rate, *events, "-o", output]


def record_command(
    perf: str, plan: SamplePlan, pids: Iterable[int], control_fd: int | None = None
) -> list[str]:
    """Return the command that samples the processes, and all they start, to its output."""
    control = [] if control_fd is None else [f"--control=fd:{control_fd}"]
    target = ["-a"] if plan.system_wide else ["-p", ",".join(map(str, pids))]
    return [perf, *record_arguments(plan), *control, *target]


def script_command(perf: str, plan: SamplePlan) -> list[str]:
    """Return the command that turns that output, on its input, into text."""
    # Of a hardware trace only memory events: each other kind would be the same access once more.
    itrace = ["--itrace=M"] if plan.own_clock else []
    return [perf, "script", "-i", "-", *itrace, *script_arguments(plan.fields)]


def stat_command(perf: str, plan: CountPlan, pids: Iterable[int], log_fd: int) -> list[str]:
    """Return the command that counts for each thread and interval, as JSON rows on a descriptor."""
    events = [word for count in plan.counts for word in ("-e", count.argument)]
    each = ["--per-thread", "-I", str(INTERVAL_MS), "--log-fd", str(log_fd), "-j"]
    return [perf, "stat", *each, *events, "-p", ",".join(map(str, pids))]
