"""Tensors and layers of the mapped models: bytes by the GGUF table, bytes per node."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from numatrace.analyze.memory.classes import WEIGHTS
from numatrace.analyze.memory.places import add_up
from numatrace.model.views import LayerView, TensorView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numatrace.analyze.documents import Tensor
    from numatrace.analyze.load import Loaded
    from numatrace.analyze.memory.locate import Place
    from numatrace.analyze.memory.places import Piece
    from numatrace.analyze.samples.intervals import Weighed
    from numatrace.analyze.samples.measure import Measure, Trio

Key = TypeVar("Key", tuple[int, str, str], tuple[int, str, int | None])
LAYER = re.compile(r"blk\.([0-9]{1,6})\.")
"""How GGUF names the tensors of layer N (docs/gguf.md of ggml, "Standardized tensor names")."""
File = tuple[str, int]


def layer_of(name: str) -> int | None:
    """Return the layer that a tensor belongs to, or None."""
    match = LAYER.match(name)
    return int(match[1]) if match else None


def tensor_views(loaded: Loaded, measured: Measure) -> tuple[TensorView, ...]:
    """Return all tensors of the files that a process maps or reads, in the order of the file.

    A tensor of such a file without a mapped piece is there with nothing present and nothing absent.
    """
    table: defaultdict[File, list[Tensor]] = defaultdict(list)
    for tensor in loaded.documents.tensors.values():
        table[tensor.path, tensor.inode].append(tensor)
    reads = _sums(loaded, measured, lambda place: (place.tgid, place.model, place.tensor))
    files = _by_file(loaded.pieces, table)
    read = {key[:2] for key in reads}
    for path, inode in table:
        # Private copies of a model's tensors, repacked or not, have no mapped pieces.
        for tgid in sorted(tgid for tgid, model in read if model == path):
            files.setdefault((tgid, (path, inode)), {})
    views: list[TensorView] = []
    for (tgid, file), named in sorted(files.items()):
        ordered = sorted(table[file], key=lambda tensor: (tensor.offset, tensor.name))
        views.extend(
            _view(
                tgid,
                tensor,
                named.get(tensor.name, []),
                measured.trio(reads.get((tgid, tensor.path, tensor.name))),
            )
            for tensor in ordered
        )
    return tuple(views)


def layer_views(
    loaded: Loaded, measured: Measure, tensors: Iterable[TensorView]
) -> tuple[LayerView, ...]:
    """Return the sums over the tensors of each layer; what belongs to no layer comes last."""
    reads = _sums(loaded, measured, lambda place: (place.tgid, place.model, place.layer))
    groups: defaultdict[tuple[int, str, int | None], list[TensorView]] = defaultdict(list)
    for tensor in tensors:
        groups[tensor.tgid, tensor.path, tensor.layer].append(tensor)
    order = sorted(groups, key=lambda key: (key[:2], key[2] is None, key[2] or 0))
    return tuple(_layer(key, groups[key], measured.trio(reads.get(key))) for key in order)


def _sums(loaded: Loaded, measured: Measure, name: Callable[[Place], Key]) -> dict[Key, Weighed]:
    """Return the sums of the reads of weights outside of loading, by what `name` calls a place."""
    keys: dict[Key, int] = {}
    of_place = [keys.setdefault(name(place), len(keys)) for place in loaded.locator.places]
    cells = measured.cells
    weights = np.array([place.cls in WEIGHTS for place in loaded.locator.places], bool)
    chosen = measured.working & weights[cells.place]
    sums = cells.sums(np.array(of_place, np.int64)[cells.place], chosen)
    names = list(keys)
    return {names[key]: each for key, each in sums.items()}


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


def _view(tgid: int, tensor: Tensor, pieces: list[Piece], read: Trio) -> TensorView:
    read_ns, remote_share, lost_ns = read
    return TensorView(
        tgid=tgid,
        path=tensor.path,
        name=tensor.name,
        layer=layer_of(tensor.name),
        type=tensor.type,
        bytes=tensor.bytes,
        node_bytes=add_up(pieces),
        absent_bytes=sum(piece.absent_bytes for piece in pieces),
        read_ns=read_ns,
        remote_share=remote_share,
        lost_ns=lost_ns,
    )


def _layer(key: tuple[int, str, int | None], tensors: list[TensorView], read: Trio) -> LayerView:
    read_ns, remote_share, lost_ns = read
    nodes: Counter[int] = Counter()
    for tensor in tensors:
        nodes.update(tensor.node_bytes)
    return LayerView(
        *key,
        tensors=len(tensors),
        bytes=sum(tensor.bytes for tensor in tensors),
        node_bytes=dict(sorted(nodes.items())),
        absent_bytes=sum(tensor.absent_bytes for tensor in tensors),
        read_ns=read_ns,
        remote_share=remote_share,
        lost_ns=lost_ns,
    )
