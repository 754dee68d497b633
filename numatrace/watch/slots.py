"""Worker slots: a thread made in the place of one that ended counts as that one.

As in the report (analyze/threads/residency.py), but what ended is forgotten: a pool that makes its
workers anew for every token may be watched for days.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

ThreadKey = tuple[int, int]
"""(tgid, tid)"""

MAX_POOLS = 4096
MAX_PLACES = 65_536
"""Slots of all pools together; without one, a thread counts for itself."""
MAX_ALIASES = 16_384
"""Threads of slots that are remembered after their end, when their last figures come."""


@dataclass(slots=True)
class _Pool:
    """The slots that one thread's clones take in turn."""

    slots: list[ThreadKey] = field(default_factory=list)
    free: list[int] = field(default_factory=list)


class Slots:
    """Who counts as whom."""

    def __init__(self) -> None:
        self._pools: dict[ThreadKey, _Pool] = {}
        self._places: dict[ThreadKey, tuple[_Pool, int]] = {}
        self._alias: dict[ThreadKey, ThreadKey] = {}
        self._numbers: dict[ThreadKey, int] = {}
        self._n_slots = 0

    def key(self, thread: ThreadKey) -> ThreadKey:
        """Return the key under which a thread counts: its own, or that of its slot's first."""
        return self._alias.get(thread, thread)

    def number(self, key: ThreadKey) -> int | None:
        """Return a slot's place in its pool; None for a thread that was not made anew."""
        return self._numbers.get(key)

    def clone(self, thread: ThreadKey, creator: ThreadKey) -> None:
        """A thread was made by another one of its process."""
        self.exit(thread)
        self._alias.pop(thread, None)
        pool = self._pools.get(creator)
        if pool is None:
            if len(self._pools) >= MAX_POOLS:
                return
            pool = self._pools[creator] = _Pool()
        if pool.free:
            place = heapq.heappop(pool.free)
            self._remember(thread, pool.slots[place], place)
        elif self._n_slots < MAX_PLACES:
            place = len(pool.slots)
            pool.slots.append(thread)
            self._n_slots += 1
        else:
            return
        self._places[thread] = pool, place

    def exit(self, thread: ThreadKey) -> None:
        """A thread ended: its place is free, and the pool of those that it made is gone."""
        if thread in self._places:
            pool, place = self._places.pop(thread)
            heapq.heappush(pool.free, place)
        own = self._pools.pop(thread, None)
        if own is not None:
            self._n_slots -= len(own.slots)
            for key in own.slots:
                self._numbers.pop(key, None)

    def _remember(self, thread: ThreadKey, slot: ThreadKey, place: int) -> None:
        self._numbers[slot] = place
        if thread != slot:
            self._alias[thread] = slot
        if len(self._alias) > MAX_ALIASES:
            del self._alias[next(iter(self._alias))]

    def __len__(self) -> int:
        """How much is remembered."""
        return len(self._pools) + len(self._places) + len(self._alias) + self._n_slots
