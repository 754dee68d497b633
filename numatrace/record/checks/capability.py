"""What one check found, and the machine that the checks look at."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from numatrace.model.text import printable

State = Literal["yes", "no", "degraded"]

TEXT_LIMIT = 200
"""Characters of a value that came from the machine; longer ones are cut."""


@dataclass(frozen=True, slots=True)
class Capability:
    """What a check found.

    `lost` says what numatrace cannot do without it, `why` how we know, and `todo` is one exact
    command or one step. A step begins with a capital letter, a command does not, so that
    a command can be shown as it must be typed. All three are empty when `state` is "yes".
    """

    id: str
    title: str
    state: State
    value: str
    lost: str = ""
    why: str = ""
    todo: str = ""

    @property
    def todo_is_command(self) -> bool:
        """Whether `todo` is something to type in a shell."""
        return self.todo[:1].islower() or self.todo.startswith(("/", "'"))


@dataclass(frozen=True, slots=True)
class Host:
    """Where the checks look: the real machine, or a folder that stands for one in a test."""

    root: Path = Path("/")
    argv: Sequence[str] = field(default_factory=lambda: tuple(sys.argv))
    euid: int = field(default_factory=os.geteuid)
    search_path: str | None = None

    @property
    def proc(self) -> Path:
        """The folder /proc."""
        return self.root / "proc"

    @property
    def sys(self) -> Path:
        """The folder /sys."""
        return self.root / "sys"

    def which(self, program: str) -> str | None:
        """Full path of a program, searched also where administrators' programs are."""
        path = self.search_path
        if path is None:
            path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
        return shutil.which(program, path=path)

    def read(self, relative: str, limit: int = 1 << 16) -> str:
        """Text of a file below the root, at most `limit` bytes of it; "" when unreadable."""
        try:
            with (self.root / relative).open("rb") as file:
                return file.read(limit).decode("utf-8", "replace")
        except OSError:
            return ""

    def as_root(self, command: str) -> str:
        """The command, with sudo in front unless we are root."""
        return command if self.euid == 0 else f"sudo {command}"

    def program(self) -> str:
        """The program that was typed, by its full path, quoted.

        sudo searches its own secure_path, in which a virtual environment's folder is not.
        """
        program = Path(self.argv[0]).absolute() if self.argv else Path("numatrace")
        if program.suffix == ".py":  # python -m numatrace
            return shlex.join([sys.executable, "-m", "numatrace"])
        return shlex.quote(str(program))

    def this_command(self) -> str:
        """The command that was typed, by the full path of its program."""
        return shlex.join([*shlex.split(self.program()), *self.argv[1:]])


Check = Callable[[Host], Capability]


def one_line(text: str, limit: int = TEXT_LIMIT) -> str:
    """The text on one line, without control characters, at most `limit` characters long."""
    return printable(" ".join(text[: 8 * limit].split()), limit)


def errno_text(error: OSError | int) -> str:
    """The error as the kernel names it, such as "Operation not permitted (errno 1)"."""
    number = error if isinstance(error, int) else error.errno or 0
    return f"{os.strerror(number)} (errno {number})"
