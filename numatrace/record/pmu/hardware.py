"""Source of `access` and `counter` rows: the CPU's own samples and counters, while recording."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from numatrace.record.machine import procfs
from numatrace.record.machine.sysfs import ROOT, online_cpus
from numatrace.record.pmu.counters import PerfCounters
from numatrace.record.pmu.perf_session import PerfSampling
from numatrace.record.pmu.rate import Pace, Shift, rate_row
from numatrace.record.pmu.resctrl import Resctrl
from numatrace.record.pmu.rows import AccessColumns, Filtered, Nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from numatrace.record.drain import Array
    from numatrace.record.pmu.choose import Choice
    from numatrace.record.pmu.perf_script import Samples
    from numatrace.record.pmu.plan import SamplePlan
    from numatrace.trace.writer import TraceWriter

PING_S = 0.5
"""Between two requests to perf to hand over what it holds."""
MAX_OVERHEAD = 0.01
MAX_EVENTS = 50_000
"""perf opens one event for each thread and CPU, so that new threads inherit it; above this number
the whole machine is sampled and what is not followed is dropped."""
MIN_HZ = 10
FAMILY = "access"
NAME = "hardware samples"


class HardwareSource:
    """Runs what a Choice says: samples and counters of the followed processes (record/source.py).

    `targets`: tgids that are followed now. `max_overhead`: share of all CPUs' time that perf may
    take before sampling is slowed down. Whatever fails becomes a note; nothing raises.
    """

    def __init__(  # noqa: PLR0913 -- what a session has to give
        self,
        choice: Choice,
        writer: TraceWriter,
        note: Callable[[str, str], None],
        targets: Callable[[], Iterable[int]],
        max_overhead: float = MAX_OVERHEAD,
        root: Path = ROOT,
    ) -> None:
        self.choice = choice
        self.writer = writer
        self.note = note
        self.targets = targets
        self.rows = 0
        """Rows of kind `access` written so far."""
        self.lost: dict[str, int] = {}
        """Samples that were taken and not kept, by reason."""
        self._followed: set[int] = set()
        self._columns: AccessColumns | None = None
        self._sessions: list[PerfSampling] = []
        """The one that samples, and before it those that were asked to end for it."""
        self._counters = PerfCounters(choice, writer, note)
        self._resctrl = Resctrl(writer, root)
        self._root = root
        self._shift = Shift()
        self._cpus = len(online_cpus(root))
        self._pace = Pace(max_overhead, self._cpus)
        self._pinged = 0.0
        self._ended = False

    def start(self) -> None:
        """Start perf for the processes that are followed by now."""
        self._followed.update(self.targets())
        pids = sorted(self._followed)
        self._resctrl.start()
        self._counters.start(pids)
        if self.choice.sample is not None and pids:
            self._columns = AccessColumns(self.choice.sample.samples, Nodes.read(self._root))
            plan, why = self.choice.sample, "as asked for"
            events = sum(len(procfs.thread_ids(pid)) for pid in pids) * self._cpus
            if events > MAX_EVENTS and not plan.system_wide:
                plan, why = replace(plan, system_wide=True), f"{events} events are too many to open"
            self._sample(plan, pids, why)

    @property
    def sampling(self) -> bool:
        """Whether samples come. False from the start where there are none, or once perf ended."""
        return bool(self._sessions) and self._sessions[-1].running

    @property
    def cpu_s(self) -> float:
        """CPU seconds that the running perf processes took so far; the ended ones' are children's.

        What the kernel spends on taking a sample is in the sampled thread's time, not in here.
        """
        pids = [pid for session in self._sessions for pid in session.pids]
        return sum(map(procfs.cpu_s, (*pids, *self._counters.pids)))

    def look(self, _drained: Mapping[str, Array] | None = None) -> None:
        """Write the samples and counts that came in."""
        self._counters.look()
        self._take()
        now = time.monotonic()
        if self._sessions and now - self._pinged >= PING_S:
            self._sessions[-1].ping()
            self._pinged = now

    def tick(self) -> None:
        """Write losses and bandwidth; slow down if need be; say when perf has ended too early."""
        self._resctrl.read()
        self._write_losses()
        if not self._sessions or self._ended:
            return
        if not self.sampling:
            self._ended = True
            self._take()
            if any(self.targets()):
                self.note(NAME, self._sessions[-1].failure() or "perf ended before the recording")
        elif self._pace.too_fast(self.cpu_s, time.monotonic()):
            self.slow_down(f"perf took more than {self._pace.limit:.1%} of the machine's CPU time")

    def slow_down(self, why: str) -> None:
        """Take half as many samples from now on, down to a floor."""
        plan = self._sessions[-1].plan if self._sessions else None
        if plan is None or (plan.hz and plan.hz // 2 < MIN_HZ):
            return
        slower = replace(plan, hz=plan.hz // 2, period=plan.period * 2)
        self._sessions[-1].stop()
        pids = sorted(set(self.targets()) & self._followed)
        if pids:
            self._sample(slower, pids, why)

    def attached(self, tgid: int) -> None:
        """Keep the samples of this process too: perf follows children by itself."""
        self._followed.add(tgid)

    def forget(self, _tgid: int) -> None:
        """Nothing: samples of an ended process still come."""

    def stop(self) -> None:
        """Ask perf to end."""
        self._counters.stop()
        for session in self._sessions:
            session.stop()

    def finish(self) -> None:
        """Take what perf still has, within a bounded time, and account for what was not kept."""
        self._counters.finish()
        self._resctrl.read()
        for session in self._sessions:
            for chunks in session.finish():
                self._write(session, chunks)
            failure = session.failure()
            if failure and not self._ended:
                self.note(NAME, failure)
        self._write_losses()
        for text in self._remarks():
            self.note(NAME, text)

    def close(self) -> None:
        """End perf at once."""
        self._counters.close()
        for session in self._sessions:
            session.kill()

    def _sample(self, plan: SamplePlan, pids: list[int], why: str) -> None:
        session = PerfSampling(self.choice.perf, plan)
        try:
            session.start(pids)
        except OSError as error:
            self.note(NAME, f"perf cannot be started: {error}")
            return
        self._sessions.append(session)
        self._pace.restart()
        self.writer.add_rows("rate", [rate_row(plan, why)])

    def _take(self) -> None:
        for session in self._sessions:
            self._write(session, session.take())

    def _write(self, session: PerfSampling, chunks: Iterable[Samples]) -> None:
        columns = self._columns
        for samples in chunks:
            if columns is None:
                continue
            if session.plan.own_clock:
                samples = self._shift.onto_monotonic(samples, time.monotonic_ns())
            made, count = columns.make(samples, session.reader.events, self._followed)
            self.writer.add_columns("access", made, count)
            self.rows += count

    def _write_losses(self) -> None:
        sessions = self._sessions
        totals = {
            "perf's buffer was full": sum(each.tap.totals.lost for each in sessions),
            "perf printed what is no sample": sum(
                each.reader.totals.malformed for each in sessions
            ),
            "the recorder was too slow": sum(each.dropped for each in sessions),
        }
        for reason, total in totals.items():
            count = total - self.lost.get(reason, 0)
            if count > 0:
                self.lost[reason] = total
                row = {"t_ns": time.monotonic_ns(), "name": FAMILY, "count": count}
                self.writer.add_rows("loss", [row | {"detail": reason}])

    def _remarks(self) -> list[str]:
        """What is neither a row nor a loss: numbers of samples left out, and of pauses."""
        streams = [session.tap.totals for session in self._sessions]
        filtered = self._columns.filtered if self._columns else Filtered()
        counts = {
            "samples neither read nor wrote memory": filtered.no_access,
            "samples were of processes that are not followed": filtered.others,
            "samples were of the auxiliary event": filtered.auxiliary,
            "times the kernel paused sampling, to keep within its limits": sum(
                each.throttled for each in streams
            ),
            "pieces of hardware trace were cut, their buffer was full": sum(
                each.truncated for each in streams
            ),
        }
        texts = [f"{count:,} {text}" for text, count in counts.items() if count]
        if any(each.broken for each in streams):
            texts.append("perf's stream could not be checked for losses")
        return texts
