"""Runs the `perf` program: within a time and a size, and so that it ends when told."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from numatrace.record.pmu.perf_errors import said

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OUTPUT_LIMIT = 1 << 20
"""Bytes of output that a bounded run keeps; the rest is read and dropped."""
TEXT_LIMIT = 4096
"""Bytes of error messages that are kept, of the first that come."""
GRACE_S = 5.0
"""How long perf may take to end after SIGINT."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a bounded run gave. `status` is negative for a signal, None when time ran out."""

    status: int | None
    output: bytes
    errors: bytes

    @property
    def complaint(self) -> str:
        """What it said, or else how it ended: one printable line."""
        if self.status is None:
            return "it did not end in time"
        text = said(self.errors)
        return text if text else f"it ended with status {self.status}"


def find_perf(environ: Mapping[str, str] | None = None) -> str | None:
    """Return the path of `perf`, or None where it is not installed."""
    path = (os.environ if environ is None else environ).get("PATH")
    return shutil.which("perf", path=path)


def environment() -> dict[str, str]:
    """Return the environment for perf: plain English and numbers, and nobody's ~/.perfconfig."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "PERF_"))}
    return kept | {"LC_ALL": "C", "LANG": "C", "PERF_CONFIG": os.devnull, "PAGER": "cat"}


def start(
    argv: Sequence[str],
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own, so that the user's Ctrl-C is not for it.

    Raises OSError when it cannot be started.
    """
    return subprocess.Popen(
        list(argv),
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment(),
        pass_fds=tuple(fds),
        process_group=0,
    )


def run(argv: Sequence[str], seconds: float, fds: Sequence[int] = ()) -> Ran:
    """Run a program to its end, at most so long; then it and all it started are killed."""
    try:
        process = start(argv, fds=fds)
    except OSError as error:
        return Ran(127, b"", str(error).encode())
    output, errors = Kept(process.stdout, OUTPUT_LIMIT), Kept(process.stderr, TEXT_LIMIT)
    try:
        status: int | None = process.wait(seconds)
    except subprocess.TimeoutExpired:
        status = None
    kill(process)
    for kept in (output, errors):
        kept.join(1.0)
    return Ran(status, output.data, errors.data)


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end as Ctrl-C would; perf then writes what it still has."""
    with contextlib.suppress(OSError):
        process.send_signal(signal.SIGINT)


def end(process: subprocess.Popen[bytes], seconds: float = GRACE_S) -> int | None:
    """Wait for a process that was told to end, then kill it. Returns None when it was killed."""
    try:
        return process.wait(max(0.0, seconds))
    except subprocess.TimeoutExpired:
        kill(process)
        return None


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and whatever it left in its group, and reap it."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)


class Kept(threading.Thread):
    """Reads a pipe to its end and keeps the first bytes, so that its writer never waits."""

    def __init__(self, pipe: IO[bytes] | None, limit: int) -> None:
        super().__init__(daemon=True, name="numatrace-perf-text")
        self.data = b""
        self._pipe = pipe
        self._limit = limit
        self.start()

    def run(self) -> None:
        """Read until the last writer has closed its end."""
        if self._pipe is None:
            return
        with self._pipe as pipe, contextlib.suppress(OSError, ValueError):
            while piece := os.read(pipe.fileno(), 1 << 16):
                self.data += piece[: self._limit - len(self.data)]


def deadline(seconds: float) -> float:
    """Return the moment (time.monotonic) that is so far away."""
    return time.monotonic() + seconds
