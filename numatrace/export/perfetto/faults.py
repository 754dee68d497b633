"""Page faults: those that were sampled as events on the threads' tracks, all as counters."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar

from numatrace.export.perfetto.packets import Address, counter_value, instant
from numatrace.model.access import FETCH, KERNEL, WRITE

if TYPE_CHECKING:
    from numatrace.export.perfetto.tracks import Tracks


class Faults:
    """Draws the rows of the family fault, in the order of the trace."""

    SAMPLED: ClassVar = ("t_ns", "tgid", "tid", "cpu", "node", "addr", "weight", "access")
    COUNTED: ClassVar = ("t_ns", "tgid", "tid", "count")

    def __init__(self, tracks: Tracks) -> None:
        self._tracks = tracks
        self._totals: Counter[int] = Counter()

    def sampled(self, t_ns: int, tgid: int, tid: int, *what: int | None) -> bool:
        """A fault that stands for some of them; `what` as in SAMPLED."""
        uuid = self._tracks.thread((tgid, tid))
        if uuid is None:
            return False
        cpu, node, addr, weight, access = what
        details = {
            "address": None if addr is None else Address(addr),
            "access": _access(access or 0),
            "stands for": weight,
            "node": node,
            "CPU": cpu,
        }
        self._tracks.put(instant(uuid, t_ns, "page fault", "fault", details))
        return True

    def counted(self, t_ns: int, tgid: int, tid: int, count: int | None) -> bool:
        """A thread's faults on one of the nodes since the row before."""
        thread = self._tracks.thread((tgid, tid))
        if thread is None or count is None:
            return False
        uuid = self._tracks.counter(thread, "page faults", "count")
        if uuid is None:
            return False
        self._totals[thread] += count
        self._tracks.put(counter_value(uuid, t_ns, self._totals[thread]))
        return True


def _access(bits: int) -> str:
    kind = "write" if bits & WRITE else "instruction fetch" if bits & FETCH else "read"
    return f"{kind} in the kernel" if bits & KERNEL else kind
