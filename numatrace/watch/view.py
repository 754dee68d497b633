"""What the user has chosen to see, and what each key does to that."""

from __future__ import annotations

from dataclasses import dataclass

from numatrace.watch.columns import COLUMNS

QUIT, RECORD = "quit", "record"
NEXT = ("s", "right")
BEFORE = ("S", "left")
PAUSE = ("p", " ")
HELP = ("h", "?")


@dataclass(slots=True)
class Writing:
    """A trace that is being written."""

    path: str
    seconds: float
    size_bytes: int


@dataclass(slots=True)
class View:
    """The state of the display."""

    sort: str = COLUMNS[0].name
    paused: bool = False
    help: bool = False
    message: str = ""
    """What is to be said once, in the place of the keys."""
    writing: Writing | None = None

    def press(self, key: str) -> str | None:
        """Take a key; returns QUIT or RECORD where more than the display is concerned."""
        self.message = ""
        if key == "q":
            return QUIT
        if key == "r":
            return RECORD
        if key in PAUSE:
            self.paused = not self.paused
        elif key in HELP or (self.help and key == "escape"):
            self.help = not self.help
        elif key in NEXT or key in BEFORE:
            self._turn(1 if key in NEXT else -1)
        return None

    def _turn(self, step: int) -> None:
        names = [column.name for column in COLUMNS]
        self.sort = names[(names.index(self.sort) + step) % len(names)]
