"""What to do: the commands of a report's fixes, each as it is to be pasted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.render.layout import INDENT, bullets, heading, paint, paragraph
from numatrace.render.width import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numatrace.model.findings import Finding, Fix, Step
    from numatrace.model.report import Report
    from numatrace.render.options import RenderOptions

COMMAND_INDENT = INDENT * 3
ROOT = "[root] "


def fixes(report: Report, options: RenderOptions) -> list[str]:
    """Return all fixes of all findings, the preferred one of each first."""
    if not report.findings:
        return []
    lines = [heading("What to do", options)]
    for finding in report.findings:
        lines += _for_finding(finding, options)
    return lines


def _for_finding(finding: Finding, options: RenderOptions) -> list[str]:
    if not finding.fixes:
        text = f"{finding.cause}: numatrace has no commands for this; see its notes above."
        return ["", *paragraph(text, options)]
    lines = []
    for number, fix in enumerate(finding.fixes):
        word = "Or against" if number else "Against"
        title = f"{word} {finding.cause}: {fix.title} (started: {fix.deployment}; {fix.id})"
        rows = (paint(row, "bold", options) for row in paragraph(title, options))
        checked = fix.lint if not number or fix.lint != finding.fixes[0].lint else ()
        lines += ["", *rows, "", *_fix(fix, checked, options)]
    return lines


def _fix(fix: Fix, checked: tuple[str, ...], options: RenderOptions) -> list[str]:
    lines = []
    if fix.notes:
        lines += [*paragraph("Before you start:", options), *bullets(fix.notes, options), ""]
    lines += _steps(fix.steps, options)
    if any(step.needs_root for step in (*fix.steps, *fix.verify, *fix.undo)):
        text = f"{ROOT}marks what needs root: run it as root, or put sudo before it."
        lines += paragraph(text, options)
    for title, steps in (("To see that it worked", fix.verify), ("To undo it", fix.undo)):
        if steps:
            lines += ["", *paragraph(f"{title}:", options), *_steps(steps, options)]
    if checked:
        lines += ["", *paragraph("Checked against the trace:", options)]
        lines += bullets(checked, options)
    return lines


def _steps(steps: Iterable[Step], options: RenderOptions) -> list[str]:
    lines = []
    for number, step in enumerate(steps, 1):
        rows = step.command.strip("\n").split("\n")
        why = f"{ROOT if step.needs_root else ''}{step.why}"
        if step.stays:
            why += " It runs on: give it a terminal of its own."
        if len(rows) > 1:
            why += f" One command of {len(rows)} lines:"
        lines += paragraph(why, options, f"{INDENT}{number}. ")
        lines += command_lines(rows, options)
    return lines


def command_lines(rows: list[str], options: RenderOptions) -> list[str]:
    """Return a command, neither wrapped nor cut.

    One of several lines begins at the left edge: an indent would change what it says. Characters
    that a terminal must not get are replaced, and then it is said that the command is not whole.
    """
    safe = ["".join(clean(part) for part in _parts(row)) for row in rows]
    indent = COMMAND_INDENT if len(rows) == 1 else ""
    lines = [paint(indent + row, "command", options) for row in safe]
    if safe != rows:
        text = "Not to be pasted: it has characters that cannot be shown. --json has them escaped."
        lines += paragraph(text, options, COMMAND_INDENT)
    return lines


def _parts(row: str, size: int = 4096) -> list[str]:
    """Return the row in pieces that `clean` does not cut."""
    return [row[start : start + size] for start in range(0, len(row), size)]
