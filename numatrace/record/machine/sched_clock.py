"""The scheduler's own account of each thread's time on CPU: /proc/PID/task/TID/schedstat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.record.machine import procfs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class SchedClock:
    """What schedstat said of every thread when it was last asked."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}

    def start(self, tgid: int, tids: Iterable[int]) -> None:
        """Count these threads, which exist already, from now on."""
        for tid in tids:
            found = procfs.schedstat(tgid, tid)
            if found is not None:
                self._seen[tid] = found.oncpu_ns

    def grown_ns(self, tgid: int, tid: int) -> int | None:
        """Time since the last call, or since a later birth; None if the thread is gone."""
        found = procfs.schedstat(tgid, tid)
        if found is None:
            return None
        before, self._seen[tid] = self._seen.get(tid, 0), found.oncpu_ns
        return max(0, found.oncpu_ns - before)

    def forget(self, tids: Iterable[int]) -> None:
        """Drop ended threads: their numbers may come again."""
        for tid in tids:
            self._seen.pop(tid, None)


def scaled(seen_ns: Mapping[int, int], exact_ns: int) -> dict[int, int]:
    """Divide an exact time over nodes as it was seen to divide; the parts sum to it."""
    seen_total = sum(seen_ns.values())
    parts = {node: exact_ns * ns // seen_total for node, ns in seen_ns.items()}
    most = max(parts, key=lambda node: seen_ns[node])
    parts[most] += exact_ns - sum(parts.values())
    return parts
