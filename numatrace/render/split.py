"""Amounts per node as cells of a table: a column per node, or one for all where there are many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.model.units import format_share
from numatrace.render.layout import Column

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numatrace.model.report import Report

NODE_COLUMNS = 3
"""Nodes that get a column each; more of them do not fit beside the other figures."""
NAMED_NODES = 2
"""Nodes with the largest shares that are named where all share a column."""
NOTHING = "-"
EXACT_COUNTS = 10**9
"""Counts are written out below this."""


class Split:
    """How the shares on the nodes are shown, alike in all rows of a table."""

    def __init__(self, report: Report, amounts: Iterable[Mapping[int, int]]) -> None:
        """Take the machine's nodes, and others that the amounts name."""
        named = {node for each in amounts for node, amount in each.items() if amount}
        self.nodes = sorted({view.node for view in report.machine.nodes} | named)

    @property
    def heads(self) -> list[Column]:
        """Columns for the nodes."""
        if len(self.nodes) > NODE_COLUMNS:
            return [Column("node: share", right=False)]
        return [Column(f"node {node}") for node in self.nodes]

    def cells(self, amounts: Mapping[int, int]) -> list[str]:
        """Return the shares of one row; dashes where there is nothing to share."""
        total = sum(amounts.values())
        if len(self.nodes) > NODE_COLUMNS:
            return [sentence(amounts) if total else NOTHING]
        return [share_cell(amounts.get(node, 0), total) for node in self.nodes]


def share_cell(part: int, total: int) -> str:
    """Return a part of a total in per cent, or a dash for no total."""
    return format_share(part / total) if total else NOTHING


def sentence(amounts: Mapping[int, int]) -> str:
    """Return `3: 60 %, 1: 30 %, others 10 %`: the nodes with the largest shares first."""
    total = sum(amounts.values())
    ranked = sorted((-amount, node) for node, amount in amounts.items() if amount)
    parts = [f"{node}: {share_cell(-amount, total)}" for amount, node in ranked[:NAMED_NODES]]
    rest = -sum(amount for amount, _ in ranked[NAMED_NODES:])
    return ", ".join(parts + ([f"others {share_cell(rest, total)}"] if rest else []))


def in_words(amounts: Mapping[int, int]) -> str:
    """Return `52 % on node 0, 48 % on node 1`, by falling share; at most a few nodes."""
    total = sum(amounts.values())
    ranked = sorted((-amount, node) for node, amount in amounts.items() if amount)
    parts = [f"{share_cell(-amount, total)} on node {node}" for amount, node in ranked[:8]]
    rest = -sum(amount for amount, _ in ranked[8:])
    return ", ".join(parts + ([f"{share_cell(rest, total)} elsewhere"] if rest else []))


def count_cell(count: int) -> str:
    """Return a count, written out unless it is absurdly long."""
    return f"{count:,}" if abs(count) < EXACT_COUNTS else f"{count:.2e}"
