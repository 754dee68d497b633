"""Amounts per node as cells of a table: a column per node, or one for all where there are many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.model.cpulist import format_cpulist
from numatrace.model.units import format_count, format_share
from numatrace.render.bars import Heat, strip
from numatrace.render.layout import paragraph
from numatrace.render.tables import Column
from numatrace.render.width import clip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sized

    from numatrace.model.measured import Figure
    from numatrace.model.report import Report
    from numatrace.render.options import RenderOptions

NODE_COLUMNS = 3
"""Nodes that get a column each; more of them do not fit beside the other figures."""
MAPPED_NODES = 16
"""Nodes that have a character each where they have no column."""
PICTURED_NODES = 8
"""Nodes of a picture, which is to be seen at a glance; tables have more."""
NAMED_NODES = 8
"""Nodes with the largest shares that a sentence names."""
NOTHING = "-"
EXACT_COUNTS = 10**7
"""Counts are written out below this."""
SCALES = ((10**18, "E"), (10**15, "P"), (10**12, "T"), (10**9, "G"), (10**6, "M"))


class Split:
    """How the shares on the nodes are shown, alike in all rows of a table."""

    def __init__(
        self, report: Report, amounts: Iterable[Mapping[int, int]], style: str = "bar"
    ) -> None:
        """Take the machine's nodes, and others that the amounts name; the style of bars."""
        self._style = style
        named = {node for each in amounts for node, amount in each.items() if amount}
        self.nodes = sorted({view.node for view in report.machine.nodes} | named)

    @property
    def heads(self) -> list[Column]:
        """Columns for the nodes: one for each, or a map of all and the largest in words."""
        if len(self.nodes) <= NODE_COLUMNS:
            return [Column(f"node {node}") for node in self.nodes]
        most = Column("most on", right=False, least=18, cut=clip)
        if len(self.nodes) > MAPPED_NODES:
            return [most]
        names = clip(f"nodes {format_cpulist(self.nodes)}", MAPPED_NODES)
        return [Column(names, right=False, spare=True), most]

    def cells(self, amounts: Mapping[int, int]) -> list[str]:
        """Return the shares of one row; dashes where there is nothing to share."""
        total = sum(amounts.values())
        if len(self.nodes) <= NODE_COLUMNS:
            return [heat_cell(amounts.get(node, 0), total, self._style) for node in self.nodes]
        most = _most(amounts) if total else NOTHING
        if len(self.nodes) > MAPPED_NODES:
            return [most]
        shares = [amounts.get(node, 0) / total if total else 0.0 for node in self.nodes]
        return [Heat(strip(shares), None, self._style), most]


def fullest(nodes: Iterable[int], amount: Callable[[int], float]) -> list[int]:
    """Return the nodes that a picture shows, those with most, in the order of their numbers."""
    return sorted(sorted(nodes, key=lambda node: (-amount(node), node))[:PICTURED_NODES])


def not_pictured(nodes: Sized, options: RenderOptions) -> list[str]:
    """Say how many nodes a table of the `fullest` leaves out; nothing for none."""
    rest = len(nodes) - PICTURED_NODES
    return (
        paragraph(f"and {format_count(rest, 'more node')} with less", options) if rest > 0 else []
    )


def heat_cell(part: int, total: int, style: str = "bar") -> str:
    """Return a part of a total in per cent with a bar, or a dash for no total."""
    return Heat(share_cell(part, total), part / total, style) if total else NOTHING


def share_cell(part: int, total: int) -> str:
    """Return a part of a total in per cent, or a dash for no total."""
    return format_share(part / total) if total else NOTHING


def share_cell_of(figure: Figure | None) -> str:
    """Return `48 %`, with its interval where it has one: `48 % (46-50)`."""
    if figure is None:
        return NOTHING
    text = format_share(figure.value)
    if figure.low is None or figure.high is None:
        return text
    return f"{text} ({100 * figure.low:.0f}-{100 * figure.high:.0f})"


def in_words(amounts: Mapping[int, int]) -> str:
    """Return `52 % on node 0, 48 % on node 1`, by falling share."""
    total = sum(amounts.values())
    ranked = _ranked(amounts)
    parts = [f"{share_cell(amount, total)} on node {node}" for amount, node in ranked[:NAMED_NODES]]
    rest = sum(amount for amount, _ in ranked[NAMED_NODES:])
    return ", ".join(parts + ([f"{share_cell(rest, total)} elsewhere"] if rest else []))


def count_cell(count: int) -> str:
    """Return a count, written out unless it is long: `1,234`, `18.4 M`."""
    for scale, letter in SCALES if count >= EXACT_COUNTS else ():
        if count >= scale:
            return f"{count / scale:.1f} {letter}"
    return f"{count:,}"


def _most(amounts: Mapping[int, int]) -> str:
    """Return `3: 60 %, 1: 30 %, +10 %`: the two nodes with the largest shares, and the rest."""
    total = sum(amounts.values())
    ranked = _ranked(amounts)
    parts = [f"{node}: {share_cell(amount, total)}" for amount, node in ranked[:2]]
    rest = sum(amount for amount, _ in ranked[2:])
    return ", ".join(parts + ([f"+{share_cell(rest, total)}"] if rest else []))


def _ranked(amounts: Mapping[int, int]) -> list[tuple[int, int]]:
    """Return amounts and nodes, the largest first and of equals the lower node."""
    found = [(amount, node) for node, amount in amounts.items() if amount]
    return sorted(found, key=lambda item: (-item[0], item[1]))
