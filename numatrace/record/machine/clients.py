"""Processes of this machine that use a server: connected to its port, or run as `ollama run`.

They are looked at and not followed. What a policy around a client does not do for the server is
proved by the client's own settings beside the server's.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from numatrace.model.process import PID_LIMIT
from numatrace.record.machine.files import numbered, read_bytes
from numatrace.record.machine.listens import network_name, port_numbers, socket_inodes
from numatrace.record.machine.procfs import PROC

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from numatrace.record.machine.listens import Listen, Network

MAX_CLIENTS = 16
"""Clients of one recording that are described."""
LOOK_S = 0.025
"""Time that a look at other processes' open files takes at most: half a percent of an interval."""
LEAST = 8
"""Of the youngest processes, so many are looked at when the time is over, too: a client is one."""
LONGEST_S = 1.0
"""That these, and the processes that are known, take together at most, on a machine that is
emulated or has no CPU to spare: the rings wait meanwhile."""
MIN_REST_S = 5.0
MAX_REST_S = 60.0
"""Between two such looks while they find nobody: each time twice as long."""


class Clients:
    """Finds clients, each once."""

    def __init__(self, proc: Path = PROC) -> None:
        self.proc = proc
        self.found: set[int] = set()
        self._sockets: set[int] = set()
        self._looks: dict[int, int] = {}
        self._rest_s = MIN_REST_S
        self._due = 0.0

    def look(
        self,
        listens: Mapping[int, Iterable[Listen]],
        spaces: Mapping[str, Network],
        known: Collection[int],
        seconds: float = LOOK_S,
        *,
        ollama: bool = False,
    ) -> list[int]:
        """Return clients not found before: processes that are neither `known` nor this one.

        `listens` by server; `spaces` are the networks that these are in. With `ollama`, whoever
        runs `ollama run` is a client too. Looks at open files for `seconds` at most, the youngest
        processes first.
        """
        pids = [pid for pid in self._processes() if pid not in known and pid != os.getpid()]
        candidates = dict.fromkeys(self._commands(pids)) if ollama else {}
        if time.monotonic() >= self._due and len(self.found) < MAX_CLIENTS:
            current = self._connections(listens, spaces)
            candidates |= dict.fromkeys(self._connected(current, known, pids, seconds))
        new = [pid for pid in candidates if pid not in self.found]
        new = new[: max(0, MAX_CLIENTS - len(self.found))]
        self.found.update(new)
        return new

    def _processes(self) -> tuple[int, ...]:
        return numbered(self.proc, "", PID_LIMIT)[::-1]

    def _commands(self, pids: Iterable[int]) -> Iterator[int]:
        # A process that is new may be about to exec, so it is looked at twice, and then left alone.
        looks, self._looks = self._looks, {}
        for pid in pids:
            self._looks[pid] = min(2, looks.get(pid, 0) + 1)
            if looks.get(pid, 0) < 2 and is_ollama_run(self._command_line(pid)):
                yield pid

    def _command_line(self, pid: int) -> bytes:
        return read_bytes(f"{self.proc}/{pid}/cmdline", 4096) or b""

    def _connected(
        self, current: set[int], known: Collection[int], pids: Iterable[int], seconds: float
    ) -> Iterator[int]:
        """Processes that hold one of the `current` connections whose owner is not known yet."""
        wanted = current - self._sockets
        began = time.monotonic()
        end, last = began + seconds, began + max(seconds, LONGEST_S)
        for pid in known if wanted else ():  # such as the starter, which is the server's client too
            wanted -= socket_inodes(pid, self.proc, last)
        for number, pid in enumerate(pids):
            until = last if number < LEAST else end
            if not wanted or time.monotonic() > until:
                break
            theirs = wanted & socket_inodes(pid, self.proc, until)
            wanted -= theirs
            if theirs:
                self._rest_s = MIN_REST_S
                yield pid
        self._sockets = current - wanted
        if wanted:  # of another user's, whom we may not look at, or over by now, or too many
            self._due = time.monotonic() + self._rest_s
            self._rest_s = min(MAX_REST_S, 2 * self._rest_s)

    def _connections(
        self, listens: Mapping[int, Iterable[Listen]], spaces: Mapping[str, Network]
    ) -> set[int]:
        found: set[int] = set()
        for pid, sockets in listens.items():
            space = spaces.get(network_name(pid, self.proc))
            found |= space.connected(port_numbers(sockets)) if space is not None else set()
        return found


def is_ollama_run(command_line: bytes) -> bool:
    """Whether /proc/PID/cmdline is that of `ollama run MODEL`, which sends requests to a server."""
    words = command_line.split(b"\0")
    return words[0].rpartition(b"/")[2] == b"ollama" and words[1:2] == [b"run"]
