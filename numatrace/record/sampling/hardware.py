"""Hardware sampling beside operand sampling: find out in the background whether there is any."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numatrace.record.drain import Array
    from numatrace.record.options import Options
    from numatrace.record.pmu.choose import Choice
    from numatrace.record.pmu.hardware import HardwareSource
    from numatrace.trace.writer import TraceWriter

NAME = "hardware samples"
WAIT_S = 2.0
"""How long the end of a recording waits for the choice, which takes a second at most as a rule."""


class Hardware:
    """Source of what the CPU itself samples and counts, once it is known what it can.

    To try events takes perf some tenths of a second each: meanwhile the recording goes on.
    """

    def __init__(
        self,
        writer: TraceWriter,
        note: Callable[[str, str], None],
        targets: Callable[[], Iterable[int]],
        options: Options,
    ) -> None:
        self.writer = writer
        self.note = note
        self.targets = targets
        self.options = options
        self.source: HardwareSource | None = None
        self._choice: Choice | None = None
        self._thread = threading.Thread(target=self._choose, name="pmu", daemon=True)
        self._decided = False

    @property
    def pause_s(self) -> float:
        """Nothing here is urgent."""
        return float("inf")

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the perf processes that run."""
        return self.source.cpu_s if self.source is not None else 0.0

    def start(self) -> None:
        """Wait for the first tick: the start has enough to do."""

    def look(self, drained: Mapping[str, Array]) -> None:
        """Take what perf wrote."""
        if self.source is not None:
            self.source.look(drained)

    def tick(self) -> None:
        """Begin to find out; begin to sample when the choice is made."""
        if self._thread.ident is None:
            self._thread.start()
        elif not self._decided and not self._thread.is_alive():
            self._decide()
        if self.source is not None:
            self.source.tick()

    def attached(self, tgid: int) -> None:
        """Sample this process too."""
        if self.source is not None:
            self.source.attached(tgid)

    def forget(self, tgid: int) -> None:
        """A process ended."""
        if self.source is not None:
            self.source.forget(tgid)

    def stop(self) -> None:
        """End perf. Where it never began, at least say what the CPU could have done."""
        if not self._decided:
            if self._thread.ident is None:
                self._thread.start()
            self._thread.join(WAIT_S)
            self._decided = True
            self._say_why_not()
        if self.source is not None:
            self.source.stop()

    def finish(self) -> None:
        """Write what perf still has."""
        if self.source is not None:
            self.source.finish()

    def close(self) -> None:
        """End perf at once."""
        if self.source is not None:
            self.source.close()

    def _choose(self) -> None:
        # Here, so that the tables of all CPUs do not hold up the start.
        from numatrace.record.pmu.choose import HZ, choose_source

        hz = self.options.frequency_hz or HZ
        self._choice = choose_source(
            wanted="hardware" if self.options.access else "residency", hz=hz
        )

    def _decide(self) -> None:
        self._decided = True
        choice = self._choice
        if choice is not None and (choice.sample or choice.count):
            self._begin(choice)
        self._say_why_not()

    def _begin(self, choice: Choice) -> None:
        from numatrace.record.pmu.hardware import HardwareSource

        self.source = HardwareSource(
            choice, self.writer, self.note, self.targets, self.options.max_overhead
        )
        self.source.start()

    def _say_why_not(self) -> None:
        choice = self._choice
        if not self.options.access:
            return
        if choice is None:
            self.note(NAME, "not found out in time")
        elif choice.sample is None:
            self.note(NAME, "; ".join(choice.why))
        elif self.source is None:
            self.note(NAME, "the recording was too short to begin with them")
