"""Have plans made by another process, in time that nobody else wants."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import Any, Final

import numpy as np

from numatrace.record import workers
from numatrace.record.machine import procfs
from numatrace.record.operands.plan import ROW
from numatrace.record.operands.plans import FORGET, KEY, packed, unpacked

Array = np.ndarray[Any, Any]

MOST: Final = 1024
"""Keys that are asked for at a time: 32 KiB, half of what a pipe holds."""

PIECE: Final = 4096 // KEY.itemsize
"""Keys that are sent at once: no more than PIPE_BUF, so that a pipe takes all of them or none."""

READ_BYTES: Final = 1 << 16


class Helper:
    """The process of worker.py. No call waits for it; one that fails is ended, and never answers.

    It has the lowest priority there is (SCHED_IDLE, sched(7)): where the server leaves it no time,
    whoever asked must do without.
    """

    def __init__(self, machine: str) -> None:
        self._asked: list[bytes] = []
        """Keys without an answer yet, in order; empty ones are no longer wanted."""
        self._tgids: set[int] = set()
        """Processes that it was asked about: of the others it knows nothing."""
        self._read = b""
        self._process: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(OSError):
            self._process = _start(machine)

    @property
    def works(self) -> bool:
        """Whether it can be asked."""
        return self._process is not None

    @property
    def cpu_s(self) -> float:
        """CPU seconds so far; 0 once it has ended, which then count as those of a child."""
        return 0.0 if self._process is None else procfs.cpu_s(self._process.pid)

    def ask(self, keys: Array) -> None:
        """Have plans made for the first keys, as many as it can be asked for now."""
        asked = set(self._asked)
        new = [key for key in dict.fromkeys(packed(keys)) if key not in asked]
        new = new[: max(0, MOST - len(self._asked))]
        for first in range(0, len(new), PIECE):
            piece = new[first : first + PIECE]
            if not self._send(b"".join(piece)):
                break
            self._asked += piece
            self._tgids.update(unpacked(piece)["tgid"].tolist())

    def answers(self) -> tuple[Array, Array]:
        """Keys, and the plan of each (plan.ROW), that were made since the last call."""
        self._receive()
        count = len(self._read) // ROW.itemsize
        rows = np.frombuffer(self._read[: count * ROW.itemsize], ROW)
        self._read = self._read[count * ROW.itemsize :]
        keys, self._asked = self._asked[:count], self._asked[count:]
        wanted = np.array([bool(key) for key in keys], bool)
        return unpacked(keys), rows[wanted]

    def forget(self, tgid: int) -> None:
        """Drop all of a process, and what it was asked about it."""
        if tgid not in self._tgids:
            return
        self._tgids.remove(tgid)
        self._asked = [key if _tgid(key) != tgid else b"" for key in self._asked]
        note = np.zeros(1, KEY)
        note["tgid"], note["fault"] = tgid, FORGET
        if self._send(note.tobytes()):
            self._asked.append(b"")
        else:
            self.close()

    def close(self) -> None:
        """End it at once."""
        process, self._process = self._process, None
        self._asked, self._read = [], b""
        if process is not None:
            process.kill()
            process.communicate()

    def _send(self, text: bytes) -> bool:
        """Whether it was sent. A full pipe takes nothing."""
        process = self._process
        if process is None or process.stdin is None:
            return False
        try:
            return os.write(process.stdin.fileno(), text) == len(text)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            return False

    def _receive(self) -> None:
        process = self._process
        if process is None or process.stdout is None:
            return
        try:
            read = os.read(process.stdout.fileno(), READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            read = b""
        self._read += read
        if not read:
            self.close()


def _start(machine: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        workers.command("numatrace.record.operands.worker", machine),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=workers.environment(),
        bufsize=0,
        process_group=0,
    )
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            os.set_blocking(pipe.fileno(), False)
    return process


def _tgid(key: bytes) -> int:
    return int(unpacked([key])["tgid"][0]) if key else 0
