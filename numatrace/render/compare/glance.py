"""The answer of a comparison, and where weights and threads were before and after, as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.model.units import format_share
from numatrace.render.bars import Heat
from numatrace.render.compare.cells import sourced
from numatrace.render.layout import INDENT, heading, paint, paragraph, wrap
from numatrace.render.split import NOTHING, fullest, not_pictured
from numatrace.render.tables import Column, table

if TYPE_CHECKING:
    from numatrace.model.comparison import Change, Comparison, NodeChange
    from numatrace.model.measured import Figure
    from numatrace.render.options import RenderOptions

GOOD = ("as-predicted", "better", "same")


def glance(comparison: Comparison, options: RenderOptions) -> list[str]:
    """Return the answer in words, and the picture of it."""
    style = "good" if comparison.outcome in GOOD else "bad"
    lines = [paint(row, style, options) for row in wrap(comparison.sentence, options.columns)]
    change = comparison.remote_share
    if change.before is not None and change.after is not None:
        text = f"{sourced(change.before)} → {sourced(change.after)} of the reads of weights"
        rows = paragraph(text, options, f"{INDENT}remote  ")
        rows[0] = rows[0].replace("remote", paint("remote", "bold", options), 1)
        lines += ["", *rows]
    shown = _picture(comparison, options)
    return [*lines, "", *shown] if shown else lines


def in_short(comparison: Comparison, options: RenderOptions) -> list[str]:
    """Return the answer once more, for a reader who sees the end of a long text first."""
    return [heading("In short", options), "", *glance(comparison, options)]


def _picture(comparison: Comparison, options: RenderOptions) -> list[str]:
    """Return every node's share of the weights and of the threads' time, before and after."""
    nodes = comparison.nodes
    if len(nodes) < 2:
        return []
    titles = ("weights before", "after", "threads before", "after")
    heads = [Column("node"), *(Column(title) for title in titles)]
    changes = {each.node: each for each in nodes}
    shown = fullest(changes, lambda node: _most(changes[node]))
    lines = table(heads, [_row(changes[node]) for node in shown], options)
    return lines + not_pictured(changes, options)


def _row(node: NodeChange) -> list[str]:
    return [
        str(node.node),
        *_cells(node.weights_share, "bar"),
        *_cells(node.compute_share, "work"),
    ]


def _cells(change: Change, style: str) -> list[str]:
    return [_cell(figure, style) for figure in (change.before, change.after)]


def _cell(share: Figure | None, style: str) -> str:
    return NOTHING if share is None else Heat(format_share(share.value), share.value, style)


def _most(node: NodeChange) -> float:
    changes = (node.weights_share, node.compute_share)
    figures = [figure for each in changes for figure in (each.before, each.after)]
    return max((figure.value for figure in figures if figure is not None), default=0.0)
