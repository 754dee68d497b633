"""The live view on a terminal: snapshots and keys come in, the screen goes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.model.errors import UsageError
from numatrace.watch.screen import screen
from numatrace.watch.sessions import TABLES
from numatrace.watch.view import QUIT, RECORD, View, Writing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from numatrace.watch.snapshot import Snapshot
    from numatrace.watch.terminal import Terminal
    from numatrace.watch.watching import Watching

GONE = "terminal gone"


class Display:
    """What is shown, and what a key does."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.view = View()
        self.latest: Snapshot | None = None
        self.watching: Watching | None = None
        self._held: Snapshot | None = None

    def run(self, watching: Watching) -> str:
        """Show what is watched until the end; returns why it ended."""
        self.watching = watching
        self.draw()
        return watching.run(self.wait)

    def take(self, snapshot: Snapshot) -> None:
        """Show a new snapshot, unless the display is on hold."""
        self.latest = snapshot
        if not self.view.paused:
            self._held = snapshot
        self.draw()

    def say(self, text: str) -> None:
        """Show a message until the next key."""
        self.view.message = text
        self.draw()

    def wait(self, seconds: float) -> None:
        """Wait, and do what keys say meanwhile."""
        if not self.terminal.wait(seconds, self.press, self.draw):
            self._stop(GONE)

    def press(self, key: str) -> None:
        """Do what a key says."""
        wanted = self.view.press(key)
        if wanted == QUIT:
            waits = self.watching is not None and self.watching.sessions.waits
            self.view.message = f"{TABLES}; Ctrl-C to go without" if waits else "ending"
            self._stop(QUIT)
        elif wanted == RECORD and self.watching is not None:
            try:
                self.view.message = self.watching.sessions.toggle()
            except UsageError as error:
                self.view.message = f"no trace: {error.why}; {error.what}"
        if not self.view.paused:
            self._held = self.latest
        self.draw()

    def draw(self) -> None:
        """Show everything anew."""
        self.view.writing = self._writing()
        self.terminal.show(self._lines)

    def _lines(self, width: int, height: int) -> Sequence[Text]:
        return screen(self._held, self.view, width, height)

    def _writing(self) -> Writing | None:
        sessions = self.watching.sessions if self.watching is not None else None
        if sessions is None or sessions.traced is None:
            return None
        status = sessions.session.status()
        return Writing(sessions.traced.name, status.elapsed_s, status.size_bytes)

    def _stop(self, reason: str) -> None:
        if self.watching is not None:
            self.watching.sessions.stop(reason)
