"""The first part of a report: the verdict and what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.model.units import format_ns
from numatrace.render.layout import INDENT, bullets, heading, paint, paragraph, wrap
from numatrace.render.processes import process_name
from numatrace.render.width import clean, columns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numatrace.model.findings import DocumentCheck, Evidence, Finding
    from numatrace.model.report import Report
    from numatrace.render.options import RenderOptions

STYLE = {
    "fix": "bad",
    "withheld": "bad",
    "not-worth-fixing": "good",
    "healthy": "good",
    "one-node": "good",
}
NODES = (
    "A node is a part of the machine: some memory and, as a rule, the CPUs next to it. To a thread,"
    " memory of another node than its CPU's is remote: it can be used, but takes longer to reach."
)
ONE_NODE = (
    "A node is a part of the machine: some memory and, as a rule, the CPUs next to it. Memory of"
    " another node is remote and takes longer to reach; with one node there is none."
)


def verdict(report: Report, options: RenderOptions) -> list[str]:
    """Return the answer, what it rests on, and the two words that a reader has to know."""
    rows = wrap(report.verdict.sentence, options.columns)
    lines = [paint(row, STYLE.get(report.verdict.kind, "bold"), options) for row in rows]
    shown = {evidence.text for finding in report.findings for evidence in finding.evidence}
    reasons = [each for each in report.verdict.reasons if each.text not in shown]
    if reasons:
        lines += ["", *_evidence(reasons, options)]
    words = ONE_NODE if len(report.machine.nodes) == 1 else NODES
    lines += ["", *(paint(row, "faint", options) for row in wrap(words, options.columns))]
    if report.provenance.problems:
        text = "The trace is damaged or incomplete: see the end of this report."
        lines += ["", *wrap(text, options.columns)]
    return lines


def findings(report: Report, options: RenderOptions) -> list[str]:
    """Return every cause with what shows it."""
    if not report.findings:
        return []
    lines = [heading("What was found", options)]
    for finding in report.findings:
        lines += ["", *_finding(finding, report, options)]
    return lines


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
    lines += _evidence(finding.evidence, options, INDENT * 2)
    lines += bullets((f"Note: {note}" for note in finding.notes), options, INDENT * 2)
    if finding.refuted_by:
        lines += paragraph(f"What would refute it: {finding.refuted_by}", options, INDENT * 2)
    return lines + (_document(finding.document, options) if finding.document else [])


def _document(check: DocumentCheck, options: RenderOptions) -> list[str]:
    """Return the guides' own check, with what it would have shown as columns, if they fit."""
    text = f"In the usual guides: cause {check.number}, {check.name}. Their check, {check.command},"
    lines = paragraph(f"{text} from the trace:", options, INDENT * 2)
    for row in check.shows:
        shown = INDENT * 3 + clean(row).rstrip()
        lines += (
            [shown] if columns(shown) <= options.columns else paragraph(row, options, INDENT * 3)
        )
    return lines


def _evidence(
    evidence: Iterable[Evidence], options: RenderOptions, indent: str = INDENT
) -> list[str]:
    return bullets(map(_sourced, evidence), options, indent)


def _sourced(evidence: Evidence) -> str:
    """Return the sentence, and in brackets where its figures come from."""
    sources = dict.fromkeys(figure.source for figure in evidence.figures)
    return f"{evidence.text} [{', '.join(sources)}]" if sources else evidence.text
