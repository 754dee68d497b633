"""What was weighed besides the fix: other placements, other causes, and what is often advised."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from numatrace.model.units import format_share
from numatrace.render.layout import INDENT, bullets, heading, paint, paragraph
from numatrace.render.width import clean, clip, columns, pad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numatrace.model.findings import PlanView, RuledOut
    from numatrace.model.measured import Figure
    from numatrace.model.report import Report
    from numatrace.render.options import RenderOptions

ID_COLUMNS = 20
"""Columns for the name of a plan; one with many nodes may be longer."""
UNKNOWN = "?"
SAME = "the same"
REFUSED = "refused for the way the server is run: see the notes above"
"""Of the plan that was to be carried out, where the fix carries out another, or there is none."""


def plans(report: Report, options: RenderOptions) -> list[str]:
    """Return what the fix is predicted to bring about, and the other plans with why not."""
    if not report.plans:
        return []
    lines = [heading("What else was weighed", options), ""]
    carried = {fix.plan for finding in report.findings for fix in finding.fixes[:1]}
    for plan in report.plans:
        if plan.id in carried:
            lines += [*_chosen(plan, options), ""]
    others = [plan for plan in report.plans if plan.id not in carried]
    shown = others[: options.rows]
    lines += _table(shown, options)
    if len(others) > len(shown):
        lines += paragraph(f"and {len(others) - len(shown)} more plans", options)
    return lines[:-1] if lines[-1] == "" else lines


def ruled_out(report: Report, options: RenderOptions) -> list[str]:
    """Return the causes that are not there, and those that this trace cannot tell."""
    if not report.ruled_out:
        return []
    lines = [heading("Causes ruled out", options), ""]
    lines += bullets(map(_cause, (each for each in report.ruled_out if each.judged)), options)
    open_ = [each for each in report.ruled_out if not each.judged]
    if open_:
        lines += paragraph("Not to be told from this trace:", options)
        lines += bullets(map(_cause, open_), options)
    return lines


def corrections(report: Report, options: RenderOptions) -> list[str]:
    """Return what circulating advice gets wrong here."""
    if not report.corrections:
        return []
    title = heading("What guides get wrong here", options)
    return [title, "", *bullets(report.corrections, options)]


def _chosen(plan: PlanView, options: RenderOptions) -> list[str]:
    said = f"The fix ({plan.id}) is predicted to leave {_share(plan.remote_share)} of the reads of"
    said += f" weights remote, at {times(plan.speedup)} times today's speed."
    lines = paragraph(said, options)
    if plan.assumptions:
        lines += paragraph(f"That assumes: {'; '.join(plan.assumptions)}.", options)
    return lines


def _table(shown: Sequence[PlanView], options: RenderOptions) -> list[str]:
    """Return a row for each plan; the reason runs on below its own column."""
    if not shown:
        return []
    cells = [(clean(plan.id), _share(plan.remote_share), times(plan.speedup)) for plan in shown]
    cells.insert(0, ("plan", "remote", "speed"))
    widths = [min(max(map(columns, column)), ID_COLUMNS) for column in zip(*cells, strict=True)]
    found = [_why(plan) for plan in shown]
    same = [SAME if why == before else why for before, why in pairwise(["", *found])]
    reasons = ["why not", *same]
    lines: list[str] = []
    for (name, share, speed), reason in zip(cells, reasons, strict=True):
        numbers = f"{share:>{widths[1]}}  {speed:>{widths[2]}}"
        first = f"{INDENT}{pad(clip(name, widths[0]), widths[0])}  {numbers}  "
        lines += paragraph(reason, options, first)
    return [paint(lines[0], "faint", options), *lines[1:]]


def _why(plan: PlanView) -> str:
    return plan.why_not or "; ".join(plan.lint) or REFUSED


def _cause(found: RuledOut) -> str:
    return f"{found.cause}, {found.name}: {found.why}"


def _share(figure: Figure | None) -> str:
    return format_share(figure.value) if figure is not None else UNKNOWN


def times(figure: Figure | None) -> str:
    """Return a range of multiples: `1.1–1.8`."""
    if figure is None:
        return UNKNOWN
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    first, last = (f"{each:.1f}" if each < 10 else f"{each:.0f}" for each in (low, high))
    return first if first == last else f"{first}–{last}"
