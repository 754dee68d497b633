"""Layout of the records that BPF programs write into their ring buffers.

Every ring has records of one size, the union of the columns of its events, so that a whole ring
is viewed as one numpy array. The C struct, its offset assertions and the numpy type come from
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from numatrace.model.events import BPF_EVENTS, COLUMN, RINGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numatrace.model.events import ColumnType

ALIGNMENT = 8
"""The ring buffer pads every record to this many bytes."""

SIZES = {"u64": 8, "s64": 8, "s32": 4, "u8": 1}


RAW: dict[str, tuple[tuple[str, ColumnType, int], ...]] = {
    "access": (
        ("regs", "u64", 32),
        ("thread_base", "u64", 1),
        ("syscall", "s64", 1),
        ("text", "u8", 16),
    ),
    "tensor": (("buffer", "u64", 1), ("head", "u64", 64)),
}
"""Members that user space reads and does not write to the trace: name, type, length.

access: the general registers as the kernel numbers them in the user's pt_regs, see
bpf/access.bpf.c; where thread-local addresses begin; system call number, or -1; and code at the
instruction pointer. tensor: where the struct of its buffer lies, and the first bytes of its
struct ggml_tensor.
"""


@dataclass(frozen=True, slots=True)
class RecordField:
    """One member of a record: `length` > 1 is an array."""

    name: str
    type: str
    offset: int
    length: int = 1


def ring_fields(ring: str) -> tuple[RecordField, ...]:
    """Members of a ring's record, largest first so that no padding hides between them.

    A `code` member says which event it is; `pad` fills up to the next multiple of eight.
    """
    names = dict.fromkeys(
        name for event in BPF_EVENTS if event.ring == ring for name in event.ring_columns
    )
    if not names:
        raise ValueError(f"no ring named {ring!r}; there are {', '.join(RINGS)}")
    typed = [(name, COLUMN[name].type, 1) for name in names]
    typed += [*RAW.get(ring, ()), ("code", "s32", 1)]
    typed.sort(key=lambda item: -SIZES[item[1]])
    return _placed(typed)


def _placed(typed: Sequence[tuple[str, str, int]]) -> tuple[RecordField, ...]:
    fields: list[RecordField] = []
    offset = 0
    for name, type_, length in typed:
        fields.append(RecordField(name, type_, offset, length))
        offset += SIZES[type_] * length
    padding = -offset % ALIGNMENT
    if padding:
        fields.append(RecordField("pad", "u8", offset, padding))
    return tuple(fields)


def ring_record_bytes(ring: str) -> int:
    """Bytes of one record of the ring, without the ring buffer's own 8-byte header."""
    last = ring_fields(ring)[-1]
    return last.offset + SIZES[last.type] * last.length
