"""A report for people: plain words first, then the map, then where the numbers come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.render.activity import shares, threads
from numatrace.render.answer import findings, remarks, verdict
from numatrace.render.fixes import fixes
from numatrace.render.machine import machine, processes
from numatrace.render.memory import layers, regions, tensors
from numatrace.render.origins import origins
from numatrace.render.reads import reads
from numatrace.render.weighed import corrections, plans, ruled_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from numatrace.model.report import Report
    from numatrace.render.options import RenderOptions

SECTIONS: tuple[Callable[[Report, RenderOptions], list[str]], ...] = (
    verdict,
    findings,
    fixes,
    plans,
    corrections,
    ruled_out,
    remarks,
    machine,
    processes,
    threads,
    reads,
    regions,
    layers,
    tensors,
    shares,
    origins,
)
"""In the order of the report. Each returns its lines, or none when it has nothing to say."""


def text_report(report: Report, options: RenderOptions) -> str:
    """Return the report as text; every line but the commands stays below the width.

    Without `colour` it has no control characters but newlines, whatever the trace holds.
    """
    parts = (section(report, options) for section in SECTIONS)
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"
