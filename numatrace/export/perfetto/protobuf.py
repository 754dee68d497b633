"""The protobuf wire format, as far as it is needed: integers, text and nested messages.

See https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from functools import lru_cache

VARINT, BYTES = 0, 2
"""Wire types."""


def varint(value: int) -> bytes:
    """Return an integer of at most 64 bits in groups of seven; negative ones as two's complement.

    Raises ValueError for one that does not fit.
    """
    if not -(1 << 63) <= value < 1 << 64:
        raise ValueError(f"{value} has more than 64 bits")
    value &= (1 << 64) - 1
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


@lru_cache(maxsize=256)
def _tag(field: int, wire_type: int) -> bytes:
    return varint(field << 3 | wire_type)


def integer(field: int, value: int) -> bytes:
    """Return a field of a type int32, int64, uint32, uint64, bool or enum."""
    return _tag(field, VARINT) + varint(value)


def message(field: int, *parts: bytes) -> bytes:
    """Return a field that is a message, made of its own fields."""
    payload = b"".join(parts)
    return _tag(field, BYTES) + varint(len(payload)) + payload


def text(field: int, value: str) -> bytes:
    """Return a field of the type string; what UTF-8 cannot say becomes a question mark."""
    return message(field, value.encode("utf-8", "replace"))
