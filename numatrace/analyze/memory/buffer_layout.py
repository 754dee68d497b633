"""What a buffer may hold, judged by its size: weights in llama.cpp's order, or a KV cache.

Facts of llama.cpp that this rests on: a buffer holds its tensors one after the other, each padded
to 32 bytes (ggml-alloc.c, TENSOR_ALIGNMENT), in the order in which the model's code creates them:
first those of no layer, then layer by layer. In a layer the attention comes before the feed-forward
part, and there the gate comes first. The order of `ffn_down` and `ffn_up` differs between
architectures (src/models: qwen3moe.cpp has down first, gemma4.cpp up), so nothing finer than the
layer is said of these. With CPU_REPACK, matrices of some types with a multiple of 8 rows have a
buffer of their own (ggml-cpu/repack.cpp); embeddings, which are not multiplied with, have not.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numatrace.analyze.documents import Tensor

ALIGNMENT = 32
SLACK = 4096 + 160
"""A buffer may exceed its tensors by a page, two headers of the allocator, and two alignments."""

MAX_TENSORS = 20_000
MAX_LAYERS = 256
MAX_TYPES = 6
CONTEXT_STEP = 256
"""llama.cpp pads the context to a multiple of this (llama-context.cpp, GGML_PAD(n_ctx, 256))."""

REPACKED = frozenset(
    (
        *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4", "NVFP4"),
        *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    )
)
"""Types that some build of some CPU has a repacked layout for."""

REPACKED_ROWS = 8
CACHE_BLOCKS = {"F16": (1, 2), "Q8_0": (32, 34), "Q4_0": (32, 18), "Q5_1": (32, 24), "F32": (1, 4)}
"""Elements and bytes of a block of the types that a cache may have, the usual one first."""

EMBEDDINGS = ("token_embd", "per_layer_token_embd", "position_embd", "token_types")
OUTPUTS = ("output", "output_norm")
FIRST = (*EMBEDDINGS, "token_embd_norm", "output_norm", "output")
ATTENTION = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output")
GATES = ("ffn_gate_inp", "ffn_gate", "ffn_gate_exps")
EXPERTS = "_exps"
UNORDERED = re.compile(r"ffn_(?:up|down)(?:_exps)?")
ROPE = "rope_freqs"
"""Belongs to no layer by its name, and is created with the first."""

LAYER = re.compile(r"blk\.([0-9]{1,6})\.(.+)")
_SUFFIX = re.compile(r"\.(?:weight|bias|scale)$")

BufferClass = Literal["weights", "repacked weights", "KV cache"]


class Part(NamedTuple):
    """Bytes of a buffer: of a tensor, or of a layer with `tensor` "" where only that is certain.

    `path`: the model file; `experts`: how many equal parts a tensor has that are experts.
    """

    offset: int
    bytes: int
    tensor: str
    layer: int | None
    path: str
    experts: int = 0


class Guess(NamedTuple):
    """What a buffer holds."""

    cls: BufferClass
    parts: tuple[Part, ...]


class Piece(NamedTuple):
    """A tensor as the layout needs it: its bytes without padding, and where its name puts it."""

    tensor: Tensor
    layer: int | None
    stem: str

    @property
    def padded_bytes(self) -> int:
        """Bytes with the padding behind it."""
        return self.tensor.bytes + -self.tensor.bytes % ALIGNMENT

    @property
    def is_expert_or_embedding(self) -> bool:
        """Whether it stays on the CPU where a GPU has all but the experts."""
        return self.stem.endswith(EXPERTS) or self.stem in EMBEDDINGS

    @property
    def repacked_type(self) -> str:
        """Its type if it may be repacked, which takes whole groups of rows; else ""."""
        shape = self.tensor.shape
        rows = shape[1] if len(shape) in (2, 3) else 0
        may = rows > 0 and not rows % REPACKED_ROWS and self.stem not in EMBEDDINGS
        return self.tensor.type if may and self.tensor.type in REPACKED else ""


class Model:
    """The tensors of one model file, or of all files of a split one: then `path` is ""."""

    def __init__(self, path: str, tensors: Iterable[Tensor]) -> None:
        self.path = path
        pieces = [_piece(tensor) for tensor in tensors if tensor.bytes > 0]
        self.pieces = sorted(pieces[:MAX_TENSORS], key=_order)
        self.layers = sorted({piece.layer for piece in self.pieces if piece.layer is not None})
        self.is_tied = not any(piece.stem == "output" for piece in self.pieces)
        modes = (False, True) if any(EXPERTS in piece.stem for piece in self.pieces) else (False,)
        self._sums = {only: self._cumulated(experts_only=only) for only in modes}

    def guesses(self, buffer_bytes: int, *, mapped: bool) -> list[Guess]:
        """Return what a buffer of this size may hold, if only one thing, or several; often nothing.

        `mapped`: the process maps the file, so that no buffer holds weights that are not repacked.
        """
        if not 0 < len(self.layers) <= MAX_LAYERS:
            return []
        whole = _distinct(self._weights(buffer_bytes, len(self.layers), mapped=mapped))
        if whole:
            return whole
        cache = self._cache(buffer_bytes)
        if cache is not None:
            return [cache]
        counts = range(1, len(self.layers))
        return _distinct(
            guess for count in counts for guess in self._weights(buffer_bytes, count, mapped=mapped)
        )

    def _weights(self, buffer_bytes: int, layers: int, *, mapped: bool) -> Iterator[Guess]:
        """Guesses for the first layers of the model, the others being on a GPU with the output.

        For all tensors, and for experts alone (llama.cpp's --cpu-moe).
        """
        for experts_only, sums in ((only, sums[layers]) for only, sums in self._sums.items()):
            for types in _type_sets(sums):
                repacked = sum(sums[type_] for type_ in types)
                rest = sum(sums.values()) - repacked
                copies = self._output_copies(types)
                copied = sum(piece.padded_bytes for piece in copies)
                candidates: tuple[tuple[BufferClass, int, list[Piece], bool], ...] = (
                    ("repacked weights", repacked, [], True),
                    ("repacked weights", repacked + copied, copies, bool(copies)),
                    ("weights", rest, [], not mapped),
                )
                for cls, size, first, is_possible in candidates:
                    if is_possible and size and 0 <= buffer_bytes - size <= SLACK:
                        here = self._on_cpu(layers, experts_only=experts_only)
                        chosen = cls != "weights"
                        members = [p for p in here if (p.repacked_type in types) == chosen]
                        yield Guess(cls, _parts([*first, *members]))

    def _cumulated(self, *, experts_only: bool) -> list[Counter[str]]:
        """Padded bytes of what is on the CPU, by repacked type, for each number of layers there."""
        sums: Counter[str] = Counter()
        found: list[Counter[str]] = []
        for layer, group in _by_layer(self.pieces):
            if layer is not None and not found:
                found.append(Counter(sums))
            for piece in group:
                wanted = not experts_only or piece.is_expert_or_embedding
                if wanted and piece.stem not in OUTPUTS:
                    sums[piece.repacked_type] += piece.padded_bytes
            if layer is not None:
                found.append(Counter(sums))
        if found and not experts_only:
            for piece in self.pieces:
                if piece.stem in OUTPUTS:
                    found[-1][piece.repacked_type] += piece.padded_bytes
        return found

    def _on_cpu(self, layers: int, *, experts_only: bool) -> list[Piece]:
        last, whole = self.layers[layers - 1], layers == len(self.layers)
        return [
            piece
            for piece in self.pieces
            if (piece.layer is None or piece.layer <= last)
            and (piece.stem not in OUTPUTS or (whole and not experts_only))
            and (not experts_only or piece.is_expert_or_embedding)
        ]

    def _output_copies(self, types: Iterable[str]) -> list[Piece]:
        """With tied embeddings the output is a second copy of them, which may be repacked."""
        if not self.is_tied:
            return []
        return [p for p in self.pieces if p.stem == "token_embd" and p.tensor.type in types]

    def _cache(self, buffer_bytes: int) -> Guess | None:
        """A KV cache of all layers, for some type of it and some length of the context."""
        widths = self._cache_widths()
        total = sum(key + value for _, key, value in widths)
        for elements, size in CACHE_BLOCKS.values() if total else ():
            unit = CONTEXT_STEP * total * size // elements
            steps = buffer_bytes // unit if unit else 0
            if steps and buffer_bytes - steps * unit <= SLACK:
                scale = steps * CONTEXT_STEP * size
                return Guess("KV cache", _cache_parts(widths, scale, elements, self.path))
        return None

    def _cache_widths(self) -> list[tuple[int, int, int]]:
        """Layer, and the elements of its keys and its values for one token."""
        rows: defaultdict[int, dict[str, int]] = defaultdict(dict)
        for piece in self.pieces:
            if piece.layer is not None and len(piece.tensor.shape) == 2:
                rows[piece.layer][piece.stem] = piece.tensor.shape[1]
        return [
            (layer, found["attn_k"], found["attn_v"])
            for layer, found in sorted(rows.items())
            if "attn_k" in found and "attn_v" in found
        ]


def _type_sets(sums: Iterable[str]) -> Iterator[frozenset[str]]:
    types = sorted(type_ for type_ in sums if type_)[:MAX_TYPES]
    for count in range(len(types) + 1):
        yield from map(frozenset, itertools.combinations(types, count))


def _distinct(guesses: Iterable[Guess]) -> list[Guess]:
    """Two guesses at most, if they differ: more than one is none."""
    return list(itertools.islice(dict.fromkeys(guesses), 2))


def _piece(tensor: Tensor) -> Piece:
    match = LAYER.match(tensor.name)
    if match is None:
        stem = _SUFFIX.sub("", tensor.name)
        return Piece(tensor, 0 if stem == ROPE else None, stem)
    return Piece(tensor, int(match[1]), _SUFFIX.sub("", match[2]))


def _order(piece: Piece) -> tuple[int, int, int, str]:
    """Where a tensor comes: layer, part of the layer, place in it."""
    if piece.layer is None:
        known = FIRST.index(piece.stem) if piece.stem in FIRST else len(FIRST)
        return -1, 0, known, piece.tensor.name
    for part, stems in enumerate((ATTENTION, GATES)):
        if piece.stem in stems:
            return piece.layer, 2 * part, stems.index(piece.stem), piece.tensor.name
    part = 3 if UNORDERED.fullmatch(piece.stem) else 1
    return piece.layer, part, 0, piece.tensor.name


def experts_of(name: str, shape: Sequence[int]) -> int:
    """How many experts' equal parts a tensor consists of; 0 where it does not."""
    return shape[2] if name.endswith("_exps.weight") and len(shape) == 3 else 0


def _parts(pieces: Sequence[Piece]) -> tuple[Part, ...]:
    """Lay tensors out. Those of one layer whose order is not known make one part."""
    ordered = {layer: _ordered_stems(list(group)) for layer, group in _by_layer(pieces)}
    parts: list[Part] = []
    end = 0
    for name, group in itertools.groupby(
        pieces, lambda piece: (piece.layer, _own_name(piece, ordered[piece.layer]))
    ):
        members = list(group)
        size = sum(piece.padded_bytes for piece in members)
        tensor, layer = members[0].tensor, members[0].layer
        if name[1]:
            layer = None if members[0].stem == ROPE else layer
            experts = experts_of(tensor.name, tensor.shape)
            parts.append(Part(end, tensor.bytes, tensor.name, layer, tensor.path, experts))
        else:
            parts.append(Part(end, size, "", layer, tensor.path))
        end += size
    return tuple(parts)


def _by_layer(pieces: Iterable[Piece]) -> Iterator[tuple[int | None, Iterator[Piece]]]:
    return itertools.groupby(pieces, lambda piece: piece.layer)


def _own_name(piece: Piece, ordered: frozenset[str]) -> str:
    return piece.tensor.name if piece.layer is None or piece.stem in ordered else ""


def _ordered_stems(layer: Iterable[Piece]) -> frozenset[str]:
    """Stems of one layer's tensors whose place is known.

    A matrix that is not known may lie anywhere, one of the feed-forward part behind the attention.
    """
    known = {*ATTENTION, *GATES}
    stems = {piece.stem for piece in layer if len(piece.tensor.shape) > 1}
    strange = {stem for stem in stems - known if not UNORDERED.fullmatch(stem)}
    if any(not stem.startswith("ffn_") for stem in strange):
        return frozenset()
    return frozenset(ATTENTION if strange else known)


def _cache_parts(
    widths: Sequence[tuple[int, int, int]], scale: int, elements: int, path: str
) -> tuple[Part, ...]:
    parts: list[Part] = []
    end = 0
    for layer, *both in widths:
        for kind, width in zip("kv", both, strict=True):
            size = width * scale // elements
            parts.append(Part(end, size, f"cache_{kind}_l{layer}", layer, path))
            end += size + -size % ALIGNMENT
    return tuple(parts)
