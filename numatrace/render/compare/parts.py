"""The map of a comparison: nodes, threads and layers, before and after."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from numatrace.model.units import format_bytes, format_count, format_ns, format_share
from numatrace.render.compare.cells import (
    Places,
    amount,
    arrow,
    bytes_cell,
    number,
    remote_cell,
    share_cell,
)
from numatrace.render.layout import INDENT, faint, heading, paragraph
from numatrace.render.split import NOTHING
from numatrace.render.tables import Column, table
from numatrace.render.width import clean, clip_middle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numatrace.model.comparison import Comparison, LayerChange, NodeChange, ThreadChange
    from numatrace.render.options import RenderOptions

    Row = tuple[LayerChange, list[str]]

PAIRS = (
    "Threads are paired by role and by their order of CPU time: no. 1 was the busiest. Moves: to"
    " another node, per second of CPU time."
)
REMOTE = "Remote: measured share of the reads; * where the change is beyond chance."
MOVED = "Moved: the least part that has come to lie on another node."


def nodes(comparison: Comparison, options: RenderOptions) -> list[str]:
    """Return every node's weights, CPU time and free memory."""
    if not comparison.nodes:
        return []
    names = ("weights", "CPU time", "free memory")
    heads = [Column("node"), *(Column(name, right=False, least=12) for name in names)]
    shown = comparison.nodes[: 2 * options.rows]
    lines = [heading("Nodes", options), "", *table(heads, [_node(each) for each in shown], options)]
    rest = len(comparison.nodes) - len(shown)
    lines += paragraph(f"and {rest} more; --json has all", options) if rest > 0 else []
    text = "CPU time: that of the compute threads. Free memory: at the end of the recording."
    return [*lines, *faint(text, options)]


def threads(comparison: Comparison, options: RenderOptions) -> list[str]:
    """Return pairs of threads, the compute threads first."""
    if not comparison.threads:
        return []
    places = Places(comparison)
    measured = any(each.remote_share.change is not None for each in comparison.threads)
    names = ["CPU time", places.title, "moves/s", *(["remote"] if measured else [])]
    heads = [Column("thread", right=False), *(Column(n, right=False, least=8) for n in names)]
    shown = comparison.threads[: options.rows]
    rows = [_thread(each, places, measured=measured) for each in shown]
    lines = [heading("Threads", options), "", *table(heads, rows, options)]
    rest = len(comparison.threads) - len(shown)
    lines += paragraph(f"and {format_count(rest, 'more pair')}", options) if rest else []
    return [*lines, *faint(f"{PAIRS} {REMOTE}" if measured else PAIRS, options)]


def layers(comparison: Comparison, options: RenderOptions) -> list[str]:
    """Return the layers of every model; those in a row that read alike are one line."""
    lines: list[str] = []
    places = Places(comparison)
    measured = any(each.remote_share.change is not None for each in comparison.layers)
    heads = [Column("layers", right=False), Column("size"), Column(places.title, right=False)]
    heads += [Column("moved"), *([Column("remote", right=False)] if measured else [])]
    for path, group in groupby(comparison.layers, key=lambda layer: layer.path):
        rows = [(each, _layer(each, places, measured=measured)) for each in group]
        runs = _alike(rows)
        shown = [_run(run) for run in runs[: 2 * options.rows]]
        lines += ["", INDENT + clip_middle(clean(path), options.columns - len(INDENT))]
        lines += table(heads, shown, options)
        rest = len(rows) - sum(len(run) for run in runs[: 2 * options.rows])
        lines += paragraph(f"and {format_count(rest, 'more layer')}", options) if rest else []
    if not lines:
        return []
    note = f"{MOVED} {REMOTE}" if measured else MOVED
    return [heading("Layers of the model", options), *lines, *faint(note, options)]


def _node(node: NodeChange) -> list[str]:
    size, share = node.weights_bytes, node.weights_share
    weights = arrow(amount(size.before, share.before), amount(size.after, share.after))
    times = node.compute_share
    free = node.free_bytes
    return [
        str(node.node),
        weights,
        arrow(share_cell(times.before), share_cell(times.after)),
        arrow(bytes_cell(free.before), bytes_cell(free.after)),
    ]


def _thread(pair: ThreadChange, places: Places, *, measured: bool) -> list[str]:
    sides = (pair.before, pair.after)
    times = [format_ns(sum(t.oncpu_ns.values())) if t is not None else NOTHING for t in sides]
    ran = [places.of(thread.oncpu_ns) if thread is not None else NOTHING for thread in sides]
    moves = [number(each, "") for each in (pair.moves_per_s.before, pair.moves_per_s.after)]
    remote = [remote_cell(pair.remote_share)] if measured else []
    return [f"{pair.role} {pair.rank}", arrow(*times), arrow(*ran), arrow(*moves), *remote]


def _layer(layer: LayerChange, places: Places, *, measured: bool) -> list[str]:
    moved = format_share(layer.moved_share) if layer.moved_share is not None else NOTHING
    where = arrow(*map(places.of, (layer.before_node_bytes, layer.after_node_bytes)))
    return [where, moved, *([remote_cell(layer.remote_share)] if measured else [])]


def _alike(rows: Sequence[Row]) -> list[list[Row]]:
    """Return layers in a row that read the same in the table together."""
    runs: list[list[Row]] = []
    for layer, cells in rows:
        last, told = runs[-1][-1] if runs else (None, None)
        follows = last is not None and last.layer is not None and layer.layer == last.layer + 1
        if follows and cells == told:
            runs[-1].append((layer, cells))
        else:
            runs.append([(layer, cells)])
    return runs


def _run(run: Sequence[Row]) -> list[str]:
    first, last = run[0][0].layer, run[-1][0].layer
    name = "in no layer" if first is None else f"blk.{first}"
    name += f"-{last}" if last != first else ""
    return [name, format_bytes(sum(layer.bytes for layer, _ in run)), *run[0][1]]
