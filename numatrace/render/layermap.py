"""The layers of a model on the nodes: a line for each node, a character for each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.model.units import format_count
from numatrace.render.bars import LEVELS, strip
from numatrace.render.layout import INDENT, faint, paint
from numatrace.render.split import fullest
from numatrace.render.width import columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numatrace.model.views import LayerView
    from numatrace.render.options import RenderOptions

LABEL = 9
WIDEST = 3
"""Characters for one layer, of a model with few."""


def layer_map(
    layers: Sequence[LayerView], nodes: Sequence[int], options: RenderOptions
) -> list[str]:
    """Return one file's layers as a map, those in no layer left out; nothing for less than two."""
    numbered = [layer for layer in layers if layer.layer is not None]
    if len(numbered) < 2:
        return []
    space = options.columns - len(INDENT) - LABEL
    together = -(-len(numbered) // space)
    groups = [numbered[at : at + together] for at in range(0, len(numbered), together)]
    each = min(WIDEST, space // len(groups))
    lines = [_scale(numbered, each * len(groups), options)]
    shown = fullest(nodes, lambda node: sum(layer.node_bytes.get(node, 0) for layer in numbered))
    lines += [
        _row(f"node {node}", [_share(group, node) for group in groups], each, options)
        for node in shown
    ]
    if any(layer.absent_bytes for layer in numbered):
        absent = [_share(group, None) for group in groups]
        lines.append(_row("absent", absent, each, options, "faint"))
    if together == 1 and any(layer.remote_share is not None for layer in numbered):
        remote = [None if (f := layer.remote_share) is None else f.value for layer in numbered]
        lines.append(_row("remote", remote, each, options, "loss"))
    return lines + _legend(numbered, nodes, shown, together, options)


def _legend(
    numbered: Sequence[LayerView],
    nodes: Sequence[int],
    shown: Sequence[int],
    together: int,
    options: RenderOptions,
) -> list[str]:
    what = format_count(together, "layer") if together > 1 else "one layer"
    text = f"A character is {what}: the higher, the more of it is there; {LEVELS[0]} for nothing."
    if any(layer.remote_share is not None for layer in numbered) and together == 1:
        text += " Remote: measured share of its reads; a blank where the samples are too few."
    if len(nodes) > len(shown):
        text += f" {format_count(len(nodes) - len(shown), 'node')} with less are left out."
    return faint(text, options)


def _scale(numbered: Sequence[LayerView], width: int, options: RenderOptions) -> str:
    first, last = str(numbered[0].layer), str(numbered[-1].layer)
    text = f"{'blk.':<{LABEL}}{first}"
    fill = width - columns(first) - columns(last)
    return paint(INDENT + (text + " " * fill + last if fill > 0 else text), "faint", options)


def _row(
    label: str,
    shares: Sequence[float | None],
    each: int,
    options: RenderOptions,
    style: str = "bar",
) -> str:
    shown = "".join(" " * each if s is None else strip([s]) * each for s in shares)
    return INDENT + f"{label:<{LABEL}}" + paint(shown.rstrip(), style, options)


def _share(group: Sequence[LayerView], node: int | None) -> float:
    """Return the part of some layers on a node, or for None not in memory; 0 for no bytes."""
    total = sum(sum(layer.node_bytes.values()) + layer.absent_bytes for layer in group)
    part = sum(
        layer.absent_bytes if node is None else layer.node_bytes.get(node, 0) for layer in group
    )
    return part / total if total else 0.0
