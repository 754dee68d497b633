"""A running `perf record | perf script`: samples as they come, and an end in bounded time."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from typing import IO, TYPE_CHECKING

from numatrace.record.pmu import process
from numatrace.record.pmu.perf_script import Samples, ScriptReader
from numatrace.record.pmu.plan import record_command, script_command
from numatrace.record.pmu.tap import StreamTap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numatrace.record.pmu.plan import SamplePlan

PIECE = 1 << 16
"""Bytes per read of a pipe: what a pipe holds."""
QUEUE_CHUNKS = 256
"""Chunks of samples that wait to be taken; what comes while it is full is dropped, and counted."""


class PerfSampling:
    """One pair of perf processes, and the threads that carry bytes from one to the other.

    perf record -> this process, which counts records as they pass -> perf script -> samples.
    Nothing here waits for perf but `finish`, and that not longer than it is told.
    """

    def __init__(self, perf: str, plan: SamplePlan, queue_chunks: int = QUEUE_CHUNKS) -> None:
        self.perf = perf
        self.plan = plan
        self.tap = StreamTap()
        self.reader = ScriptReader(plan.fields)
        self.dropped = 0
        """Samples that came while nobody took any."""
        self._queue: queue.Queue[Samples] = queue.Queue(queue_chunks)
        self._record: subprocess.Popen[bytes] | None = None
        self._script: subprocess.Popen[bytes] | None = None
        self._errors: dict[str, process.Kept] = {}
        self._threads: list[threading.Thread] = []
        self._control = -1
        self._told = False
        self._killed = False

    def start(self, pids: Sequence[int]) -> None:
        """Begin to sample the processes. Raises OSError when perf cannot be started."""
        control = os.pipe() if self.plan.modern else (None, None)
        try:
            argv = record_command(self.perf, self.plan, pids, control[0])
            fds = [] if control[0] is None else [control[0]]
            self._record = process.start(argv, fds=fds)
            self._script = process.start(
                script_command(self.perf, self.plan), stdin=subprocess.PIPE
            )
        except OSError:
            self.kill()
            raise
        finally:
            if control[0] is not None and control[1] is not None:
                os.close(control[0])
                self._control = control[1]
                os.set_blocking(self._control, False)
        self._errors = {
            "record": process.Kept(self._record.stderr, process.TEXT_LIMIT),
            "script": process.Kept(self._script.stderr, process.TEXT_LIMIT),
        }
        self._run(self._carry, self._record.stdout, self._script.stdin)
        self._run(self._read, self._script.stdout)

    @property
    def running(self) -> bool:
        """Whether samples may still come."""
        return any(thread.is_alive() for thread in self._threads)

    @property
    def pids(self) -> tuple[int, ...]:
        """The perf processes that have not been reaped."""
        found = (each for each in (self._record, self._script) if each is not None)
        return tuple(each.pid for each in found if each.poll() is None)

    def ping(self) -> None:
        """Make perf write what its buffers hold; without, it waits until one is half full."""
        if self._control >= 0:
            with contextlib.suppress(OSError):  # full: perf does not answer; broken: perf is gone
                os.write(self._control, b"ping\n")

    def take(self) -> list[Samples]:
        """Return what came since the last call, without waiting."""
        taken: list[Samples] = []
        with contextlib.suppress(queue.Empty):
            while True:
                taken.append(self._queue.get_nowait())
        return taken

    def stop(self) -> None:
        """Ask perf to end, as Ctrl-C would; once, a second time would cut its output short."""
        if self._record is not None and not self._told and self._record.poll() is None:
            process.interrupt(self._record)
            self._told = True

    def finish(self, seconds: float = process.GRACE_S) -> Iterator[list[Samples]]:
        """Yield what still comes until perf has ended; kill it when the time is up."""
        self.stop()
        until = process.deadline(seconds)
        while self.running and time.monotonic() < until:
            yield self.take()
            time.sleep(0.01)
        self._killed = self.running
        self.kill()
        yield self.take()

    def kill(self) -> None:
        """End at once; may come at any time and more than once."""
        for each in (self._record, self._script):
            if each is not None:
                process.kill(each)
        for thread in [*self._threads, *self._errors.values()]:
            thread.join(1.0)
        if self._control >= 0:
            os.close(self._control)
            self._control = -1

    def failure(self) -> str:
        """Return why perf gave no good end, or "". To be asked after the end."""
        if self._killed:
            return "perf did not end in time and was killed"
        for name, each in (("record", self._record), ("script", self._script)):
            status = None if each is None else each.poll()
            # perf record ends by the signal that it was sent.
            if status and not (self._told and status == -signal.SIGINT):
                said = self._errors[name].data
                return f"perf {name}: {process.Ran(status, b'', said).complaint}"
        if self.tap.totals.samples and not self.reader.totals.samples:
            return f"perf script made none of {self.tap.totals.samples} samples into text"
        return ""

    def _run(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(
            target=target,  # type: ignore[arg-type]
            args=arguments,
            daemon=True,
            name="numatrace-perf",
        )
        self._threads.append(thread)
        thread.start()

    def _carry(self, source: IO[bytes], sink: IO[bytes]) -> None:
        """Carry the stream from one process to the other, counting what it holds."""
        with contextlib.suppress(OSError, ValueError), source, sink:
            while piece := os.read(source.fileno(), PIECE):
                self.tap.feed(piece)
                _write(sink.fileno(), piece)

    def _read(self, source: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError), source:
            while piece := os.read(source.fileno(), PIECE):
                for samples in self.reader.feed(piece):
                    self._put(samples)
        for samples in self.reader.close():
            self._put(samples)

    def _put(self, samples: Samples) -> None:
        try:
            self._queue.put_nowait(samples)
        except queue.Full:
            self.dropped += len(samples.t_ns)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
