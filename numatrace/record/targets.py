"""The processes that are followed: those named, everything below them, and what they start."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from numatrace.model.events import EVENT
from numatrace.record.machine import procfs

if TYPE_CHECKING:
    from numatrace.record.bpf.probes import Probes
    from numatrace.record.drain import Array


@dataclass(slots=True)
class Changes:
    """What a drain told about processes: those born, those with a new program, those gone."""

    born: list[int] = field(default_factory=list)
    execed: list[int] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)

    @property
    def any(self) -> bool:
        """Whether there were any."""
        return bool(self.born or self.execed or self.gone)


class Targets:
    """Keeps the followed processes and their live threads, in step with the kernel's own set."""

    def __init__(self, probes: Probes, *, follow: bool = True, proc: Path = Path("/proc")) -> None:
        self.probes = probes
        self.follow = follow
        self.proc = proc
        self.threads: dict[int, set[int]] = {}
        """Live threads of each followed process."""
        self.faults_before: dict[int, dict[str, int]] = {}
        """The kernel's fault counters of each process when it was attached to."""
        self._fresh: set[int] = set()
        self._ripe: set[int] = set()
        self._gone: set[int] = set()

    def attach(self, pids: list[int]) -> None:
        """Follow processes and, unless told not to, everything below them, but not this program.

        The kernel follows a process before its threads and children are listed, so that what is
        born meanwhile is seen by one of the two.
        """
        waiting = list(pids)
        while waiting:
            tgid = waiting.pop()
            if tgid in self.threads or tgid == os.getpid():
                continue
            self.probes.follow(tgid)
            self.faults_before[tgid] = procfs.fault_counters(tgid, self.proc)
            self.threads[tgid] = set()
            for tid in procfs.thread_ids(tgid, self.proc):
                self.probes.follow_thread(tgid, tid)
                self.threads[tgid].add(tid)
            if self.follow:
                waiting.extend(procfs.children(tgid, self.proc))

    def update(self, sched: Array) -> Changes:
        """Take in the records of births, execs and ends, in their order."""
        changes = Changes()
        if not len(sched):
            return changes
        handlers = {
            EVENT["fork"].code: self._born,
            EVENT["exec"].code: self._execed,
            EVENT["exit"].code: self._ended,
        }
        wanted = sched[np.isin(sched["code"], list(handlers))]
        for code, tgid, tid in wanted[["code", "tgid", "tid"]].tolist():
            handlers[code](tgid, tid, changes)
        return changes

    def reap(self) -> list[int]:
        """Threads whose kernel counters may go: those that ended before the call before.

        A thread is switched out for the last time after its exit event, so its counters grow
        once more: they are read one interval later, and only then dropped.
        """
        ripe, self._ripe, self._fresh = self._ripe, self._fresh, set()
        for tid in ripe:
            self.probes.forget_thread(tid)
        for tgid in self._gone - self.threads.keys():
            self.probes.forget_process(tgid)
        self._gone.clear()
        return list(ripe)

    def sweep(self) -> list[int]:
        """Drop processes that went without our having seen it (a full ring); returns them."""
        lost = [tgid for tgid in self.threads if not procfs.is_alive(tgid, self.proc)]
        for tgid in lost:
            self._fresh.update(self.threads.pop(tgid))
            self._gone.add(tgid)
        return lost

    def _born(self, tgid: int, tid: int, changes: Changes) -> None:
        self._fresh.discard(tid)  # the number is in use again
        self._ripe.discard(tid)
        if tgid not in self.threads:
            changes.born.append(tgid)
        self.threads.setdefault(tgid, set()).add(tid)

    def _execed(self, tgid: int, _tid: int, changes: Changes) -> None:
        # The thread that execs takes the process's own number; all others have ended.
        self.threads[tgid] = {tgid}
        self._fresh.discard(tgid)
        changes.execed.append(tgid)

    def _ended(self, tgid: int, tid: int, changes: Changes) -> None:
        threads = self.threads.get(tgid)
        if threads is None:
            return
        threads.discard(tid)
        self._fresh.add(tid)
        if not threads:
            del self.threads[tgid]
            self._gone.add(tgid)
            changes.gone.append(tgid)
