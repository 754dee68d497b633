"""What was found: every cause with its evidence, and what the usual guides would look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.model.units import format_ns
from numatrace.render.glance import evidences
from numatrace.render.layout import INDENT, bullets, heading, paint, paragraph
from numatrace.render.processes import process_name
from numatrace.render.width import clean, columns

if TYPE_CHECKING:
    from numatrace.model.findings import DocumentCheck, Finding
    from numatrace.model.report import Report
    from numatrace.render.options import RenderOptions


def findings(report: Report, options: RenderOptions) -> list[str]:
    """Return every cause with what shows it."""
    if not report.findings:
        return []
    lines = [heading("What was found", options)]
    for finding in report.findings:
        lines += ["", *_finding(finding, report, options)]
    return lines


def guides(report: Report, options: RenderOptions) -> list[str]:
    """Return the checks that the usual guides give for what was found."""
    lines: list[str] = []
    for finding in report.findings:
        if finding.document is not None:
            lines += ["", *_document(finding.cause, finding.document, options)]
    return [heading("What the usual guides look at", options), *lines] if lines else []


def remarks(report: Report, options: RenderOptions) -> list[str]:
    """Return the report's own notes."""
    if not report.notes:
        return []
    return [heading("Remarks", options), "", *bullets(report.notes, options)]


def _finding(finding: Finding, report: Report, options: RenderOptions) -> list[str]:
    process = process_name(report, finding.tgid)
    lost = f"; lost: {format_ns(finding.lost_ns.value)} of CPU time" if finding.lost_ns else ""
    name = f"{finding.cause}, {finding.name}, in {process}; confidence: {finding.confidence}{lost}"
    lines = [paint(row, "bold", options) for row in paragraph(name, options)]
    if finding.sentence != report.verdict.sentence:
        lines += paragraph(finding.sentence, options, INDENT * 2)
    lines += evidences(finding.evidence, options, INDENT * 2)
    lines += bullets((f"Note: {note}" for note in finding.notes), options, INDENT * 2)
    if finding.refuted_by:
        lines += paragraph(f"What would refute it: {finding.refuted_by}", options, INDENT * 2)
    return lines


def _document(cause: str, check: DocumentCheck, options: RenderOptions) -> list[str]:
    """Return the guides' own check, with what it would have shown as columns, if they fit."""
    text = f"{cause} is cause {check.number} there, {check.name}. Their check, {check.command},"
    lines = paragraph(f"{text} from the trace:", options)
    for row in check.shows:
        shown = INDENT * 2 + clean(row).rstrip()
        lines += (
            [shown] if columns(shown) <= options.columns else paragraph(row, options, INDENT * 2)
        )
    return lines
