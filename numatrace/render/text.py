"""A report for people: plain words first, then the map, then where the numbers come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.render.activity import shares, threads
from numatrace.render.answer import findings, guides, remarks
from numatrace.render.by import grouped
from numatrace.render.fixes import fixes
from numatrace.render.glance import in_short, verdict, verdict_only
from numatrace.render.layout import put_together
from numatrace.render.machine import machine, processes
from numatrace.render.memory import layers, regions, tensors
from numatrace.render.origins import origins, sources
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
    threads,
    layers,
    regions,
    tensors,
    reads,
    shares,
    machine,
    processes,
    plans,
    guides,
    corrections,
    ruled_out,
    remarks,
    origins,
)
"""In the order of the report. Each returns its lines, or none when it has nothing to say."""


ONE_TABLE = (verdict_only, grouped, sources)
"""What is shown where one table was asked for."""


def text_report(report: Report, options: RenderOptions) -> str:
    """Return the report as text; every line but the commands stays below the width.

    Without `colour` it has no control characters but newlines, whatever the trace holds.
    """
    chosen = SECTIONS if options.by is None else ONE_TABLE
    parts = [lines for section in chosen if (lines := section(report, options))]
    return put_together(parts, in_short(report, options), options)
