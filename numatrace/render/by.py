"""One table, of what was asked for: threads, worker slots, layers, tensors, nodes or phases."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from numatrace.model.units import format_bytes, format_count, format_ns
from numatrace.render.activity import threads
from numatrace.render.layout import faint, heading, paragraph
from numatrace.render.reads import TOO_FEW, place_name, remote_cell, thread_reads
from numatrace.render.sampling import source
from numatrace.render.split import NOTHING, Split, heat_cell
from numatrace.render.tables import Column, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numatrace.model.measured import Figure, ReadView
    from numatrace.model.report import Report
    from numatrace.model.views import LayerView, TensorView, ThreadView
    from numatrace.render.options import By, RenderOptions

TOP = 20
"""Rows of the one table, unless asked for more."""
READS = (
    "Reading: CPU time in accesses to it, by samples. Remote: the part of that from other nodes."
)
NO_READS = "No reads were measured: where it lies is known, and not who reads it."


def grouped(report: Report, options: RenderOptions) -> list[str]:
    """Return the table that was asked for, or that the trace has nothing for it."""
    assert options.by is not None
    title, make = TABLES[options.by]
    longer = options if options.top is not None else replace(options, top=TOP)
    lines = make(report, longer)
    if not lines:
        lines = ["", *paragraph("The trace has nothing of that.", options)]
    how = source(report.access, options) if report.access is not None else []
    return [heading(title, options), "", *how, *lines]


def _threads(report: Report, options: RenderOptions) -> list[str]:
    where = threads(report, options)
    return ["", *where, *thread_reads(report, options)] if where else []


def _slots(report: Report, options: RenderOptions) -> list[str]:
    """Return the threads that compute, each worker slot as one."""
    working = tuple(each for each in report.threads if _is_slot(each))
    return _threads(replace(report, threads=working), options)


def _is_slot(thread: ThreadView) -> bool:
    return thread.role == "compute" or thread.members > 1


class _Read(NamedTuple):
    """Reads of one node's memory: times in nanoseconds, `remote_ns` that on other nodes' CPUs."""

    samples: int = 0
    time_ns: int = 0
    remote_ns: int = 0
    lost_ns: int = 0


class _Row(NamedTuple):
    """A layer or a tensor."""

    name: str
    bytes: int
    node_bytes: dict[int, int]
    read_ns: int
    remote: Figure | None
    lost_ns: int


def _layers(report: Report, options: RenderOptions) -> list[str]:
    several = len({(each.tgid, each.path) for each in report.layers}) > 1
    rows = [_row(each, _layer_name(each, several=several)) for each in report.layers]
    return _placed("layer", rows, report, options)


def _tensors(report: Report, options: RenderOptions) -> list[str]:
    rows = [_row(each, each.name) for each in report.tensors]
    return _placed("tensor", rows, report, options)


def _layer_name(layer: LayerView, *, several: bool) -> str:
    if several:
        return place_name(layer.path.rpartition("/")[2], layer.layer, weights=True)
    return "in no layer" if layer.layer is None else f"blk.{layer.layer}"


def _row(view: LayerView | TensorView, name: str) -> _Row:
    remote = view.remote_share
    return _Row(name, view.bytes, view.node_bytes, view.read_ns, remote, view.lost_ns)


def _placed(what: str, every: Sequence[_Row], report: Report, options: RenderOptions) -> list[str]:
    """Return layers or tensors by time lost, then by time read, then in the file's order."""
    if not every:
        return []
    ordered = sorted(every, key=lambda row: (-row.lost_ns, -row.read_ns))
    shown, rest = ordered[: options.rows], ordered[options.rows :]
    read = any(row.read_ns for row in every)
    split = Split(report, (row.node_bytes for row in every))
    heads = [Column(what, right=False, least=24), Column("size"), *split.heads]
    heads += [Column("reading"), Column("remote"), Column("lost")] if read else []
    rows = [_placed_cells(row, split, read=read) for row in shown]
    lines = ["", *table(heads, rows, options)]
    if rest:
        size = format_bytes(sum(row.bytes for row in rest))
        lines += paragraph(f"and {format_count(len(rest), f'more {what}')} of {size}", options)
    return lines + faint(READS if read else NO_READS, options)


def _placed_cells(row: _Row, split: Split, *, read: bool) -> list[str]:
    cells = [row.name, format_bytes(row.bytes), *split.cells(row.node_bytes)]
    if not read:
        return cells
    time = format_ns(row.read_ns) if row.read_ns else NOTHING
    remote = remote_cell(row.remote) if row.read_ns else NOTHING
    return [*cells, time, remote, format_ns(row.lost_ns) if row.lost_ns else NOTHING]


def _nodes(report: Report, options: RenderOptions) -> list[str]:
    """Return every node's weights and CPU time, and what is read from its memory by whom."""
    nodes = [view.node for view in report.machine.nodes]
    if not nodes:
        return []
    server = report.server
    weights = server.weights_bytes if server is not None else {}
    compute = server.compute_ns if server is not None else {}
    reads = _by_memory(_working(report))
    heads = [Column("node"), Column("weights"), Column("compute time")]
    heads += [Column("read from it"), Column("by other nodes"), Column("lost")]
    rows = [
        [
            str(node),
            heat_cell(weights.get(node, 0), sum(weights.values())),
            heat_cell(compute.get(node, 0), sum(compute.values()), "work"),
            *_read_cells(reads.get(node, _Read()), report),
        ]
        for node in nodes[: options.rows]
    ]
    lines = ["", *table(heads, rows, options)]
    if len(nodes) > options.rows:
        lines += paragraph(f"and {format_count(len(nodes) - options.rows, 'more node')}", options)
    text = "Read from it: sampled CPU time of the server in accesses to that node's memory, loading"
    return lines + faint(
        f"{text} left out; by other nodes: the part of threads elsewhere.", options
    )


def _phases(report: Report, options: RenderOptions) -> list[str]:
    if not report.phases:
        return []
    found = {
        each.phase: _by_memory(read for read in _servers(report) if read.phase == each.phase)
        for each in report.phases
    }
    shown = {name: _split(reads, report) for name, reads in found.items()}
    split = Split(report, shown.values())
    heads = [Column("phase", right=False), Column("duration"), Column("CPU time"), *split.heads]
    heads += [Column("remote"), Column("lost")]
    rows = [
        [
            each.phase,
            format_ns(each.duration_ns),
            format_ns(each.oncpu_ns),
            *split.cells(shown[each.phase]),
            remote_cell(each.remote_share) if each.read_ns else NOTHING,
            format_ns(each.lost_ns) if each.lost_ns else NOTHING,
        ]
        for each in report.phases
    ]
    text = (
        "Nodes: whose memory the server reads from, by sampled time; a dash where the samples are"
    )
    text += " too few. Remote: of the reads of weights."
    return ["", *table(heads, rows, options), *faint(text, options)]


def _split(reads: dict[int, _Read], report: Report) -> dict[int, int]:
    """Return the time by node of the memory; nothing where the samples are too few."""
    if not _enough(sum(read.samples for read in reads.values()), report):
        return {}
    return {node: read.time_ns for node, read in reads.items()}


def _read_cells(read: _Read, report: Report) -> list[str]:
    """Return what is read from a node's memory: time, the part from elsewhere, time lost."""
    remote = heat_cell(read.remote_ns, read.time_ns, "loss")
    enough = not read.time_ns or _enough(read.samples, report)
    cells = [format_ns(read.time_ns) if read.time_ns else NOTHING, remote if enough else TOO_FEW]
    return [*cells, format_ns(read.lost_ns) if read.lost_ns else NOTHING]


def _enough(samples: int, report: Report) -> bool:
    """Whether a share may be given of so many samples, as alike as those in a row are."""
    access = report.access
    if access is None or access.rung == "placement":
        return False
    return samples >= access.least_samples * max(1.0, access.design_effect or 1.0)


def _servers(report: Report) -> list[ReadView]:
    tgids = {process.tgid for process in report.processes if process.is_server}
    return [read for read in report.reads if read.tgid in tgids]


def _working(report: Report) -> list[ReadView]:
    """Return the server's reads outside of loading, or those of the phase that was asked for."""
    asked = report.filters.phase if report.filters is not None else None
    return [read for read in _servers(report) if asked is not None or read.phase != "load"]


def _by_memory(found: Iterable[ReadView]) -> dict[int, _Read]:
    """Return reads by the node of the memory, where both nodes are known."""
    reads: defaultdict[int, _Read] = defaultdict(_Read)
    for each in found:
        if each.cpu_node is not None and each.mem_node is not None:
            remote_ns = each.time_ns if each.cpu_node != each.mem_node else 0
            before = reads[each.mem_node]
            reads[each.mem_node] = _Read(
                before.samples + each.samples,
                before.time_ns + each.time_ns,
                before.remote_ns + remote_ns,
                before.lost_ns + each.lost_ns,
            )
    return dict(sorted(reads.items()))


TABLES: dict[By, tuple[str, Callable[[Report, RenderOptions], list[str]]]] = {
    "thread": ("By thread", _threads),
    "slot": ("By worker slot", _slots),
    "layer": ("By layer", _layers),
    "tensor": ("By tensor", _tensors),
    "node": ("By node", _nodes),
    "phase": ("By phase", _phases),
}
"""Heading and rows of every table."""
