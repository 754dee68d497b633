"""One recording, from attach to the closed file."""

from __future__ import annotations

import gc
import os
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil

from numatrace.model.access import OPERAND
from numatrace.record.bpf.btf import thread_base_offset
from numatrace.record.bpf.loader import Loading
from numatrace.record.bpf.probes import Probes
from numatrace.record.drain import Drainer
from numatrace.record.losses import FaultThinner, Losses
from numatrace.record.machine import procfs
from numatrace.record.machine.documents import Documents
from numatrace.record.machine.surroundings import Surroundings
from numatrace.record.memory.memory import Memory
from numatrace.record.sampling.hardware import Hardware
from numatrace.record.sampling.meter import Meter
from numatrace.record.sampling.pace import Pace
from numatrace.record.sampling.sampler import AccessSampler
from numatrace.record.source import Sources
from numatrace.record.summary import Overhead, Sampling, Status, Summary
from numatrace.record.targets import Targets
from numatrace.record.tensors.watch import TensorWatch
from numatrace.record.totals import Totals
from numatrace.trace.writer import TraceWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numatrace.record.options import Options


HURRY_ABOVE, QUIET_BELOW = 1 / 8, 1 / 64
"""Share of a ring that was full at a look, above which the next one comes sooner, and below which
it comes later if no process began or ended either."""


class Session:
    """Follows the targets until told to stop: `start`, then `run`, then `finish`."""

    def __init__(
        self, options: Options, loading: Loading | None = None, writer: TraceWriter | None = None
    ) -> None:
        self.options = options
        self.began = self.ended = 0.0
        self.startup_cpu_s = self.recording_cpu_s = 0.0
        self.first_event_s: float | None = None
        self.stop_reason = ""
        self.hurry = False
        self.quiet = False
        """Whether the last look at the rings found little."""
        self.overhead: Overhead | None = None
        self._fresh: set[int] = set()
        loading = Loading(options.plan()) if loading is None else loading
        try:
            self.writer = writer if writer is not None else create_writer(options)
        except BaseException:
            loading.cancel()
            raise
        if options.access:  # while bcc compiles
            thread_base_offset(loading.plan.machine)
        try:
            self.probes = Probes(loading.plan, loading)
        except BaseException:
            self.writer.abandon()
            raise
        self.drainer = Drainer(self.probes.rings, self.writer)
        self.totals = Totals(self.probes, self.writer)
        self.losses = Losses(self.probes, self.writer)
        self.thinner = FaultThinner(self.probes, options.fault_records_per_s)
        self.targets = Targets(self.probes, follow=options.follow)
        self.documents = Documents(self.writer)
        self.surroundings = Surroundings(self.documents)
        self.memory = Memory(self.writer, options.place_interval_s, self.documents.note)
        self.sampler = AccessSampler(
            self.probes,
            self.writer,
            self.documents.note,
            options.first_period_ns,
            options.patience_s,
        )
        self.tensors = TensorWatch(
            self.probes,
            self.memory.finder,
            self.writer,
            self.documents.note,
            self.memory.look_again,
        )
        self.hardware = Hardware(
            self.writer, self.documents.note, lambda: self.targets.threads, options
        )
        self.sources = Sources(self.sampler, self.tensors, self.hardware)
        self.meter = Meter(self.probes, self.sampler, self.totals, lambda: self.hardware.cpu_s)
        self.pace = Pace(self.meter, self.sampler, self.thinner, options)

    def prepare(self, command: list[str]) -> None:
        """Look at a command that is about to be started, before `start`."""
        self.tensors.prepare(command)

    def start(self, pids: list[int]) -> None:
        """Follow the targets, and write what is there at attach."""
        self.meter.measure()
        self.pace.prepare()
        self.targets.attach(pids)
        self.probes.begin()
        for tgid, tids in self.targets.threads.items():
            self.totals.clock.start(tgid, tids)
        self.began = time.monotonic()
        self.startup_cpu_s = recorder_cpu_s()
        self.meter.start()
        self.sources.start()
        self.pace.start()
        self.documents.write_machine(self.probes.plan)
        for tgid in list(self.targets.threads):
            self._describe(tgid)
        for pid in pids:
            self.documents.write_starters(pid)
        self.look()
        self.surroundings.tick(self.targets.threads)
        self.writer.flush()
        self.writer.publish()

    def run(
        self, on_status: Callable[[Status], None], wait: Callable[[float], None] = time.sleep
    ) -> None:
        """Record until `stop` is called, the time is up, or the targets are gone.

        `wait` is called with the seconds until the next look; it may return early.
        """
        next_tick = time.monotonic() + self.options.interval_s
        with frozen():
            while not self.stop_reason:
                wait(self._pause_s(next_tick))
                self.look()
                if time.monotonic() >= next_tick:
                    self.tick()
                    on_status(self.status())
                    next_tick = max(next_tick + self.options.interval_s, time.monotonic())
                self._check_end()

    def stop(self, reason: str) -> None:
        """Ask `run` to end; a second time, ask `finish` not to wait. Safe in a signal handler."""
        self.hurry = bool(self.stop_reason)
        self.stop_reason = self.stop_reason or reason

    def look(self) -> None:
        """Drain the rings, and go after what they say about processes and threads."""
        drained = self.drainer.drain()
        if self.first_event_s is None and self.drainer.records:
            self.first_event_s = time.monotonic() - self.options.started
        self.thinner.saw(len(drained["fault"]))
        self.sources.look(drained)
        changes = self.targets.update(drained["sched"])
        self.quiet = self.drainer.fullest < QUIET_BELOW and not changes.any
        for tgid in dict.fromkeys([*changes.execed, *changes.gone]):
            self.sources.forget(tgid)
        for tgid in dict.fromkeys([*changes.born, *changes.execed]):
            self._describe(tgid)
        for tgid in changes.gone:
            self.memory.forget(tgid)

    def tick(self) -> None:
        """What is done once in an interval: totals, losses, mappings, placement, one batch."""
        self.totals.write()
        self.totals.forget(self.targets.reap())
        self.losses.write()
        for tgid in self.targets.sweep():
            self.memory.forget(tgid)
            self.sources.forget(tgid)
        self.sources.tick()
        self.pace.tick()
        self._describe_again()
        self.documents.write_interval(self.targets.threads)
        self.surroundings.tick(self.targets.threads)
        self.memory.update()
        self.writer.flush()

    def _describe(self, tgid: int) -> None:
        process = self.documents.write_process(tgid)
        if process is not None:
            self.memory.attach(tgid, process.argv)
            self._fresh.add(tgid)
            self.sources.attached(tgid)

    def _describe_again(self) -> None:
        """A second look at processes that began lately: names and policies are set at the start."""
        fresh, self._fresh = self._fresh, set()
        for tgid in fresh & self.targets.threads.keys():
            self.documents.write_process(tgid)

    def finish(self) -> Summary:
        """Write what is left, close the file, unload the programs."""
        self.look()
        self.totals.write()
        self.probes.pause()
        self.meter.stop()
        self.sources.stop()
        self.probes.stop()
        self.ended = time.monotonic()
        self.overhead = self.meter.overhead()
        self.recording_cpu_s = recorder_cpu_s() + self.sampler.helper_s - self.startup_cpu_s
        drained = self.drainer.drain()
        self.sources.look(drained)
        self.sources.finish()
        self.totals.write(running=False)
        self.losses.write()
        self.losses.write_unsampled()
        self.surroundings.finish(self.targets.threads)
        self.documents.write_growth(self.targets.faults_before, self.probes.unseen_turns())
        self.memory.finish(lambda: self.hurry)
        self.sources.finish()  # once more: the last tables of tensors may have come
        summary = self._summary()
        self.documents.write_end(summary)
        try:
            self.writer.close()
        finally:
            self._close()
        return replace(summary, status=self.status())

    def abandon(self) -> None:
        """Leave at once after an error; what was flushed stays readable."""
        self.memory.close()
        self.writer.abandon()
        self._close()

    def _close(self) -> None:
        self.sources.close()
        self.meter.close()
        self.probes.close()

    def status(self) -> Status:
        """Where the recording stands now."""
        return Status(
            elapsed_s=(self.ended or time.monotonic()) - self.began,
            rows=dict(self.writer.rows),
            faults=self.totals.faults,
            lost=self.losses.by_family(),
            size_bytes=self.writer.bytes_written,
        )

    def _pause_s(self, next_tick: float) -> float:
        now = time.monotonic()
        pause_s = self.options.quiet_s if self.quiet else self.options.drain_s
        if self.drainer.fullest > HURRY_ABOVE:
            pause_s /= 4
        until = min(now + min(pause_s, self.sources.pause_s), next_tick, self._deadline())
        return max(0.0, until - now)

    def _deadline(self) -> float:
        duration_s = self.options.duration_s
        return float("inf") if duration_s is None else self.began + duration_s

    def _check_end(self) -> None:
        if time.monotonic() >= self._deadline():
            self.stop("time")
        elif not self.targets.threads:
            self.stop("targets")

    def _summary(self) -> Summary:
        return Summary(
            status=self.status(),
            reason=self.stop_reason,
            output=str(self.options.output),
            startup_cpu_s=self.startup_cpu_s,
            recording_cpu_s=self.recording_cpu_s,
            recorder_peak_bytes=procfs.peak_bytes(),
            attached_s=self.began - self.options.started,
            first_event_s=self.first_event_s,
            server=self.documents.server(self.memory.gguf_bytes()),
            notes=tuple(self.documents.notes),
            overhead=self.overhead,
            sampling=self._sampling(),
        )

    def _sampling(self) -> Sampling | None:
        if not self.sampler.cpu_count:
            return None
        return Sampling(
            source=OPERAND,
            period_ns=self.sampler.ticks.period_ns,
            cpus=self.sampler.cpu_count,
            samples=self.sampler.samples,
            lost=self.losses.by_family().get("access", 0),
            budget=None if self.options.frequency_hz else self.options.max_overhead,
        )


@contextmanager
def frozen() -> Iterator[None]:
    """Have the collector leave alone what is there already: it stays, and is much to go through.

    Else it takes 30 ms of a CPU each time, twice that beside a server that keeps the caches busy.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def create_writer(options: Options) -> TraceWriter:
    """Create the trace file that the options name; raises UsageError and TraceError."""
    return TraceWriter.create(options.output, force=options.force, owner=sudo_owner(os.environ))


def recorder_cpu_s() -> float:
    """CPU seconds of this process and its ended children, user and system."""
    times = psutil.Process().cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def sudo_owner(environ: Mapping[str, str]) -> tuple[int, int] | None:
    """Who called sudo, as (uid, gid): the trace is to be theirs. None without sudo."""
    uid, gid = environ.get("SUDO_UID", ""), environ.get("SUDO_GID", "")
    if os.geteuid() != 0 or not (uid.isdecimal() and gid.isdecimal()):
        return None
    return int(uid), int(gid)
