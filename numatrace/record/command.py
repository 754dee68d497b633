"""Start the command that `record -- COMMAND` is to follow, held back until it is followed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

from numatrace.model.errors import UsageError

GRACE_S = 5.0
"""How long a command may take to end after SIGTERM."""

# This program says that it is there, waits for a byte, then becomes the command: same pid, and
# nothing of the command has run before it was followed. Without the byte it ends. Python ignores
# SIGPIPE, the command must not.
HOLD = """
import os, signal, sys
ready, gate = int(sys.argv[1]), int(sys.argv[2])
os.write(ready, b"y")
os.close(ready)
if not os.read(gate, 1):
    os._exit(125)
os.close(gate)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
os.execvp(sys.argv[3], sys.argv[3:])
"""


@dataclass(slots=True)
class Launched:
    """A started command."""

    process: subprocess.Popen[bytes]
    gate: int

    @property
    def pid(self) -> int:
        """Its process id, from before to after its exec."""
        return self.process.pid

    def release(self) -> None:
        """Let it run."""
        with contextlib.suppress(
            BrokenPipeError
        ):  # it was ended from outside: the session sees that
            os.write(self.gate, b"\n")
        os.close(self.gate)
        self.gate = -1

    def end(self) -> int:
        """End it if it still runs; returns its exit status."""
        if self.gate >= 0:
            os.close(self.gate)
            self.gate = -1
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def start_command(command: list[str]) -> Launched:
    """Start a command that waits for `release`. Returns when it waits, and so makes no events."""
    held, gate = os.pipe()
    up, ready = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", HOLD, str(ready), str(held), *command],
            pass_fds=(held, ready),
        )
    finally:
        os.close(held)
        os.close(ready)
    os.read(up, 1)
    os.close(up)
    return Launched(process, gate)


def check_command(command: list[str]) -> None:
    """Raise UsageError when there is a command, but no such program."""
    if command and shutil.which(command[0]) is None:
        raise UsageError(
            f"cannot start {command[0]}", "there is no such program", "check the command behind --"
        )
