"""The thresholds that all causes share, and what a cause gives back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numatrace.analyze.situation import Situation
    from numatrace.model.report import Finding

REMOTE_SHARE = 0.20
"""Below this expected remote share nothing is worth a change. The slowdown is at most
1 + r(λ - 1): with r = 0.2 and a remote access that takes 1.5 times a local one, 10 %, the least
that public before-and-after figures of placement fixes show."""
WEIGHTS_ON_ONE_NODE = 0.75
"""From this share of the weights on one node on, that node's memory serves most reads: on two
nodes, three times the other's. Evenly spread weights stay below it on any number of nodes."""
THREADS_ON_ONE_NODE = 0.90
"""With this share of their CPU time on some nodes, threads count as running there: the rest is
start-up and the odd wake-up elsewhere."""


class Cause(Protocol):
    """A module of this package that looks for one cause."""

    def look(self, situation: Situation) -> Finding | None:
        """Return the finding, without fixes, or None when the cause is not there."""


def main_nodes(parts: Mapping[int, float], enough: float = THREADS_ON_ONE_NODE) -> tuple[int, ...]:
    """Return the fewest nodes that have `enough` of the whole together, in ascending order."""
    chosen: list[int] = []
    total = 0.0
    for node in sorted(parts, key=lambda number: (-parts[number], number)):
        if total >= enough:
            break
        chosen.append(node)
        total += parts[node]
    return tuple(sorted(chosen))


def share_on(parts: Mapping[int, float], nodes: tuple[int, ...]) -> float:
    """Return the share of the whole that is on these nodes."""
    return sum(parts.get(node, 0.0) for node in nodes)
