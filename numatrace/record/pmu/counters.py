"""A running `perf stat`: `counter` rows of each thread and interval.

Counted per thread and not per node: `perf stat --per-node` counts everything that runs there, and
whose traffic it is, is the question. With --per-thread a counter follows each thread that exists
at the start, wherever it runs; what threads born later do is counted with the thread that started
them (inherited counters), so nothing of a process is missing, but it may be at its parent's name.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from typing import TYPE_CHECKING

from numatrace.record.machine import procfs
from numatrace.record.pmu import process
from numatrace.record.pmu.perf_stat import StatReader
from numatrace.record.pmu.plan import stat_command

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence

    from numatrace.record.pmu.choose import Choice
    from numatrace.record.pmu.perf_stat import Count
    from numatrace.record.pmu.tables import Count as Event
    from numatrace.trace.writer import TraceWriter

NAME = "counters"
PIECE = 1 << 16
QUEUE_ROWS = 1 << 16
U64_MAX = (1 << 64) - 1
GRACE_S = 2.0


class PerfCounters:
    """Counts while recording, where there is something to count with."""

    def __init__(
        self, choice: Choice, writer: TraceWriter, note: Callable[[str, str], None]
    ) -> None:
        self.choice = choice
        self.writer = writer
        self.note = note
        self.reader = StatReader()
        self.dropped = 0
        self._queue: queue.Queue[tuple[int, Count]] = queue.Queue(QUEUE_ROWS)
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: process.Kept | None = None
        self._output: process.Kept | None = None
        self._thread: threading.Thread | None = None
        self._tgids: dict[int, int] = {}
        self._shares: dict[str, tuple[float, int]] = {}
        self._unsupported: set[str] = set()
        self._ended = False

    def start(self, pids: Sequence[int]) -> None:
        """Begin to count the threads of the processes."""
        for text in self.choice.count_why:
            if self.choice.perf and text:
                self.note(NAME, text)
        if self.choice.count is None or not pids:
            return
        log, fd = os.pipe()
        try:
            argv = stat_command(self.choice.perf, self.choice.count, pids, fd)
            self._process = process.start(argv, fds=[fd])
        except OSError as error:
            os.close(log)
            self.note(NAME, f"perf cannot be started: {error}")
            return
        finally:
            os.close(fd)
        self._tgids = {tid: pid for pid in pids for tid in procfs.thread_ids(pid)}
        self._output = process.Kept(self._process.stdout, process.TEXT_LIMIT)
        self._errors = process.Kept(self._process.stderr, process.TEXT_LIMIT)
        self._thread = threading.Thread(
            target=self._read, args=(log,), daemon=True, name="numatrace-perf-stat"
        )
        self._thread.start()

    @property
    def pids(self) -> tuple[int, ...]:
        """The perf process, until it has ended."""
        running = self._process is not None and self._process.poll() is None
        return (self._process.pid,) if self._process is not None and running else ()

    def look(self) -> None:
        """Write what was counted since the last look."""
        counted: list[tuple[int, Count]] = []
        with contextlib.suppress(queue.Empty):
            while True:
                counted.append(self._queue.get_nowait())
        if counted:
            self._write(counted)

    def stop(self) -> None:
        """Ask perf to end; it prints the interval it is in."""
        if self._process is not None and not self._ended:
            process.interrupt(self._process)

    def finish(self) -> None:
        """Write the last interval; say what was not counted all the time."""
        if self._process is None:
            return
        self.stop()
        killed = process.end(self._process, GRACE_S) is None
        self.close()
        self.look()
        if killed:
            self.note(NAME, "perf stat did not end in time and was killed")
        elif not self.reader.totals.counts:
            said = self._errors.data if self._errors else b""
            ran = process.Ran(self._process.returncode, b"", said)
            self.note(NAME, f"perf stat counted nothing: {ran.complaint}")
        for text in self._remarks():
            self.note(NAME, text)

    def close(self) -> None:
        """End perf at once."""
        self._ended = True
        if self._process is not None:
            process.kill(self._process)
        for thread in (self._thread, self._output, self._errors):
            if thread is not None:
                thread.join(1.0)

    def _read(self, fd: int) -> None:
        try:
            while piece := os.read(fd, PIECE):
                now_ns = time.monotonic_ns()
                for count in self.reader.feed(piece):
                    self._put((now_ns, count))
        except OSError:
            pass
        finally:
            os.close(fd)
            self.reader.close()

    def _put(self, counted: tuple[int, Count]) -> None:
        try:
            self._queue.put_nowait(counted)
        except queue.Full:
            self.dropped += 1

    def _write(self, counted: list[tuple[int, Count]]) -> None:
        rows = (self._row(t_ns, count) for t_ns, count in counted)
        self.writer.add_rows("counter", [row for row in rows if row is not None])

    def _row(self, t_ns: int, count: Count) -> dict[str, object] | None:
        """Return the row of a count, or None where nothing was counted: the thread did not run."""
        event = self._event(count.event)
        if event is None:
            return None
        if count.value is None:
            if count.reason == "not supported":
                self._unsupported.add(event.counter)
            return None
        shares, number = self._shares.get(event.counter, (0.0, 0))
        self._shares[event.counter] = (shares + count.running_share, number + 1)
        return {
            "t_ns": t_ns,
            "tgid": self._tgids.get(count.tid),
            "tid": count.tid if count.tid >= 0 else None,
            "name": event.counter,
            "count": min(round(max(0.0, count.value)), U64_MAX),
            "time_ns": min(count.running_ns, U64_MAX),
            "detail": event.detail,
        }

    def _event(self, printed: str) -> Event | None:
        """Return the event that perf prints so: by its name or as given, maybe with a modifier."""
        name = printed.partition(":")[0]
        counts = self.choice.count.counts if self.choice.count else ()
        return next((each for each in counts if name in (each.counter, each.event)), None)

    def _remarks(self) -> list[str]:
        """What a reader of the counts must know."""
        texts = [f"{name} is not supported here" for name in sorted(self._unsupported)]
        for name, (shares, number) in sorted(self._shares.items()):
            if shares < 0.99 * number:
                percent = 100 * shares / number
                texts.append(f"{name} was on the hardware {percent:.0f} % of the time, and scaled")
        lost = self.dropped + self.reader.totals.malformed
        return texts + ([f"{lost:,} rows of perf stat were not kept"] if lost else [])
