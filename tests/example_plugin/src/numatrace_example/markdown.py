"""A renderer: the answer and the threads as Markdown, for an issue tracker."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from numatrace.model.text import printable
from numatrace.model.units import format_ns

if TYPE_CHECKING:
    from numatrace.model.report import Report
    from numatrace.render import RenderOptions


def markdown(report: Report, options: RenderOptions) -> str:
    """Return all of the output as one text that ends with a line end."""
    lines = [f"**{escaped(report.verdict.sentence)}**", ""]
    lines += [f"- {escaped(found.cause)}: {escaped(found.sentence)}" for found in report.findings]
    lines += ["", "| thread | name | CPU time |", "|---:|---|---:|"]
    lines += [
        f"| {thread.tid} | {escaped(thread.comm)} | {format_ns(sum(thread.oncpu_ns.values()))} |"
        for thread in report.threads[: options.rows]
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Make text from a trace harmless: it is as hostile as the processes that were recorded."""
    return re.sub(r"([\\`*_{}\[\]<>()#|!&~])", r"\\\1", printable(text))
