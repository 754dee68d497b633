"""Reads Perfetto's traces with its own descriptors, and Google's protobuf library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.unknown_fields import UnknownFieldSet
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace

if TYPE_CHECKING:
    from collections.abc import Iterator


def read(data: bytes) -> Any:
    """Parse a trace, in which every field must be one that Perfetto has."""
    trace = Trace.FromString(data)
    for each in _messages(trace):
        unknown = UnknownFieldSet(each)
        assert not len(unknown), [field.field_number for field in unknown]
    return trace


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if hasattr(value, "add") else [value]:
                yield from _messages(each)
