"""What every thread did: CPU time per node, moves between nodes, faults, by thread or worker slot.

A ggml pool may create its workers anew for every token. A thread that is created in the place of
one that ended (same creator, lowest free place) is the same worker slot and counts with it, so the
report stays readable and memory does not grow with the number of tokens.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.phases.time_split import TimeSplit
from numatrace.analyze.rows import exact_sum, group_sums
from numatrace.model.cpulist import NODE_LIMIT

if TYPE_CHECKING:
    from numatrace.analyze.phases.phases import Phases
    from numatrace.analyze.rows import Rows

THREADS = 65_536
"""Threads and slots that are kept apart; further ones count together as thread 0."""
ALIASES = 4 * THREADS
"""Threads of slots that are remembered; the oldest are forgotten, long after they ended."""
TIDS = 4_194_304
"""Thread ids are at most this (PID_MAX_LIMIT)."""
BALANCE_FAILED = 2

ThreadKey = tuple[int, int]


@dataclass(slots=True)
class ThreadSums:
    """A thread or a worker slot."""

    tgid: int
    tid: int
    members: int = 1
    oncpu_ns: Counter[int] = field(default_factory=Counter)
    moves: int = 0
    balance_moves: int = 0
    phase_node_ns: Counter[tuple[str, int]] = field(default_factory=Counter)
    """CPU time in each phase on each node."""
    faults: int = 0
    sampled_faults: int = 0

    @property
    def phase_ns(self) -> Counter[str]:
        """CPU time in each phase on all nodes."""
        found: Counter[str] = Counter()
        for (phase, _), ns in self.phase_node_ns.items():
            found[phase] += ns
        return found

    @property
    def total_ns(self) -> int:
        """CPU time on all nodes."""
        return sum(self.oncpu_ns.values())


@dataclass(slots=True)
class _Pool:
    """The worker slots of one creating thread."""

    slots: list[ThreadKey] = field(default_factory=list)
    free: list[int] = field(default_factory=list)


class Residency:
    """All threads, in one pass over the batches."""

    def __init__(self, phases: Phases) -> None:
        self._time_split = TimeSplit(phases)
        self._reads = (0, 0)
        """When time on CPU was read, the last two times."""
        self.threads: dict[ThreadKey, ThreadSums] = {}
        self._alias: dict[ThreadKey, ThreadKey] = {}
        self._pools: dict[ThreadKey, _Pool] = {}
        self._places: dict[ThreadKey, tuple[ThreadKey, int]] = {}
        self.recorded = 0
        self.attributed = 0
        self.exact_faults = 0

    def take(self, batch: dict[str, Rows]) -> None:
        """Take one batch: first who is who, then what they did."""
        self._births(batch.get("fork"), batch.get("exit"))
        for kind in ("oncpu", "move", "balance", "exec"):
            if kind in batch:
                self._sched(batch[kind])
        for kind in ("fault", "fault_count"):
            if kind in batch:
                self._faults(batch[kind])

    def sums(self, key: ThreadKey) -> ThreadSums:
        """Return the sums of a thread, by the id it had at any time."""
        key = self._alias.get(key, key)
        if key not in self.threads and len(self.threads) >= THREADS:
            key = (0, 0)
        if key not in self.threads:
            self.threads[key] = ThreadSums(*key)
        return self.threads[key]

    def _births(self, forks: Rows | None, exits: Rows | None) -> None:
        names = ("t_ns", "tgid", "tid", "ptgid", "ptid")
        steps = [
            (*row, rank)
            for rank, rows in ((0, exits), (1, forks))
            if rows is not None
            for row in zip(*(rows.integers(name) for name in names), strict=True)
        ]
        self.recorded += len(steps)
        for _, tgid, tid, ptgid, ptid, rank in sorted(steps, key=lambda step: (step[0], step[5])):
            if not 0 < tid <= TIDS or tgid <= 0:
                continue
            self.attributed += 1
            if rank == 0:
                self._exit((tgid, tid))
            elif tgid == ptgid:
                self._clone((tgid, tid), (ptgid, ptid))

    def _exit(self, key: ThreadKey) -> None:
        creator, place = self._places.pop(key, ((0, 0), -1))
        if place >= 0:
            heapq.heappush(self._pools[creator].free, place)

    def _clone(self, key: ThreadKey, creator: ThreadKey) -> None:
        self._exit(key)
        if creator not in self._pools and len(self._pools) >= THREADS:
            return
        pool = self._pools.setdefault(creator, _Pool())
        place = heapq.heappop(pool.free) if pool.free else len(pool.slots)
        if place == len(pool.slots):
            pool.slots.append(key)
            self._alias.pop(key, None)
            self.sums(key)
        else:
            self._alias.pop(key, None)
            self._alias[key] = pool.slots[place]
            self.sums(key).members += 1
            if len(self._alias) > ALIASES:
                del self._alias[next(iter(self._alias))]
        self._places[key] = (creator, place)

    def _sched(self, rows: Rows) -> None:
        self.recorded += len(rows)
        tgid, tid, node = (rows.numbers(name, -1) for name in ("tgid", "tid", "node"))
        sound = (tid > 0) & (tgid > 0) & (node >= 0) & (node < NODE_LIMIT)
        self.attributed += int(sound.sum())
        tgid, tid, node = tgid[sound], tid[sound], node[sound]
        if rows.kind == "oncpu":
            oncpu_ns = rows.numbers("oncpu_ns")[sound]
            times = rows.numbers("t_ns")[sound]
            for (t_ns, group, thread, where), ns in group_sums([times, tgid, tid, node], oncpu_ns):
                sums = self.sums((group, thread))
                sums.oncpu_ns[where] += ns
                for phase, part in self._time_split.split(self._since(t_ns), t_ns, ns):
                    sums.phase_node_ns[phase, where] += part
            return
        count = np.ones(len(tid), np.uint64)
        if rows.kind == "balance":
            count = (rows.numbers("access")[sound] < BALANCE_FAILED).astype(np.uint64)
        for (group, thread), events in group_sums([tgid, tid], count):
            sums = self.sums((group, thread))
            sums.moves += events if rows.kind == "move" else 0
            sums.balance_moves += events if rows.kind == "balance" else 0

    def _since(self, t_ns: int) -> int:
        """Return when time on CPU was read before this, 0 if never; times ascend."""
        if t_ns != self._reads[1]:
            self._reads = self._reads[1], t_ns
        return self._reads[0]

    def _faults(self, rows: Rows) -> None:
        exact = rows.kind == "fault_count"
        values = rows.numbers("count") if exact else rows.numbers("weight", 1)
        if exact:
            self.exact_faults += exact_sum(values)
        for key, faults in group_sums([rows.numbers("tgid"), rows.numbers("tid")], values):
            if min(key) > 0:
                sums = self.sums((key[0], key[1]))
                sums.faults += faults if exact else 0
                sums.sampled_faults += 0 if exact else faults
