"""Tensors and layers of the mapped models: bytes by the GGUF table, bytes per node."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from numatrace.analyze.places import add_up
from numatrace.model.report import LayerView, TensorView

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numatrace.analyze.documents import Tensor
    from numatrace.analyze.places import Piece

LAYER = re.compile(r"blk\.([0-9]{1,6})\.")
"""How GGUF names the tensors of layer N (docs/gguf.md of ggml, "Standardized tensor names")."""
File = tuple[str, int]


def layer_of(name: str) -> int | None:
    """Return the layer that a tensor belongs to, or None."""
    match = LAYER.match(name)
    return int(match[1]) if match else None


def tensor_views(tensors: Iterable[Tensor], pieces: Iterable[Piece]) -> tuple[TensorView, ...]:
    """Return all tensors of the files that a process maps, in the order of the file.

    A tensor of such a file without a mapped piece is there with nothing present and nothing absent.
    """
    table: defaultdict[File, list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        table[tensor.path, tensor.inode].append(tensor)
    views: list[TensorView] = []
    for (tgid, file), named in sorted(_by_file(pieces, table).items()):
        ordered = sorted(table[file], key=lambda tensor: (tensor.offset, tensor.name))
        views.extend(_view(tgid, tensor, named.get(tensor.name, [])) for tensor in ordered)
    return tuple(views)


def layer_views(tensors: Iterable[TensorView]) -> tuple[LayerView, ...]:
    """Return the sums over the tensors of each layer; what belongs to no layer comes last."""
    groups: defaultdict[tuple[int, str, int | None], list[TensorView]] = defaultdict(list)
    for tensor in tensors:
        groups[tensor.tgid, tensor.path, tensor.layer].append(tensor)
    order = sorted(groups, key=lambda key: (key[:2], key[2] is None, key[2] or 0))
    return tuple(_layer(key, groups[key]) for key in order)


def _by_file(
    pieces: Iterable[Piece], table: Mapping[File, list[Tensor]]
) -> dict[tuple[int, File], dict[str, list[Piece]]]:
    """Return the pieces of every process and file with a tensor table, by tensor."""
    by_inode = {inode: (path, inode) for path, inode in sorted(table) if inode}
    found: dict[tuple[int, File], dict[str, list[Piece]]] = {}
    for piece in pieces:
        exact = piece.path, piece.inode
        # A file that was replaced is "PATH (deleted)" in the map and PATH in the table.
        file = exact if exact in table else by_inode.get(piece.inode)
        if piece.key.name and file is not None:
            named = found.setdefault((piece.key.tgid, file), {})
            named.setdefault(piece.key.name, []).append(piece)
    return found


def _view(tgid: int, tensor: Tensor, pieces: list[Piece]) -> TensorView:
    return TensorView(
        tgid=tgid,
        path=tensor.path,
        name=tensor.name,
        layer=layer_of(tensor.name),
        type=tensor.type,
        bytes=tensor.bytes,
        node_bytes=add_up(pieces),
        absent_bytes=sum(piece.absent_bytes for piece in pieces),
    )


def _layer(key: tuple[int, str, int | None], tensors: list[TensorView]) -> LayerView:
    nodes: Counter[int] = Counter()
    for tensor in tensors:
        nodes.update(tensor.node_bytes)
    return LayerView(
        *key,
        tensors=len(tensors),
        bytes=sum(tensor.bytes for tensor in tensors),
        node_bytes=dict(sorted(nodes.items())),
        absent_bytes=sum(tensor.absent_bytes for tensor in tensors),
    )
