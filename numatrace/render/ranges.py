"""Layers in a row that lie alike, put together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numatrace.model.views import LayerView

ALIKE = 0.05
"""Layers whose shares on each node differ by at most this lie alike: sampled pages scatter."""


@dataclass(frozen=True, slots=True)
class LayerRange:
    """Consecutive layers of one file, or all of it that belongs to no layer, and their sums."""

    first: int | None
    last: int | None
    layers: int
    tensors: int
    bytes: int
    node_bytes: dict[int, int]
    absent_bytes: int

    @property
    def name(self) -> str:
        """Return `blk.0-31`, as the tensors are named."""
        if self.first is None:
            return "in no layer"
        return f"blk.{self.first}" + (f"-{self.last}" if self.last != self.first else "")


def ranges(layers: Sequence[LayerView]) -> list[LayerRange]:
    """Return one file's layers, in ascending order, as ranges (see ALIKE)."""
    groups: list[list[LayerView]] = []
    for layer in layers:
        if groups and _continues(groups[-1], layer):
            groups[-1].append(layer)
        else:
            groups.append([layer])
    return [_sum(group) for group in groups]


def _continues(group: list[LayerView], layer: LayerView) -> bool:
    last = group[-1].layer
    if last is None or layer.layer != last + 1:
        return False
    # Against the group's first and last: a slow drift must not end up as one range.
    return _alike(group[0], layer) and _alike(group[-1], layer)


def _alike(a: LayerView, b: LayerView) -> bool:
    shares = [_shares(layer) for layer in (a, b)]
    places = shares[0].keys() | shares[1].keys()
    return all(abs(shares[0].get(p, 0.0) - shares[1].get(p, 0.0)) <= ALIKE for p in places)


def _shares(layer: LayerView) -> dict[int, float]:
    """Return the layer's parts by node, and what is not in memory as node -1."""
    parts = {-1: layer.absent_bytes, **layer.node_bytes}
    total = sum(parts.values())
    return {node: part / total for node, part in parts.items()} if total else {}


def _sum(group: list[LayerView]) -> LayerRange:
    nodes: Counter[int] = Counter()
    for layer in group:
        nodes.update(layer.node_bytes)
    return LayerRange(
        first=group[0].layer,
        last=group[-1].layer,
        layers=len(group),
        tensors=sum(layer.tensors for layer in group),
        bytes=sum(layer.bytes for layer in group),
        node_bytes=dict(sorted(nodes.items())),
        absent_bytes=sum(layer.absent_bytes for layer in group),
    )
