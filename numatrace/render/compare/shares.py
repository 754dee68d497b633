"""The server's figures of a comparison: remote shares with their intervals, and rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.render.compare.cells import YES_NO, number, share_change, sourced
from numatrace.render.layout import faint, heading
from numatrace.render.tables import Column, table

if TYPE_CHECKING:
    from numatrace.model.comparison import Change, Comparison
    from numatrace.render.options import RenderOptions

POINTS = (
    "Changes are AFTER less BEFORE; of shares, in points of per cent. In brackets: 95 % intervals."
    " A change is beyond chance where its interval leaves out 0."
)
RATES = "A thread-second is one second of CPU time of the compute threads, or of all the server's."


def remote(comparison: Comparison, options: RenderOptions) -> list[str]:
    """Return the remote shares, overall and by phase."""
    rows = [_share_row("overall", comparison.remote_share)]
    rows += [
        _share_row(each.phase, each.remote_share)
        for each in comparison.phases
        if each.remote_share.before is not None or each.remote_share.after is not None
    ]
    heads = [Column("phase", right=False, least=10), Column("before"), Column("after")]
    heads += [Column("change"), Column("beyond chance")]
    lines = [heading("Remote reads of the weights", options), "", *table(heads, rows, options)]
    return [*lines, *faint(POINTS, options)]


def figures(comparison: Comparison, options: RenderOptions) -> list[str]:
    """Return the other figures of the server."""
    rows = [
        [
            each.name,
            *(number(f, each.change.unit) for f in (each.change.before, each.change.after)),
        ]
        for each in comparison.figures
        if each.change.before is not None or each.change.after is not None
    ]
    heads = [Column("the server's", right=False, least=16), Column("before"), Column("after")]
    shown = table(heads, rows, options)
    lines = [heading("Other figures", options), "", *shown, *faint(RATES, options)]
    return lines if shown else []


def _share_row(name: str, change: Change) -> list[str]:
    pair = [sourced(change.before), sourced(change.after)]
    return [name, *pair, share_change(change), YES_NO[change.beyond_chance]]
