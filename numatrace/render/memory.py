"""The map of a report, third part: regions, layers and tensors, and the nodes they lie on."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from numatrace.model.units import format_bytes, format_count
from numatrace.render.layermap import layer_map
from numatrace.render.layout import INDENT, bullets, faint, heading, paragraph
from numatrace.render.processes import by_process
from numatrace.render.ranges import ranges
from numatrace.render.split import NOTHING, Split, count_cell
from numatrace.render.tables import Column, table
from numatrace.render.width import clean, clip_middle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numatrace.model.report import Report
    from numatrace.model.views import RegionView, TensorView
    from numatrace.render.options import RenderOptions
    from numatrace.render.ranges import LayerRange

PRIVATE = "anonymous weights, KV cache or compute buffers (private)"
RANGES = 20
"""Ranges of layers that are shown of a file; no model's layers lie in more than a few."""
WHOLE = 2
"""Ranges that need no map: the layers, and what is in none of them."""
CHANGES_SHOWN = 3


def regions(report: Report, options: RenderOptions) -> list[str]:
    """Return the largest regions, the server's first, with their bytes per node."""
    if not report.regions:
        return []
    servers = {process.tgid for process in report.processes if process.is_server}
    ordered = sorted(report.regions, key=lambda region: region.tgid not in servers)
    shown, rest = ordered[: options.rows], ordered[options.rows :]
    split = Split(report, (region.node_bytes for region in report.regions))
    lines = [heading("Memory: where it lies", options)]
    for title, group, alone in by_process(shown, report):
        lines += ["", *(paragraph(title, options) if title else [])]
        rows = [_region(region, split, alone=alone) for region in group]
        lines += table(_region_heads(split, alone=alone), rows, options)
    if rest:
        size = format_bytes(sum(sum(region.node_bytes.values()) for region in rest))
        more = format_count(len(rest), "more region")
        lines += paragraph(f"and {more} with {size} in memory together", options)
    if any(region.cls == PRIVATE for region in shown):
        text = "Private memory: the KV cache, compute buffers or weights that no file backs;"
        text += " a mapping does not tell which."
        lines += faint(text, options)
    return lines + bullets(_changes(shown), options)


def layers(report: Report, options: RenderOptions) -> list[str]:
    """Return the layers of every mapped model; those in a row that lie alike are one line."""
    if not report.layers:
        return []
    lines = [heading("Layers of the model", options)]
    split = Split(report, (layer.node_bytes for layer in report.layers))
    heads = [Column("layers", right=False), Column("tensors"), Column("size"), *split.heads]
    absent = any(layer.absent_bytes for layer in report.layers)
    heads += [Column("not in memory")] if absent else []
    for (_, path), group in groupby(report.layers, key=lambda layer: (layer.tgid, layer.path)):
        every = list(group)
        found = ranges(every)
        lines += ["", *_path(path, options)]
        if len(found) > WHOLE:
            lines += [*layer_map(every, split.nodes, options), ""]
        rows = [_range(each, split, absent=absent) for each in found[:RANGES]]
        lines += table(heads, rows, options)
        if len(found) > RANGES:
            more = sum(each.layers for each in found[RANGES:])
            lines += paragraph(f"and {format_count(more, 'more layer')}; --json has all", options)
    return lines


def tensors(report: Report, options: RenderOptions) -> list[str]:
    """Return the tensors of every mapped model; of more than `top`, the largest."""
    if not options.tensors or not report.tensors:
        return []
    lines = [heading("Tensors of the model", options)]
    split = Split(report, (tensor.node_bytes for tensor in report.tensors))
    heads = [Column("tensor", right=False, least=20), Column("type", right=False), Column("size")]
    heads += split.heads
    for (_, path), group in groupby(report.tensors, key=lambda each: (each.tgid, each.path)):
        found = list(group)
        shown = _largest(found, options.top)
        lines += ["", *_path(path, options)]
        lines += table(heads, [_tensor(tensor, split) for tensor in shown], options)
        if len(found) > len(shown):
            more = format_count(len(found) - len(shown), "smaller tensor")
            lines += paragraph(f"and {more}", options)
    return lines


def _path(path: str, options: RenderOptions) -> list[str]:
    return [INDENT + clip_middle(clean(path), options.columns - len(INDENT))]


def _region_heads(split: Split, *, alone: bool) -> list[Column]:
    heads = [Column("region", right=False, least=16), Column("size"), Column("in memory")]
    return [*([] if alone else [Column("pid")]), *heads, *split.heads, Column("faults")]


def _region(region: RegionView, split: Split, *, alone: bool) -> list[str]:
    prefix = {"weights": "weights: ", "file": "file: "}.get(region.cls, "") if region.path else ""
    present = sum(region.node_bytes.values())
    cells = [*([] if alone else [str(region.tgid)]), prefix + region.label]
    cells += [format_bytes(size) if size else NOTHING for size in (region.bytes, present)]
    return [*cells, *split.cells(region.node_bytes), count_cell(region.faults)]


def _changes(shown: Sequence[RegionView]) -> list[str]:
    """Say which regions did not stay where they were."""
    found = sorted((-region.changes, region.label) for region in shown if region.changes)
    return [
        f"{clip_middle(clean(label), 40)}: pages had come, gone or moved in"
        f" {format_count(-count, 'later look')} at its mappings"
        for count, label in found[:CHANGES_SHOWN]
    ]


def _range(each: LayerRange, split: Split, *, absent: bool) -> list[str]:
    cells = [each.name, count_cell(each.tensors), format_bytes(each.bytes)]
    cells += split.cells(each.node_bytes)
    missing = format_bytes(each.absent_bytes) if each.absent_bytes else NOTHING
    return cells + ([missing] if absent else [])


def _largest(found: list[TensorView], top: int | None) -> list[TensorView]:
    """Return the `top` largest tensors in the order of the file; all of them for None."""
    order = sorted(range(len(found)), key=lambda index: (-found[index].bytes, index))
    return [found[index] for index in sorted(order[:top])]


def _tensor(tensor: TensorView, split: Split) -> list[str]:
    return [tensor.name, tensor.type, format_bytes(tensor.bytes), *split.cells(tensor.node_bytes)]
