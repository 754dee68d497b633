"""Tells how much of the machine others used during a measurement: not the server, not the tool."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable

IDLE = (3, 4)
"""Columns of /proc/stat's first line that are not work: idle and iowait (proc_stat(5))."""

STEAL_END = 8
"""Columns up to here are disjoint; the guests' behind them are part of user time."""


@dataclass(frozen=True, slots=True)
class Moment:
    """CPU seconds so far: of the whole machine, what its host took included, and of ours."""

    t_s: float
    busy_s: float
    own_s: float
    theirs_s: float
    """Of the processes alone, their ended children included."""
    helpers_s: float
    """Of their children that run."""

    @classmethod
    def now(cls, pids: Iterable[int]) -> Moment:
        """Read both. Ours: these processes and their ended children, this one and its own."""
        theirs, helpers = (sum(part) for part in zip((0.0, 0.0), *map(_cpu_s, pids), strict=True))
        own = theirs + helpers
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
            usage = resource.getrusage(who)
            own += usage.ru_utime + usage.ru_stime
        words = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        jiffies = [int(word) for word in words[:STEAL_END]]
        busy = sum(jiffies) - sum(jiffies[column] for column in IDLE)
        return cls(time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), own, theirs, helpers)

    def others(self, later: Moment) -> float:
        """Share of the machine's CPU time that others used until `later`."""
        whole_s = (later.t_s - self.t_s) * (os.cpu_count() or 1)
        used_s = (later.busy_s - self.busy_s) - (later.own_s - self.own_s)
        return max(0.0, used_s / whole_s)

    def used_by(self, later: Moment) -> float:
        """CPUs that the processes used until `later`, on average."""
        return (later.theirs_s - self.theirs_s) / (later.t_s - self.t_s)

    def used_by_helpers(self, later: Moment) -> float:
        """CPUs that their children used that still run."""
        return (later.helpers_s - self.helpers_s) / (later.t_s - self.t_s)


def _cpu_s(pid: int) -> tuple[float, float]:
    """Of a process with its ended children, and of those that run."""
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        running = [child.cpu_times() for child in process.children()]
    except psutil.NoSuchProcess:
        return 0.0, 0.0
    return sum(times[:4]), sum(each.user + each.system for each in running)
