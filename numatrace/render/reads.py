"""The map of a report, measured: who reads what, from which node, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from numatrace.model.units import format_ns
from numatrace.render.activity import role_name
from numatrace.render.bars import Heat
from numatrace.render.layout import faint, heading, paragraph
from numatrace.render.sampling import sampling, source
from numatrace.render.split import NOTHING, count_cell, share_cell_of
from numatrace.render.tables import Column, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numatrace.model.measured import Figure, PhaseView, ReadView
    from numatrace.model.report import Report
    from numatrace.render.options import RenderOptions

WEIGHTS = ("weights", "repacked weights")
TOO_FEW = "too few"
MUCH = 0.2
"""From this remote share on it is coloured as a loss."""
UNNAMED = (
    "Large private memory counts as weights here: it has no name, and is read for longer than the"
    " weights that have one."
)


class _Line(NamedTuple):
    """A row of a table of reads, before it is cut to size."""

    cells: tuple[str, ...]
    read_ns: int
    remote: Figure | None
    lost_ns: int


def reads(report: Report, options: RenderOptions) -> list[str]:
    """Return what was measured, or why nothing was; the server's only where there is one."""
    access = report.access
    if access is None:
        return []
    lines = [heading("Who reads what", options), "", *source(access, options)]
    if access.remote_share is not None:
        share = share_cell_of(access.remote_share)
        text = f"Reads of the weights while the server computed: {share} remote."
        text += f" {UNNAMED}" if access.unnamed_weights else ""
        lines += paragraph(text, options)
    if access.rung != "placement":
        lines += thread_reads(report, options)
        what = Column("layer or region", right=False, least=16)
        lines += _part("What they read, by time lost", (what,), _memory(report), options)
        lines += _hot(report.hot, options)
        lines += _phases(report.phases, options)
    facts = sampling(report, options)
    return lines + (["", *facts] if facts else [])


def thread_reads(report: Report, options: RenderOptions) -> list[str]:
    """Return the server's threads by the time that they lose."""
    heads = (Column("thread"), Column("name", right=False, least=8), Column("role", right=False))
    title = "Threads and worker slots, by time lost to remote memory"
    return _part(title, heads, _threads(report), options)


def _part(
    title: str, heads: Sequence[Column], found: Iterable[_Line], options: RenderOptions
) -> list[str]:
    ordered = sorted(found, key=lambda line: (-line.lost_ns, -line.read_ns))
    shown, rest = ordered[: options.rows], ordered[options.rows :]
    columns = [*heads, Column("reading"), Column("remote"), Column("lost")]
    most = max((line.lost_ns for line in shown), default=0)
    rows = [
        [
            *line.cells,
            format_ns(line.read_ns),
            remote_cell(line.remote),
            lost_cell(line.lost_ns, most),
        ]
        for line in shown
    ]
    lines = table(columns, rows, options)
    if rest:
        read, lost = sum(line.read_ns for line in rest), sum(line.lost_ns for line in rest)
        text = f"and {len(rest):,} more, reading for {format_ns(read)}"
        lines += paragraph(text + (f", {format_ns(lost)} of it lost" if lost else ""), options)
    return ["", *paragraph(f"{title}:", options), *lines] if lines else []


def _servers(report: Report) -> set[int]:
    found = {process.tgid for process in report.processes if process.is_server}
    return found or {thread.tgid for thread in report.threads}


def _threads(report: Report) -> Iterable[_Line]:
    servers = _servers(report)
    for each in report.threads:
        if each.tgid in servers and each.read_ns:
            cells = (str(each.tid), each.comm or NOTHING, role_name(each))
            yield _Line(cells, each.read_ns, each.remote_share, each.lost_ns)


def _memory(report: Report) -> Iterable[_Line]:
    """Return the layers that were read, and the regions that are no weights."""
    servers = _servers(report)
    for layer in report.layers:
        if layer.tgid in servers and layer.read_ns:
            cells = (place_name(layer.path.rpartition("/")[2], layer.layer, weights=True),)
            yield _Line(cells, layer.read_ns, layer.remote_share, layer.lost_ns)
    for region in report.regions:
        if region.tgid in servers and region.read_ns and region.cls not in WEIGHTS:
            yield _Line((region.label,), region.read_ns, region.remote_share, region.lost_ns)


def _hot(found: Sequence[ReadView], options: RenderOptions) -> list[str]:
    if not found:
        return []
    shown = found[: options.few]
    most = max(each.lost_ns for each in shown)
    heads = [Column("thread"), Column("reads", right=False, least=26), Column("from")]
    heads += [Column("on"), Column("samples"), Column("reading"), Column("lost")]
    rows = [
        [
            str(each.tid),
            place_name(each.region, each.layer),
            f"node {each.mem_node}",
            f"node {each.cpu_node}",
            count_cell(each.samples),
            format_ns(each.time_ns),
            lost_cell(each.lost_ns, most),
        ]
        for each in shown
    ]
    title = "The remote reads that cost most, from the memory of one node on CPUs of another:"
    return ["", *paragraph(title, options), *table(heads, rows, options)]


def _phases(found: Sequence[PhaseView], options: RenderOptions) -> list[str]:
    most = max((each.lost_ns for each in found), default=0)
    heads = [Column("phase", right=False), Column("duration"), Column("CPU time")]
    heads += [Column("samples"), Column("reading weights"), Column("remote"), Column("lost")]
    rows = [
        [
            each.phase,
            format_ns(each.duration_ns),
            format_ns(each.oncpu_ns),
            count_cell(each.samples),
            format_ns(each.read_ns) if each.read_ns else NOTHING,
            remote_cell(each.remote_share) if each.read_ns else NOTHING,
            lost_cell(each.lost_ns, most),
        ]
        for each in found
    ]
    lines = ["", *table(heads, rows, options)] if rows else []
    text = "Remote: of the time spent reading. Tables but this one leave out loading."
    notes = [f"{each.phase}, a prompt or decoding: {each.note}." for each in found if each.note]
    text = " ".join([text, *(note[0].upper() + note[1:] for note in notes)])
    return lines + faint(text, options)


def place_name(region: str, layer: int | None, *, weights: bool = False) -> str:
    """Return `blk.3 of model.gguf`, or the region's label where there is no layer."""
    if layer is None:
        return f"{region}, no layer" if weights else region
    return f"blk.{layer} of {region}"


def remote_cell(share: Figure | None) -> str:
    """Return a measured remote share, or that there are too few samples for one."""
    if share is None:
        return TOO_FEW
    return Heat(share_cell_of(share), None, "loss" if share.value >= MUCH else "bar")


def lost_cell(lost_ns: int, most_ns: int) -> str:
    """Return time lost, with a bar against the most of its table."""
    return Heat(format_ns(lost_ns), lost_ns / most_ns, "loss") if lost_ns > 0 < most_ns else NOTHING
