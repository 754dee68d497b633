"""Reports to make pages of: recorded ones, hostile ones, and one far too large."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numatrace.analyze import analyze_trace
from numatrace.model.measured import Figure, GridView
from numatrace.model.views import NodeView
from numatrace.trace.reader import Trace

if TYPE_CHECKING:
    from numatrace.model.report import Report

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
NAMES = sorted(path.parent.name for path in FIXTURES.glob("*/trace.arrow"))
PLAIN = frozenset(
    {"kind", "source", "unit", "role", "cls", "confidence", "rung", "phase", "phases", "cpus"}
)
"""Fields whose values are the report's own words or numbers."""

HOSTILE = (
    "</script><img src=x onerror=window.pwned=1>",
    "<!--<script>window.pwned=1",
    "\"'><svg onload=window.pwned=1>",
    "javascript:window.pwned=1",
    "]]>&lt;b&gt;&amp;\\u003cscript\\u003e",
    "a\u202eb\u2066c\u200bd\ufeffe",
    "\x00\x07\x1b[31m\x9b\x7f\r\n\t\u2028\u2029",
    "${window.pwned=1}`+window.pwned+`",
    "__proto__",
    "{{script}}{{data}}",
    "\udfff\ud800\U0001f4a9" + "\u0301" * 50,
)


def recorded(name: str) -> Report:
    """The report of a fixture."""
    with Trace.open(FIXTURES / name / "trace.arrow") as trace:
        return analyze_trace(trace)


def hostile(report: Report) -> Report:
    """The report with hostile text in every field that the trace may fill."""
    made: Report = _hostile(report, "")
    return made


def _hostile(item: Any, name: str) -> Any:
    if isinstance(item, str):
        bad = HOSTILE[(len(item) + len(name)) % len(HOSTILE)]
        return item if name in PLAIN else f"{bad}{item}{bad}"
    if isinstance(item, tuple):
        return tuple(_hostile(each, name) for each in item)
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        parts = dataclasses.fields(item)
        return replace(
            item, **{part.name: _hostile(getattr(item, part.name), part.name) for part in parts}
        )
    return item


def huge(report: Report) -> Report:
    """The report of a machine with 64 nodes and of a model and a pool beyond any that there are."""
    nodes = range(64)
    bytes_ = dict.fromkeys(nodes, 123_456_789_012)
    text = "\u20ac" * 5000
    figure = Figure(1 / 3, "share", "operand sample", 1 / 7, 6 / 7)
    first, thread = report.tensors[0], report.threads[0]
    tensor = replace(first, node_bytes=bytes_, path=text, remote_share=figure, read_ns=10**12)
    node = NodeView(0, "0-255", 256, 1 << 40, 1 << 39, 1 << 30, dict.fromkeys(nodes, 21))
    step = replace(report.findings[0].fixes[0].steps[0], command="echo " + "x" * 300_000)
    fix = replace(report.findings[0].fixes[0], steps=(step,) * 50, notes=(text,) * 500)
    finding = replace(report.findings[0], fixes=(fix,) * 3, notes=(text,) * 1000)
    process = replace(report.processes[0], argv=(text,) * 1000)
    return replace(
        report,
        findings=(finding,) * 9,
        machine=replace(report.machine, nodes=tuple(replace(node, node=n) for n in nodes)),
        processes=(process, *[replace(process, tgid=n + 2, is_server=False) for n in range(500)]),
        tensors=tuple(replace(tensor, name=f"blk.{n}.{text}", layer=n) for n in range(4_000)),
        threads=tuple(replace(thread, tid=n + 1, comm=text, oncpu_ns=bytes_) for n in range(4_000)),
        regions=tuple(replace(report.regions[0], label=text, path=text) for _ in range(4_000)),
        grid=tuple(
            GridView(thread.tgid, n % 100 + 1, text, text, n, 9, 10**9, figure, n)
            for n in range(4_000)
        ),
        provenance=replace(report.provenance, not_recorded=(text,) * 5000),
    )
