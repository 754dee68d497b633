"""The clocks of all CPUs, each of which runs the sampling program at every tick."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.record.bpf import perf_event
from numatrace.record.bpf.btf import thread_base_offset
from numatrace.record.machine import sysfs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numatrace.record.bpf.probes import Probes


class Ticks:
    """One perf event per online CPU, all of one period.

    Methods that open clocks return what they could not have, a sentence each; the rest ticks.
    """

    def __init__(self, probes: Probes) -> None:
        self.probes = probes
        self.period_ns = 0
        self._fds: dict[int, int] = {}
        self._base_offset = 0

    @property
    def cpus(self) -> tuple[int, ...]:
        """CPUs whose clocks tick."""
        return tuple(self._fds)

    def start(self, period_ns: int) -> list[str]:
        """Let the clocks tick, if there is a program for them to run."""
        plan = self.probes.plan
        if "access" not in self.probes.programs:
            unknown = f"the registers of {plan.machine} are not known here"
            return [self.probes.refused.get("access", unknown)]
        self._base_offset = thread_base_offset(plan.machine) or 0
        self.set_period(period_ns)
        return self.follow_cpus()

    def follow_cpus(self) -> list[str]:
        """Open the clocks of CPUs that came online, and close those of CPUs that went."""
        online = set(sysfs.online_cpus())
        for cpu in self._fds.keys() - online:
            perf_event.close(self._fds.pop(cpu))
        refused = {}
        program = self.probes.programs["access"]
        for cpu in sorted(online - self._fds.keys()):
            try:
                self._fds[cpu] = perf_event.open_tick(cpu, self.period_ns, program)
            except OSError as error:
                refused[cpu] = str(error)
        return _by_reason(refused)

    def set_period(self, period_ns: int) -> None:
        """Change the time between ticks of every CPU, which is also what a sample weighs."""
        self.period_ns = period_ns
        self.probes.set_access(period_ns, self._base_offset)
        for cpu, fd in list(self._fds.items()):
            try:
                perf_event.set_period(fd, period_ns)
            except OSError:  # the CPU went: `follow_cpus` opens it anew when it comes back
                perf_event.close(self._fds.pop(cpu))

    def close(self) -> None:
        """Stop all clocks."""
        for fd in self._fds.values():
            perf_event.close(fd)
        self._fds.clear()


def _by_reason(refused: Mapping[int, str]) -> list[str]:
    return [
        f"CPU {', '.join(str(cpu) for cpu in refused if refused[cpu] == why)}: {why}"
        for why in dict.fromkeys(refused.values())
    ]
