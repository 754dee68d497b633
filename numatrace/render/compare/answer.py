"""The first and the last part of a comparison: the answer, what was predicted, what was set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.model.units import format_ns, format_share
from numatrace.render.compare.cells import YES_NO, points
from numatrace.render.compare.glance import glance
from numatrace.render.layout import bullets, faint, heading, paragraph
from numatrace.render.split import NOTHING, share_cell_of
from numatrace.render.tables import Column, table
from numatrace.render.width import clean, clip_middle

if TYPE_CHECKING:
    from numatrace.model.comparison import Check, Comparison, SideView
    from numatrace.render.options import RenderOptions

SETTING_COLUMNS = 400
"""Columns of a setting, such as a command line, that are shown."""


def answer(comparison: Comparison, options: RenderOptions) -> list[str]:
    """Return the answer in words and as a picture, both verdicts, and what to know."""
    lines = glance(comparison, options)
    sides = (("BEFORE", comparison.before), ("AFTER", comparison.after))
    texts = [_side(name, side) for name, side in sides]
    return [*lines, "", *bullets([*texts, *comparison.notes], options)]


def prediction(comparison: Comparison, options: RenderOptions) -> list[str]:
    """Return whether the plan of the report before did what was predicted."""
    found = comparison.prediction
    if found is None:
        return []
    words = {True: "kept", False: "not kept", None: "cannot be checked"}
    text = f"Plan {found.plan}, {found.title}: {words[found.kept]}."
    if found.cause:
        text += f" {found.cause} is {'gone' if found.cause_gone else 'still found'}."
    heads = [Column("", right=False, least=16), Column("predicted"), Column("seen"), Column("off")]
    rows = [_check(check) for check in found.checks[: 2 * options.rows]]
    shown = table([*heads, Column("kept")], rows, options)
    more = len(found.checks) - len(rows)
    rest = paragraph(f"and {more} more nodes; --json has all", options) if more > 0 else []
    note = "Kept: off by at most 5 points."
    lines = [heading("What was predicted of the fix", options), "", *paragraph(text, options)]
    return [
        *lines,
        *([""] if shown else []),
        *shown,
        *rest,
        *faint(note if shown else "", options),
    ]


def limit(comparison: Comparison, options: RenderOptions) -> list[str]:
    """Return whether the limit that was asked for is kept."""
    found = comparison.limit
    if found is None:
        return []
    words = {True: "kept", False: "not kept", None: "cannot be checked"}
    text = f"At most {format_share(found.limit)} of the reads of weights are to be remote:"
    text += f" {words[found.kept]} ({share_cell_of(found.seen)} in AFTER)."
    return [heading("The limit", options), "", *paragraph(text, options)]


def settings(comparison: Comparison, options: RenderOptions) -> list[str]:
    """Return how the server was run otherwise than before."""
    changed = [each for each in comparison.settings if each.before != each.after]
    texts = [f"{each.name}: {_cut(each.before)} → {_cut(each.after)}" for each in changed]
    nothing = "Nothing that the recordings hold: the server was run in the same way."
    lines = bullets(texts, options) or paragraph(nothing, options)
    return [heading("Set differently", options), "", *lines]


def _side(name: str, side: SideView) -> str:
    causes = f" ({', '.join(side.causes)})" if side.causes else ""
    return f"{name}, {format_ns(side.duration_ns)}, verdict: {side.kind}{causes}. {side.sentence}"


def _check(check: Check) -> list[str]:
    seen = format_share(check.seen) if check.seen is not None else NOTHING
    off = points(check.off) if check.off is not None else NOTHING
    return [check.name, format_share(check.predicted), seen, off, YES_NO[check.kept]]


def _cut(text: str) -> str:
    return clip_middle(clean(text), SETTING_COLUMNS) or "nothing known"
