"""One recording after the other, with a trace or without, into one live model."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from numatrace.model.errors import NumatraceError, TraceError, UsageError
from numatrace.record.bpf.loader import Loading
from numatrace.record.session import Session
from numatrace.trace.output import check_output
from numatrace.watch.untraced import Untraced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numatrace.record.options import Options
    from numatrace.record.summary import Summary
    from numatrace.trace.writer import Tap

MAX_TRACES = 1000
INTERRUPTED = "interrupted"
TABLES = "reading the model's table of tensors"


class Listener(Protocol):
    """Who is told of what happens."""

    def tick(self) -> None:
        """An interval of the session is over: its totals are there."""

    def gap_begins(self) -> None:
        """Nothing is seen from now on, until `gap_ends`."""

    def gap_ends(self) -> None:
        """A new session has begun."""

    def say(self, text: str) -> None:
        """Something for the user to know."""


class Sessions:
    """A trace has to begin like any other, so a new session is made for it, and another after it.

    Its programs are compiled while the one before goes on.
    """

    def __init__(self, options: Options, pids: list[int], tap: Tap, listener: Listener) -> None:
        self.options = options
        self.tap = tap
        self.listener = listener
        self.written: list[Summary] = []
        """Of the traces that were completed."""
        self.traced: Path | None = None
        """The trace that is being written."""
        self.ended = ""
        """Why it is over: `targets`, or what `stop` was told."""
        self._pids = pids
        self._loading: Loading | None = None
        self._wanted: Path | None = None
        self._hurry = False
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        """The one that runs."""
        assert self._session is not None
        return self._session

    @property
    def waits(self) -> bool:
        """Whether the trace still lacks the table of the model's tensors, which is being read."""
        return self.traced is not None and self.session.memory.waits_for_tables

    def toggle(self) -> str:
        """Begin or end a trace as soon as it can be; returns what to say of it.

        Called again while a trace is about to end, it ends without waiting for the table of the
        model's tensors. Raises UsageError where a trace cannot be written.
        """
        if self._loading is not None:
            self._hurry = True
            return "the trace is about to end" if self.traced else "the trace is about to begin"
        wanted = None if self.traced else next_free(self.options.output)
        if wanted is not None:
            check_output(wanted, force=False)
        self._wanted, self._hurry = wanted, False
        self._loading = Loading(self.options.plan())
        if wanted is not None:
            return f"beginning {wanted.name}"
        return f"{TABLES}; r again to go without" if self.waits else f"ending {self.traced}"

    def begin(self, loading: Loading | None = None) -> None:
        """Begin a session; with a trace if one is wanted."""
        options = replace(self.options, started=time.monotonic())
        if self._wanted is None:
            session = Session(options, loading, Untraced(self.tap))
        else:
            session = Session(replace(options, output=self._wanted), loading)
            session.writer.tap = self.tap
        try:
            session.start(self._pids)
        except BaseException:
            session.abandon()
            raise
        self._session, self.traced = session, self._wanted

    def run(self, wait: Callable[[float], None]) -> None:
        """Run until `stop` is called or the targets are gone; calls `wait` between two looks."""

        def pause(seconds: float) -> None:
            wait(seconds)
            if self._can_switch():
                self.session.stop(INTERRUPTED)
                if self._hurry:
                    self.session.stop(INTERRUPTED)

        while not self.ended:
            try:
                self.session.run(lambda _: self.listener.tick(), pause)
            except TraceError as error:
                if self.traced is None:
                    raise
                self._go_on_without(error)
                continue
            if self.session.stop_reason == "targets":
                self.ended = "targets"
            elif not self.ended:
                self._switch()

    def stop(self, reason: str) -> None:
        """Have `run` return; a second time, have `end` not wait. Safe in a signal handler."""
        self.ended = self.ended or reason
        if self._session is not None:
            self._session.stop(INTERRUPTED)

    def end(self) -> None:
        """Complete the trace if there is one, and unload everything."""
        loading, self._loading = self._loading, None
        if loading is not None:
            loading.cancel()
        self._end_session()

    def _can_switch(self) -> bool:
        if self._loading is None or not self._loading.ready:
            return False
        return self._hurry or not self.waits

    def _switch(self) -> None:
        loading, self._loading = self._loading, None
        self._pids = list(self.session.targets.threads)
        self.listener.gap_begins()
        try:
            self._end_session()
            self.begin(loading)
        except (TraceError, UsageError) as error:
            self._begin_without(error)
        else:
            if self.traced is not None:
                self.listener.say("")  # it is shown all the time
        self.listener.gap_ends()

    def _go_on_without(self, error: NumatraceError) -> None:
        """The trace cannot go on: leave what there is of it."""
        loading, self._loading = self._loading, None
        if loading is not None:
            loading.cancel()
        self._pids = list(self.session.targets.threads)
        self.listener.gap_begins()
        self.abandon()
        self._begin_without(error)
        self.listener.gap_ends()

    def _begin_without(self, error: NumatraceError) -> None:
        self._wanted = None
        self.begin()
        self.listener.say(f"no trace: {error.why}; {error.what}")

    def _end_session(self) -> None:
        session, self._session = self._session, None
        path, self.traced = self.traced, None
        if session is None:
            return
        if path is None:
            session.abandon()
            return
        try:
            self.written.append(session.finish())
        except BaseException:
            session.abandon()
            raise
        self.listener.say(f"wrote {path.name}; next: numatrace analyze {path.name}")

    def abandon(self) -> None:
        """Leave at once after an error; what was flushed stays readable."""
        session, self._session = self._session, None
        self.traced = None
        if session is not None:
            session.abandon()


def next_free(path: Path) -> Path:
    """Return the path, or where there is such a file the first of FILE-2, FILE-3, ... without."""
    names = [path, *(path.with_stem(f"{path.stem}-{n}") for n in range(2, MAX_TRACES))]
    return next((name for name in names if not name.exists()), path)
