"""The first part of a report: the verdict, what it costs, why, what to do, and how it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.model.units import format_bytes, format_ns, format_share
from numatrace.render.layout import INDENT, bullets, faint, heading, paint, paragraph, wrap
from numatrace.render.processes import process_name
from numatrace.render.split import fullest, heat_cell, not_pictured, share_cell_of
from numatrace.render.tables import Column, table
from numatrace.render.weighed import times

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numatrace.model.findings import Evidence
    from numatrace.model.measured import Figure
    from numatrace.model.report import Report
    from numatrace.render.options import RenderOptions

LABELS = {"fix": "Problem", "withheld": "No verdict"}
"""Words before the sentence of verdicts that do not begin with one of their own."""
STYLE = {
    "fix": "bad",
    "withheld": "bold",
    "not-worth-fixing": "good",
    "healthy": "good",
    "one-node": "good",
}
LABEL = 8
"""Columns for what a line of the answer is about."""
NODES = (
    "A node is a part of the machine: some memory and, as a rule, the CPUs next to it. To a thread,"
    " memory of another node than its CPU's is remote: it can be used, but takes longer to reach."
)
ONE_NODE = (
    "A node is a part of the machine: some memory and, as a rule, the CPUs next to it. Memory of"
    " another node is remote and takes longer to reach; with one node there is none."
)
ABOVE = "The commands are above, under WHAT TO DO; --fix-script FILE writes them into a file."


def verdict(report: Report, options: RenderOptions) -> list[str]:
    """Return the answer, what it rests on, and the two words that a reader has to know."""
    lines = _sentence(report, options)
    facts = _facts(report, options)
    lines += ["", *facts] if facts else []
    if report.provenance.problems:
        text = "The trace is damaged or incomplete: see the end of this report."
        lines += ["", *wrap(text, options.columns)]
    lines += _filters(report, options)
    nodes = _nodes(report, options)
    lines += ["", *nodes] if nodes else []
    words = ONE_NODE if len(report.machine.nodes) == 1 else NODES
    lines += ["", *faint(words, options)]
    shown = {evidence.text for finding in report.findings for evidence in finding.evidence}
    reasons = [each for each in report.verdict.reasons if each.text not in shown]
    return lines + (["", *evidences(reasons, options)] if reasons else [])


def verdict_only(report: Report, options: RenderOptions) -> list[str]:
    """Return the answer and what the report was restricted to."""
    return [*_sentence(report, options), *_filters(report, options)]


def in_short(report: Report, options: RenderOptions) -> list[str]:
    """Return the answer once more, for a reader who sees the end of a long report first."""
    lines = [heading("In short", options), "", *_sentence(report, options), ""]
    lines += _facts(report, options)
    nodes = _nodes(report, options)
    lines += ["", *nodes] if nodes else []
    if report.verdict.kind == "withheld":
        lines += evidences(report.verdict.reasons, options)
    if any(finding.fixes for finding in report.findings):
        lines += ["", *paragraph(ABOVE, options)]
    return lines


def evidences(found: Iterable[Evidence], options: RenderOptions, indent: str = INDENT) -> list[str]:
    """Return observations as a list, each with the sources of its figures in brackets."""
    return bullets(map(_sourced, found), options, indent)


def _sentence(report: Report, options: RenderOptions) -> list[str]:
    label = LABELS.get(report.verdict.kind)
    text = f"{label}: {report.verdict.sentence}" if label else report.verdict.sentence
    style = STYLE.get(report.verdict.kind, "bold")
    return [paint(row, style, options) for row in wrap(text, options.columns)]


def _facts(report: Report, options: RenderOptions) -> list[str]:
    """Return cost, cause, fix and remote share, as far as they are known."""
    lines: list[str] = []
    about = (("server", _server(report)), *_first_finding(report), ("remote", _remote(report)))
    for label, text in about:
        if text:
            first = f"{INDENT}{label:<{LABEL}}"
            rows = paragraph(text, options, first)
            rows[0] = INDENT + paint(label, "bold", options) + rows[0][len(INDENT + label) :]
            lines += rows
    return lines


def _first_finding(report: Report) -> list[tuple[str, str]]:
    if not report.findings:
        return []
    return [("cost", _cost(report)), ("cause", _cause(report)), ("fix", _fix(report))]


def _cost(report: Report) -> str:
    """Return the time lost to the first cause whose cost is known, and what part that is."""
    known = [finding for finding in report.findings if finding.lost_ns is not None]
    if not known or known[0].lost_ns is None:
        return "not known"
    lost, first = known[0].lost_ns, known[0] is report.findings[0]
    total = sum(report.server.compute_ns.values()) if report.server is not None else 0
    of = "" if first else f"{known[0].cause}: "
    if not total:
        return f"{of}{format_ns(lost.value)} of CPU time [{lost.source}]"
    times_ = f"{format_ns(lost.value)} of {format_ns(total)}"
    return f"{of}{_part(lost, total)} of the compute threads' time: {times_} [{lost.source}]"


def _part(lost: Figure, total: int) -> str:
    """Return a time as a part of all: `26 % (7 to 26 %)`."""
    share = format_share(min(1.0, lost.value / total))
    if lost.low is None or lost.high is None:
        return share
    low, high = (f"{100 * min(1.0, end / total):.0f}" for end in (lost.low, lost.high))
    return f"{share} ({low} to {high} %)"


def _cause(report: Report) -> str:
    finding, *others = report.findings
    text = f"{finding.cause}, {finding.name}; confidence: {finding.confidence}"
    names = ", ".join(each.cause for each in others)
    return f"{text}; also {names}" if names else text


def _server(report: Report) -> str:
    """Return which process the answer is about, and how long it was looked at."""
    server = next((each for each in report.processes if each.is_server), None)
    if server is None:
        return ""
    length = format_ns(report.provenance.duration_ns)
    return f"{process_name(report, server.tgid)}, recorded for {length}"


def _fix(report: Report) -> str:
    fixes = [fix for finding in report.findings for fix in finding.fixes]
    if not fixes:
        return "numatrace has no commands for it: see the notes below"
    text = fixes[0].title
    plan = next((each for each in report.plans if each.id == fixes[0].plan), None)
    if plan is not None and plan.remote_share is not None:
        text += f"; predicted: {format_share(plan.remote_share.value)} remote"
        text += f", {times(plan.speedup)} times today's speed" if plan.speedup else ""
        text += f" [{plan.remote_share.source}]"
    return text


def _remote(report: Report) -> str:
    """Return the remote share of the reads of weights, measured or expected.

    What a verdict was withheld for is not to be read as one: its reasons say what is known.
    """
    share = report.server.remote_share if report.server is not None else None
    if share is None or len(report.machine.nodes) == 1 or report.verdict.kind == "withheld":
        return ""
    how = "expected, not measured" if share.source == "model" else "measured"
    return f"{share_cell_of(share)} of the reads of weights: {how} [{share.source}]"


def _filters(report: Report, options: RenderOptions) -> list[str]:
    """Return what the report was restricted to."""
    found = report.filters
    if found is None:
        return []
    asked = [
        f"process {found.pid}" if found.pid is not None else "",
        f"phase {found.phase}" if found.phase is not None else "",
    ]
    lines = ["", *paragraph(f"Only {' and '.join(filter(None, asked))}.", options)]
    if found.left_out:
        lines += bullets([f"Left out: {', '.join(found.left_out)}"], options)
    return lines + bullets((f"Not restricted: {text}" for text in found.whole), options)


def _nodes(report: Report, options: RenderOptions) -> list[str]:
    """Return where the weights lie and the compute threads ran, side by side."""
    server, views = report.server, report.machine.nodes
    if server is None or len(views) < 2 or report.verdict.kind == "withheld":
        return []
    places: tuple[Mapping[int, int], ...] = (server.weights_bytes, server.compute_ns)
    sizes = [sum(each.values()) for each in places]
    heads = [Column("node"), Column("CPUs", right=False, least=6)]
    heads.append(Column(f"weights, {format_bytes(sizes[0])}"))
    heads.append(Column(f"compute threads, {format_ns(sizes[1])}"))
    cpus = {view.node: view.cpus for view in views}
    rows = [
        [
            str(node),
            cpus[node] or "none",
            heat_cell(places[0].get(node, 0), sizes[0]),
            heat_cell(places[1].get(node, 0), sizes[1], "work"),
        ]
        for node in fullest(cpus, lambda node: _weight(places, sizes, node))
    ]
    return table(heads, rows, options) + not_pictured(cpus, options)


def _weight(places: tuple[Mapping[int, int], ...], sizes: list[int], node: int) -> float:
    """Return how much of all is on a node."""
    parts = (each.get(node, 0) / size for each, size in zip(places, sizes, strict=True) if size)
    return sum(parts)


def _sourced(evidence: Evidence) -> str:
    """Return the sentence, and in brackets where its figures come from."""
    sources = dict.fromkeys(figure.source for figure in evidence.figures)
    return f"{evidence.text} [{', '.join(sources)}]" if sources else evidence.text
