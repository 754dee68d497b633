"""The pages of one process, looked at again and again: most times at a part, to see a change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numatrace.record.memory.placement import (
    I32,
    PagePlan,
    PlaceRow,
    changed,
    plan_pages,
    query_nodes,
    tally,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numatrace.record.memory.pieces import Piece

PARTS = 8
"""A look at a part is at so small a share of the pages, each time at others. Of 65,536 pages that
are looked at in all it misses a move of a thousandth three times in ten thousand."""

_NONE = np.zeros(0, np.int32)


class Pages:
    """Where pieces of a process lie. What was seen last: `rows`, and the node of each page."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.rows: list[PlaceRow] = []
        self._pieces: Sequence[Piece] = ()
        self._plan: PagePlan | None = None
        self._nodes: I32 = _NONE
        self._part = 0

    def look(self, pieces: Sequence[Piece]) -> list[PlaceRow]:
        """Look at all pages of the plan; returns the rows of the pieces that changed.

        Raises ProcessGoneError and CapabilityError.
        """
        if self._plan is None or self._pieces != pieces:
            self._plan, self._pieces = plan_pages(pieces), pieces
        self._nodes = query_nodes(self.pid, self._plan.address)
        rows = tally(pieces, self._plan, self._nodes)
        news = changed(self.rows, rows)
        self.rows = rows
        return news

    def moved(self, pieces: Sequence[Piece]) -> bool:
        """Whether a look at all pages is due: the pieces are others, or a part's pages moved.

        The parts take turns. Raises ProcessGoneError and CapabilityError.
        """
        if self._plan is None or self._pieces != pieces:
            return True
        part = slice(self._part, None, PARTS)
        self._part = (self._part + 1) % PARTS
        nodes = query_nodes(self.pid, self._plan.address[part])
        return not np.array_equal(nodes, self._nodes[part])

    def tell_again(self, inode: int) -> None:
        """Have the next look return the rows of a file whether they changed or not."""
        self.rows = [row for row in self.rows if row.inode != inode]
