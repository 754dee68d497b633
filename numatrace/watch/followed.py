"""Who is followed and where: names, worker slots, nodes and their free memory, what is not seen."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from numatrace.model.errors import TraceError
from numatrace.model.machine import Memory
from numatrace.model.topology import Topology
from numatrace.watch.rows import rows
from numatrace.watch.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numatrace.watch.slots import ThreadKey

MAX_NAMES = 65_536
"""Of processes and threads that are remembered; the oldest go first."""
MAX_NOTES = 100
MAX_WAITING = 10_000
"""Births and ends of threads that wait to be put in order."""
EXIT, FORK = 0, 1
"""In this order where both are of the same moment."""


class Followed:
    """Takes the rows that describe."""

    def __init__(self) -> None:
        self.slots = Slots()
        self.topology: Topology | None = None
        self.free_bytes: dict[int, int] = {}
        """Free memory of each node, as last read."""
        self.notes: dict[str, None] = {}
        """What is not seen and why, each once."""
        self._processes: dict[int, str] = {}
        self._threads: dict[ThreadKey, str] = {}
        self._steps: list[tuple[int, int, ThreadKey, ThreadKey]] = []
        self._take = {
            "process": self._process,
            "thread": self._thread,
            "fork": self._fork,
            "exit": self._exit,
            "system": self._system,
            "note": self._note,
        }

    def take(self, kind: str, columns: Mapping[str, Any], n: int) -> None:
        """Take rows of one kind as the writer gets them; most kinds are for others."""
        handler = self._take.get(kind)
        if handler is not None:
            handler(columns, n)

    def name(self, key: ThreadKey) -> str:
        """Return the name of a thread, or else of its process; empty where neither is known."""
        return self._threads.get(key) or self._processes.get(key[0], "")

    def process(self, tgid: int) -> str:
        """Return the name of a process; empty if it is not known."""
        return self._processes.get(tgid, "")

    def _process(self, columns: Mapping[str, Any], n: int) -> None:
        for tgid, name in rows(columns, n, "tgid", "name"):
            remember(self._processes, tgid, name)

    def _thread(self, columns: Mapping[str, Any], n: int) -> None:
        self.settle()
        for tgid, tid, name in rows(columns, n, "tgid", "tid", "name"):
            remember(self._threads, self.slots.key((tgid, tid)), name)

    def settle(self) -> None:
        """Put births and ends in order: what the rings held comes kind by kind."""
        steps, self._steps = self._steps, []
        for _, what, thread, creator in sorted(steps):
            if what == FORK:
                self.slots.clone(thread, creator)
            else:
                self.slots.exit(thread)

    def _fork(self, columns: Mapping[str, Any], n: int) -> None:
        names = ("t_ns", "tgid", "tid", "ptgid", "ptid")
        for t_ns, tgid, tid, ptgid, ptid in rows(columns, n, *names):
            if tgid == ptgid:
                self._step(t_ns, FORK, (tgid, tid), (ptgid, ptid))

    def _exit(self, columns: Mapping[str, Any], n: int) -> None:
        for t_ns, tgid, tid in rows(columns, n, "t_ns", "tgid", "tid"):
            self._step(t_ns, EXIT, (tgid, tid), (0, 0))

    def _step(self, t_ns: int, what: int, thread: ThreadKey, creator: ThreadKey) -> None:
        self._steps.append((t_ns, what, thread, creator))
        if len(self._steps) >= MAX_WAITING:
            self.settle()

    def _system(self, columns: Mapping[str, Any], n: int) -> None:
        for name, value in rows(columns, n, "name", "value"):
            with contextlib.suppress(TraceError, ValueError):  # what this kernel says oddly
                if name == "topology":
                    self.topology = Topology.from_json(json.loads(value))
                elif name == "memory":
                    nodes = Memory.from_json(json.loads(value)).nodes
                    self.free_bytes = {node: each.free_bytes for node, each in nodes.items()}

    def _note(self, columns: Mapping[str, Any], n: int) -> None:
        for name, detail in rows(columns, n, "name", "detail"):
            if len(self.notes) < MAX_NOTES:
                self.notes[f"{name}: {detail}"] = None


def remember(names: dict[Any, str], key: Any, name: str) -> None:
    """Set a name; the oldest goes when there are too many."""
    names.pop(key, None)
    names[key] = str(name)
    if len(names) > MAX_NAMES:
        del names[next(iter(names))]
