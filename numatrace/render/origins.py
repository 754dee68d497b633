"""The last part of a report: where its numbers come from, and what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.model.units import format_bytes, format_count, format_ns, format_share
from numatrace.render.layout import bullets, heading, paragraph
from numatrace.render.tables import Column, table
from numatrace.render.width import clean, clip_middle

if TYPE_CHECKING:
    from numatrace.model.measured import Source
    from numatrace.model.report import Provenance, Report
    from numatrace.model.views import LossView, RegionView
    from numatrace.render.options import RenderOptions

MEANING: dict[Source, str] = {
    "placement": "the kernel's answer to where pages lie (move_pages in query mode)",
    "counter": "counted exactly, by the kernel or in it",
    "event": "traced events, each with its time",
    "model": "computed from other figures; not measured",
    "hardware sample": "memory accesses that the CPU sampled",
    "operand sample": "memory accesses worked out from sampled instructions",
}
HINT = (
    "More rows: --top N. One table: --by thread, slot, layer, tensor, node or phase. One phase or"
    " process: --phase, --pid. Tensors, too: --tensors. All of it for programs: --json."
)
HINT_ONE = "The whole report: without --by."
ENDINGS = {"interrupted": "interrupted", "time": "its time was up", "targets": "no target was left"}


def origins(report: Report, options: RenderOptions) -> list[str]:
    """Return sources, intervals, the account of all events, problems and omissions."""
    provenance = report.provenance
    lines = _sources(report, options)
    lines += bullets(_intervals(report.regions, options), options)
    lines += _account(report, options)
    for title, texts in (
        ("Damaged or missing", provenance.problems),
        ("Not recorded", provenance.not_recorded),
    ):
        if texts:
            lines += ["", *paragraph(f"{title}:", options), *bullets(texts, options)]
    return [*lines, "", *paragraph(HINT, options)]


def sources(report: Report, options: RenderOptions) -> list[str]:
    """Return the sources, and what is damaged; the account and the rest are left out."""
    lines = _sources(report, options)
    if report.provenance.problems:
        lines += ["", *paragraph("Damaged or missing:", options)]
        lines += bullets(report.provenance.problems, options)
    return [*lines, "", *paragraph(f"{HINT_ONE} {HINT}", options)]


def _sources(report: Report, options: RenderOptions) -> list[str]:
    provenance = report.provenance
    lines = [heading("Where the numbers come from", options), ""]
    lines += paragraph(_recording(provenance), options)
    return lines + bullets((f"{each}: {MEANING[each]}" for each in provenance.sources), options)


def _recording(provenance: Provenance) -> str:
    rows = format_count(provenance.rows, "row")
    length = format_ns(provenance.duration_ns)
    if provenance.ended:
        ended = f"ended: {ENDINGS.get(provenance.ended, provenance.ended)}"
    else:
        ended = "its end is missing"
    return f"A recording of {length} ({ended}); {rows} of trace version {provenance.trace_version}."


def _intervals(regions: tuple[RegionView, ...], options: RenderOptions) -> list[str]:
    """Say how exact the bytes per node of sampled regions are."""
    sampled = [region for region in regions if not region.census]
    if not sampled:
        return []
    named = [
        f"{clip_middle(clean(region.label), 32)} ± {format_bytes(region.error_bytes)}"
        for region in sampled[: options.rows]
    ]
    rest = len(sampled) - len(named)
    more = f", and {rest} more" if rest else ""
    text = "Of these regions a sample of the pages was looked at; 95 % interval of a node's bytes: "
    return [text + "; ".join(named) + more]


def _account(report: Report, options: RenderOptions) -> list[str]:
    if not report.losses:
        return []
    names = ("recorded", "attributed", "unattributed", "lost")
    heads = [Column("events", right=False, least=8), *map(Column, names)]
    lines = ["", *table(heads, [_loss(loss) for loss in report.losses], options)]
    text = "Recorded = attributed to a thread or a region + unattributed + lost."
    return lines + paragraph(text, options)


def _loss(loss: LossView) -> list[str]:
    counts = [f"{count:,}" for count in (loss.recorded, loss.attributed, loss.unattributed)]
    lost = f"{loss.lost:,}" + (f" ({format_share(loss.lost_share)})" if loss.lost else "")
    return [loss.family, *counts, lost]
