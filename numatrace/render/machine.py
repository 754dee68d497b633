"""The map of a report, first part: the machine and its processes."""

from __future__ import annotations

import shlex
from collections import defaultdict
from typing import TYPE_CHECKING

from numatrace.model.cpulist import format_cpulist
from numatrace.model.units import format_bytes, format_count, format_ns
from numatrace.render.layout import INDENT, faint, heading, paint, paragraph
from numatrace.render.split import NOTHING, in_words
from numatrace.render.tables import Column, table
from numatrace.render.width import clean, clip

if TYPE_CHECKING:
    from numatrace.model.report import Report
    from numatrace.model.views import MachineView, NodeView, ProcessView
    from numatrace.render.options import RenderOptions

NODE_ROWS = 64
FACT_COLUMNS = 200
"""Columns of a command line or the like that are shown."""
LABEL = 11
"""Columns before what is said of the server."""


def machine(report: Report, options: RenderOptions) -> list[str]:
    """Return the nodes with their CPUs, memory and distances."""
    view = report.machine
    lines = [heading("The machine", options), "", *paragraph(_system(view), options)]
    heads = [Column("node"), Column("CPUs", right=False, least=12), Column("cores")]
    heads += [Column(name) for name in ("memory", "free", "reclaimable")]
    several = len(view.nodes) > 1
    if several:
        heads.append(Column("distance", right=False, least=16))
    rows = [_node(node, several=several) for node in view.nodes[:NODE_ROWS]]
    if rows:
        lines += ["", *table(heads, rows, options)]
    if len(view.nodes) > NODE_ROWS:
        lines += paragraph(f"and {len(view.nodes) - NODE_ROWS} more nodes", options)
    if any(node.distances for node in view.nodes) and several:
        text = "Distance: the firmware's hint from node to node; 10 is the node itself; no latency."
        lines += faint(text, options)
    return lines


def processes(report: Report, options: RenderOptions) -> list[str]:
    """Return the server in full, and the other processes as a table."""
    if not report.processes:
        return []
    models = {region.tgid for region in report.regions if region.cls == "weights"}
    servers = [process for process in report.processes if process.is_server]
    others = [process for process in report.processes if not process.is_server]
    others.sort(key=lambda process: -sum(process.oncpu_ns.values()))
    lines = [heading("Processes", options)]
    for server in servers:
        lines += ["", *_server(server, options, has_model=server.tgid in models)]
    if not servers:
        text = "None of these is known to be an inference server."
        lines += ["", *paragraph(text, options)]
    if others:
        heads = [Column("pid"), Column("name", right=False, least=12), Column("CPU time")]
        heads += [Column("memory"), Column("on node", right=False, least=12)]
        lines += ["", *table(heads, [_other(each) for each in others[: options.rows]], options)]
    if len(others) > options.rows:
        more = format_count(len(others) - options.rows, "more process", "more processes")
        lines += paragraph(f"and {more}", options)
    return lines


def _system(view: MachineView) -> str:
    balancing = {None: "unknown", 0: "0 (off)"}.get(
        view.numa_balancing, f"{view.numa_balancing} (on)"
    )
    nodes = format_count(len(view.nodes), "node") if view.nodes else "nodes unknown"
    kernel = f"Linux {view.kernel}" if view.kernel else "kernel unknown"
    return f"{nodes}; {kernel}; kernel.numa_balancing: {balancing}"


def _node(node: NodeView, *, several: bool) -> list[str]:
    sizes = (node.total_bytes, node.free_bytes, node.reclaimable_bytes)
    cells = [str(node.node), node.cpus or "none", str(node.cores)]
    cells += [NOTHING if size is None else format_bytes(size) for size in sizes]
    return cells + ([_distances(node)] if several else [])


def _distances(node: NodeView) -> str:
    """Return `12 to 1-3, 32 to 4-7`: nodes of the same distance together, the nearest first."""
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for other, distance in node.distances.items():
        if other != node.node:
            groups[distance].append(other)
    parts = [f"{distance} to {format_cpulist(groups[distance])}" for distance in sorted(groups)]
    return ", ".join(parts) or NOTHING


def _server(process: ProcessView, options: RenderOptions, *, has_model: bool) -> list[str]:
    name = clip(clean(process.name), 40) or "a process"
    role = "serves the model" if has_model else "is what this report is about"
    title = f"{name} (pid {process.tgid}, child of {process.ptgid}) {role}"
    lines = [paint(row, "bold", options) for row in paragraph(title, options)]
    for label, text in _facts(process):
        lines += paragraph(text, options, f"{INDENT * 2}{label:<{LABEL}}")
    return lines


def _facts(process: ProcessView) -> list[tuple[str, str]]:
    """Return what is known of the server, with labels."""
    time_ns, bytes_ = sum(process.oncpu_ns.values()), sum(process.present_bytes.values())
    time = f"{format_ns(time_ns)}: {in_words(process.oncpu_ns)}" if time_ns else "none"
    memory = f"{format_bytes(bytes_)}: {in_words(process.present_bytes)}" if bytes_ else "unknown"
    word = "node" if process.allowed_nodes.isdecimal() else "nodes"
    allowed = [
        f"CPUs {process.allowed_cpus}" if process.allowed_cpus else "",
        f"memory of {word} {process.allowed_nodes}" if process.allowed_nodes else "",
        f"memory policy {process.policy}" if process.policy else "",
    ]
    facts = {
        "command": shlex.join(process.argv),
        "unit": process.unit,
        "container": process.container,
        "allowed": "; ".join(filter(None, allowed)),
        "CPU time": time,
        "memory": memory,
    }
    return [(label, clip(clean(text), FACT_COLUMNS)) for label, text in facts.items() if text]


def _other(process: ProcessView) -> list[str]:
    bytes_ = sum(process.present_bytes.values())
    memory = format_bytes(bytes_) if bytes_ else NOTHING
    where = in_words(process.present_bytes).replace(" on node", " on") if bytes_ else NOTHING
    time_ns = sum(process.oncpu_ns.values())
    return [str(process.tgid), process.name or NOTHING, format_ns(time_ns), memory, where]
