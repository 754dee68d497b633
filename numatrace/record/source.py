"""What a session asks of a source of rows that it looks after beside its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numatrace.record.drain import Array


class Source(Protocol):
    """Lives as long as the recording. No method may raise for what only this source lacks."""

    @property
    def pause_s(self) -> float:
        """How long the next look may wait, as far as this source is concerned."""

    def start(self) -> None:
        """Begin; the targets are followed already. What cannot be had becomes a note."""

    def look(self, drained: Mapping[str, Array]) -> None:
        """Take what came in since the last look: the records of each ring."""

    def tick(self) -> None:
        """Once in an interval, before the batch is written."""

    def attached(self, tgid: int) -> None:
        """A process is followed from now on, or replaced its program."""

    def forget(self, tgid: int) -> None:
        """A process ended or replaces its program: its memory is no longer what it was."""

    def stop(self) -> None:
        """End what produces; `look` comes once more, then `finish`."""

    def finish(self) -> None:
        """Write what is left."""

    def close(self) -> None:
        """Free everything. May come at any time, also without the others."""


class Sources:
    """Several sources as one."""

    def __init__(self, *sources: Source) -> None:
        self.all = sources

    @property
    def pause_s(self) -> float:
        """How long the next look may wait."""
        return min((source.pause_s for source in self.all), default=float("inf"))

    def start(self) -> None:
        """Begin, each in its turn."""
        for source in self.all:
            source.start()

    def look(self, drained: Mapping[str, Array]) -> None:
        """Hand on what the rings held."""
        for source in self.all:
            source.look(drained)

    def tick(self) -> None:
        """Once in an interval."""
        for source in self.all:
            source.tick()

    def attached(self, tgid: int) -> None:
        """A process is followed from now on, or replaced its program."""
        for source in self.all:
            source.attached(tgid)

    def forget(self, tgid: int) -> None:
        """A process ended or replaces its program."""
        for source in self.all:
            source.forget(tgid)

    def stop(self) -> None:
        """End what produces."""
        for source in self.all:
            source.stop()

    def finish(self) -> None:
        """Write what is left."""
        for source in self.all:
            source.finish()

    def close(self) -> None:
        """Free everything."""
        for source in self.all:
            source.close()
