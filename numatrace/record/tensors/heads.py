"""Read the first bytes of a struct ggml_tensor whose members lie elsewhere in every build.

Nothing is assumed: where a name, a shape, strides and a type lie is found by comparing tensors with
the rows of the GGUF table that bear their names. What was not found is not used.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numatrace.record.tensors.gguf_table import Tensor

HEAD_BYTES = 512
DIMENSIONS = 4
MAX_NAME_BYTES = 127
"""GGML_MAX_NAME is 64, and 128 in some builds; the last byte is NUL."""

MIN_HEADS = 8
"""Heads without a known name from which a name's place may be guessed."""

STUDIED_HEADS = 64

TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1",
    10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS",
    17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S",
    23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M",
    30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
}  # fmt: skip
"""Numbers of the types in GGUF files, which are those of the struct (docs/gguf.md, ggml_type)."""

NUMBERS = {name: number for number, name in TYPES.items()}

_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_.\-/() ]{2,126}\0")
_QUADS = struct.Struct(f"<{HEAD_BYTES // 8}Q")


class Layout(NamedTuple):
    """Where members lie in the struct, in bytes; None: not known."""

    name: int
    shape: int | None = None
    strides: int | None = None
    type: int | None = None


class Head(NamedTuple):
    """What a head says of its tensor; `bytes` and `type` where the layout is known."""

    name: str
    shape: tuple[int, ...] | None
    bytes: int | None
    type: str | None


def text_at(head: bytes, offset: int) -> str:
    """Return the printable text with its NUL at an offset; "" for anything else."""
    end = head.find(b"\0", offset, offset + MAX_NAME_BYTES + 1)
    text = head[offset:end] if end > offset else b""
    return text.decode("ascii") if text.isascii() and text.decode("ascii").isprintable() else ""


def study(heads: Sequence[bytes], tables: Mapping[str, Sequence[Tensor]]) -> Layout | None:
    """Find the layout of a build from the heads of some of its tensors; None: not yet known.

    `tables`: the tensors of all GGUF tables, by name.
    """
    heads = heads[:STUDIED_HEADS]
    name = _place_of_known_names(heads, tables)
    if name is None:
        guess = _place_of_names(heads)
        return None if guess is None else Layout(guess)
    known = [(head, tables[text]) for head in heads if (text := text_at(head, name)) in tables]
    quads = [(_QUADS.unpack(head), tensors) for head, tensors in known]
    shape = _place(quads, _has_shape)
    strides = _place(quads, _has_strides)
    return Layout(name, shape, strides, _place_of_type(known))


def read(head: bytes, layout: Layout) -> Head:
    """Take a head apart."""
    quads = _QUADS.unpack(head)
    shape = size = kind = None
    if layout.shape is not None:
        shape = quads[layout.shape // 8 : layout.shape // 8 + DIMENSIONS]
    if shape is not None and layout.strides is not None:
        size = shape[-1] * quads[layout.strides // 8 + DIMENSIONS - 1]
    if layout.type is not None:
        kind = TYPES.get(int.from_bytes(head[layout.type : layout.type + 4], "little"))
    return Head(text_at(head, layout.name), shape, size, kind)


def padded(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape as the struct has it: four dimensions."""
    return (*shape, *[1] * (DIMENSIONS - len(shape)))


def _place_of_known_names(
    heads: Sequence[bytes], tables: Mapping[str, Sequence[Tensor]]
) -> int | None:
    """Where the names of known tensors begin. Names are told apart from what merely ends alike."""
    votes: Counter[int] = Counter()
    for head in heads:
        votes.update({match.start() for match in _names(head) if match[0][:-1].decode() in tables})
    return votes.most_common(1)[0][0] if votes else None


def _place_of_names(heads: Sequence[bytes]) -> int | None:
    """Where all heads have a name, each another: the first such place."""
    if len(heads) < MIN_HEADS:
        return None
    starts = [{match.start(): match[0] for match in _names(head)} for head in heads]
    for place in sorted(set.intersection(*(set(each) for each in starts))):
        if len({each[place] for each in starts}) == len(heads):
            return place
    return None


def _names(head: bytes) -> Iterable[re.Match[bytes]]:
    return _NAME.finditer(head)


def _has_shape(quads: Sequence[int], place: int, tensor: Tensor) -> bool:
    return tuple(quads[place : place + DIMENSIONS]) == padded(tensor.shape)


def _has_strides(quads: Sequence[int], place: int, tensor: Tensor) -> bool:
    """Whether the strides are those of a tensor without gaps (ggml's nb)."""
    strides = quads[place : place + DIMENSIONS]
    shape = padded(tensor.shape)
    sizes = [stride * count for stride, count in zip(strides, shape, strict=True)]
    return sizes[1:] == [*strides[2:], tensor.bytes] and 0 < strides[0] <= strides[1]


def _place(
    quads: Sequence[tuple[Sequence[int], Sequence[Tensor]]],
    fits: Callable[[Sequence[int], int, Tensor], bool],
) -> int | None:
    """Where something fits every tensor, in bytes; None where nothing does, or two places do."""
    places = [
        place
        for place in range(HEAD_BYTES // 8 - DIMENSIONS + 1)
        if all(any(fits(words, place, tensor) for tensor in tensors) for words, tensors in quads)
    ]
    return 8 * places[0] if len(places) == 1 and quads else None


def _place_of_type(known: Sequence[tuple[bytes, Sequence[Tensor]]]) -> int | None:
    """Where the number of each tensor's type lies, if types differ or are not all 0."""
    seen = {tensor.type for _, tensors in known for tensor in tensors}
    if seen == {"F32"} or not seen <= NUMBERS.keys():
        return None
    for place in range(0, HEAD_BYTES - 3, 4):
        if all(
            int.from_bytes(head[place : place + 4], "little")
            in {NUMBERS[tensor.type] for tensor in tensors}
            for head, tensors in known
        ):
            return place
    return None
