"""What the scheduler did: moves, births and ends as events on the threads' tracks, and slices."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, ClassVar

from numatrace.export.perfetto.packets import instant
from numatrace.export.perfetto.residency import Residency
from numatrace.model.cpulist import NODE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numatrace.export.perfetto.packets import Detail
    from numatrace.export.perfetto.people import Key
    from numatrace.export.perfetto.tracks import Tracks

BALANCE = ("NUMA balancing: moved", "NUMA balancing: swapped", "NUMA balancing: failed")
"""By the `access` column of a row `balance`."""


class Sched:
    """Draws the rows of the family sched. Call in the order of time."""

    KINDS: ClassVar = {
        "fork": ("t_ns", "tgid", "tid", "node", "cpu", "ptgid", "ptid"),
        "exec": ("t_ns", "tgid", "tid", "node", "cpu"),
        "exit": ("t_ns", "tgid", "tid", "node", "cpu"),
        "move": ("t_ns", "tgid", "tid", "node", "cpu", "from_node"),
        "balance": ("t_ns", "tgid", "tid", "node", "cpu", "from_node", "access"),
        "oncpu": ("t_ns", "tgid", "tid", "node", "oncpu_ns"),
    }
    """Columns of each kind, in the order in which rows of the same time are taken."""

    def __init__(self, tracks: Tracks, first_ns: int) -> None:
        self._tracks = tracks
        self._residency = Residency(tracks, first_ns)

    def take(self, steps: Iterable[tuple[int, int, str, tuple[Any, ...]]]) -> int:
        """Draw rows (time, rank, kind, columns); return how many of them make sense."""
        drawn = 0
        for (t_ns, kind), group in itertools.groupby(steps, key=lambda step: (step[0], step[2])):
            rows = [row for *_, row in group]
            if kind == "oncpu":
                drawn += self._reading(t_ns, rows)
            else:
                drawn += sum(self._event(kind, *row) for row in rows)
        return drawn

    def finish(self) -> None:
        """Draw what is still open."""
        self._residency.finish()

    def _reading(self, t_ns: int, rows: list[tuple[Any, ...]]) -> int:
        return self._residency.reading(
            t_ns,
            [
                ((tgid, tid), node, ns)
                for _, tgid, tid, node, ns in rows
                if _is_node(node) and ns is not None
            ],
        )

    def _event(self, kind: str, t_ns: int, tgid: int, tid: int, *what: Any) -> bool:
        key = tgid, tid
        if kind == "move":
            return self._move(t_ns, key, *what)
        if kind == "balance":
            return self._balance(t_ns, key, *what)
        node, cpu, *creator = what
        details = {"node": node, "CPU": cpu}
        if kind == "fork":
            details |= {"by process": creator[0], "by thread": creator[1]}
            self._residency.born(t_ns, key)
        elif kind == "exit":
            self._residency.ended(t_ns, key)
        return self._show(key, t_ns, "created" if kind == "fork" else kind, details)

    def _move(self, t_ns: int, key: Key, node: int | None, cpu: int | None, *old: Any) -> bool:
        if node is None or not _is_node(node):
            return False
        self._residency.moved(t_ns, key, node, old[0] if _is_node(old[0]) else -1)
        details = {"from node": old[0], "to node": node, "CPU": cpu}
        return self._show(key, t_ns, f"move to node {node}", details)

    def _balance(self, t_ns: int, key: Key, node: int | None, cpu: int | None, *what: Any) -> bool:
        from_node, outcome = what
        if outcome is None or outcome >= len(BALANCE):
            return False
        details = {"from node": from_node, "to node": node, "CPU": cpu}
        return self._show(key, t_ns, BALANCE[outcome], details)

    def _show(self, key: Key, t_ns: int, name: str, details: Mapping[str, Detail | None]) -> bool:
        uuid = self._tracks.thread(key)
        if uuid is not None:
            self._tracks.put(instant(uuid, t_ns, name, "sched", details))
        return uuid is not None


def _is_node(node: int | None) -> bool:
    return node is not None and 0 <= node < NODE_LIMIT
