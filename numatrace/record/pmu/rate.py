"""How often samples are taken: when that is too often, and what their times mean."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numatrace.record.pmu.perf_script import Samples
    from numatrace.record.pmu.plan import SamplePlan

PACE_S = 2.0
"""Time over which perf's own CPU time is judged."""


class Pace:
    """Whether perf takes more of the machine than it may: judged over whole periods of PACE_S."""

    def __init__(self, limit: float, cpus: int) -> None:
        self.limit = limit
        self._cpus = max(1, cpus)
        self._cpu_s = 0.0
        self._since: float | None = None
        self._settled = False

    def restart(self) -> None:
        """Perf was started anew: the next period has its start in it, and is not judged."""
        self._since, self._settled = None, False

    def too_fast(self, cpu_s: float, now: float) -> bool:
        """Tell whether a period is over in which perf took too much.

        `cpu_s`: its CPU seconds so far; `now`: time.monotonic.
        """
        if self._since is None:
            self._since, self._cpu_s = now, cpu_s
        elapsed_s = now - self._since
        if elapsed_s < PACE_S:
            return False
        share = (cpu_s - self._cpu_s) / elapsed_s / self._cpus
        judged, self._settled = self._settled, True
        self._since, self._cpu_s = now, cpu_s
        return judged and share > self.limit


class Shift:
    """Puts the times of a hardware trace, which are perf's own, on CLOCK_MONOTONIC.

    The two clocks run alike and differ by a constant. The smallest difference between when a
    chunk's last sample was taken and when it came here is at most that much too large: as late as
    the first pings make it, some tenths of a second.
    """

    def __init__(self) -> None:
        self._shift_ns: int | None = None

    def onto_monotonic(self, samples: Samples, now_ns: int) -> Samples:
        """Return the samples with their times shifted; `now_ns` is CLOCK_MONOTONIC."""
        if not len(samples.t_ns):
            return samples
        shift_ns = now_ns - int(samples.t_ns.max())
        known = self._shift_ns
        self._shift_ns = shift_ns if known is None else min(known, shift_ns)
        moved = samples.t_ns.astype("i8") + self._shift_ns
        return samples._replace(t_ns=moved.clip(0).astype("u8"))


def rate_row(plan: SamplePlan, why: str) -> dict[str, Any]:
    """Return the `rate` row of a plan: how often samples are taken, and of what."""
    value = {
        "events": list(plan.events),
        "population": plan.population,
        "system_wide": plan.system_wide,
    }
    return {
        "t_ns": time.monotonic_ns(),
        "name": plan.samples,
        "time_ns": 1_000_000_000 // plan.hz if plan.hz else None,
        "count": plan.period or None,
        "detail": why,
        "value": json.dumps(value),
    }
