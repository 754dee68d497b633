"""What a cause is, and the thresholds that several causes share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numatrace.analyze.situation import Situation
    from numatrace.model.findings import Finding, RuledOut

REMOTE_SHARE = 0.20
"""Below this remote share no placement is worth a change. The slowdown is at most
1 + r(λ - 1): with r = 0.2 and a remote access that takes 1.5 times a local one, 10 %, the least
that public before-and-after figures of placement fixes show."""
WEIGHTS_ON_HALF = 0.75
"""With more than this share of the weights on one half of the threads' nodes, that half serves
most reads: on two nodes, three times the other's. Evenly spread weights stay below it on any
number of nodes."""
THREADS_ON_ONE_NODE = 0.90
"""With this share of their CPU time on some nodes, threads count as running there: the rest is
start-up and the odd wake-up elsewhere."""
WORTH_SHARE = 0.03
"""A cause that costs less of the compute threads' time than this is not worth a restart: it is
within what two runs of the same benchmark differ by."""


class Cause(Protocol):
    """A module of this package that looks for one cause."""

    @property
    def ID(self) -> str:  # noqa: N802
        """Stable id, such as `C1`."""

    @property
    def NAME(self) -> str:  # noqa: N802
        """Its name in a few words."""

    @property
    def NUMBER(self) -> int | None:  # noqa: N802
        """The circulating guides' number of the cause; None where they do not know it."""

    @property
    def EXPLAINS(self) -> tuple[str, ...]:  # noqa: N802
        """Causes whose signs this one accounts for: where it is found, they are not."""

    def look(self, situation: Situation) -> Finding | RuledOut:
        """Return the finding, without fixes, or what speaks against the cause."""


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
