"""Perfetto's packets: tracks, slices, instants and counter values, each as bytes.

Field numbers as in the .proto files of github.com/google/perfetto, which are named below; all lie
under protos/perfetto/trace/ unless said otherwise. Checked against its main branch of 2026.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.export.perfetto.protobuf import integer, message, text

if TYPE_CHECKING:
    from collections.abc import Mapping

TRACE_PACKET = 1
"""trace.proto, message Trace: `packet`."""

CLOCK_SNAPSHOT, TIMESTAMP, SEQUENCE_ID, TRACK_EVENT, CLOCK_ID, TRACK_DESCRIPTOR = (
    6,
    8,
    10,
    11,
    58,
    60,
)
"""trace_packet.proto, message TracePacket."""

CLOCKS, PRIMARY_CLOCK = 1, 2
"""clock_snapshot.proto, message ClockSnapshot."""
CLOCK_CLOCK_ID, CLOCK_TIMESTAMP = 1, 2
"""clock_snapshot.proto, message ClockSnapshot.Clock."""
MONOTONIC = 3
"""protos/perfetto/common/builtin_clock.proto: BUILTIN_CLOCK_MONOTONIC, which trace rows are on."""

TRACK_UUID, TRACK_NAME, TRACK_PROCESS, TRACK_THREAD, TRACK_PARENT, TRACK_COUNTER = 1, 2, 3, 4, 5, 8
"""track_event/track_descriptor.proto, message TrackDescriptor."""
PROCESS_PID, PROCESS_NAME = 1, 6
"""track_event/process_descriptor.proto, message ProcessDescriptor."""
THREAD_PID, THREAD_TID, THREAD_NAME = 1, 2, 5
"""track_event/thread_descriptor.proto, message ThreadDescriptor."""
COUNTER_UNIT = 3
UNITS = {"ns": 1, "count": 2, "bytes": 3}
"""track_event/counter_descriptor.proto, message CounterDescriptor and its enum Unit."""

EVENT_ANNOTATION, EVENT_TYPE, EVENT_TRACK, EVENT_CATEGORY, EVENT_NAME, EVENT_VALUE = (
    4,
    9,
    11,
    22,
    23,
    30,
)
SLICE_BEGIN, SLICE_END, INSTANT, COUNTER = 1, 2, 3, 4
"""track_event/track_event.proto, message TrackEvent and its enum Type."""
ANNOTATION_INTEGER, ANNOTATION_TEXT, ANNOTATION_ADDRESS, ANNOTATION_NAME = 4, 6, 7, 10
"""track_event/debug_annotation.proto, message DebugAnnotation."""

SEQUENCE = 1
"""All packets are of one writer: slices of a track are then in its order where times are equal."""
MOST = (1 << 63) - 1
"""The largest time and counter value; Perfetto takes both as signed."""


class Address(int):
    """An address, which is shown in hexadecimal."""


Detail = int | str | Address


def clock_snapshot(t_ns: int) -> bytes:
    """Say that the times of the trace are CLOCK_MONOTONIC; before any other packet."""
    clock = message(CLOCKS, integer(CLOCK_CLOCK_ID, MONOTONIC), integer(CLOCK_TIMESTAMP, t_ns))
    return _packet(message(CLOCK_SNAPSHOT, clock, integer(PRIMARY_CLOCK, MONOTONIC)))


def process_track(uuid: int, tgid: int, name: str) -> bytes:
    """Describe a process."""
    process = message(TRACK_PROCESS, integer(PROCESS_PID, tgid), text(PROCESS_NAME, name))
    return _packet(message(TRACK_DESCRIPTOR, integer(TRACK_UUID, uuid), process))


def thread_track(uuid: int, parent: int, tgid: int, tid: int, name: str) -> bytes:
    """Describe a thread of the process whose track is `parent`."""
    thread = message(
        TRACK_THREAD, integer(THREAD_PID, tgid), integer(THREAD_TID, tid), text(THREAD_NAME, name)
    )
    track = integer(TRACK_UUID, uuid), integer(TRACK_PARENT, parent), thread
    return _packet(message(TRACK_DESCRIPTOR, *track))


def plain_track(uuid: int, name: str) -> bytes:
    """Describe a track that belongs to no process."""
    return _packet(message(TRACK_DESCRIPTOR, integer(TRACK_UUID, uuid), text(TRACK_NAME, name)))


def counter_track(uuid: int, parent: int, name: str, unit: str) -> bytes:
    """Describe a counter of the process or thread whose track is `parent`; 0 for the machine's."""
    counter = message(TRACK_COUNTER, integer(COUNTER_UNIT, UNITS[unit]))
    track = [integer(TRACK_UUID, uuid), text(TRACK_NAME, name), counter]
    if parent:
        track.append(integer(TRACK_PARENT, parent))
    return _packet(message(TRACK_DESCRIPTOR, *track))


def slice_of(uuid: int, start_ns: int, end_ns: int, name: str, category: str) -> bytes:
    """Return the begin and the end of a slice."""
    begin = _event(SLICE_BEGIN, uuid, text(EVENT_CATEGORY, category), text(EVENT_NAME, name))
    return _packet(_at(start_ns), begin) + _packet(_at(end_ns), _event(SLICE_END, uuid))


def instant(
    uuid: int, t_ns: int, name: str, category: str, details: Mapping[str, Detail | None]
) -> bytes:
    """Return an event without duration; details that are None are left out."""
    shown = (_detail(key, value) for key, value in details.items() if value is not None)
    event = _event(INSTANT, uuid, text(EVENT_CATEGORY, category), text(EVENT_NAME, name), *shown)
    return _packet(_at(t_ns), event)


def counter_value(uuid: int, t_ns: int, value: int) -> bytes:
    """Return the value of a counter from then on; at most MOST."""
    return _packet(_at(t_ns), _event(COUNTER, uuid, integer(EVENT_VALUE, min(value, MOST))))


def _packet(*parts: bytes) -> bytes:
    return message(TRACE_PACKET, *parts, integer(SEQUENCE_ID, SEQUENCE))


def _at(t_ns: int) -> bytes:
    return integer(TIMESTAMP, t_ns) + integer(CLOCK_ID, MONOTONIC)


def _event(type_: int, uuid: int, *parts: bytes) -> bytes:
    return message(TRACK_EVENT, integer(EVENT_TYPE, type_), integer(EVENT_TRACK, uuid), *parts)


def _detail(name: str, value: Detail) -> bytes:
    if isinstance(value, str):
        shown = text(ANNOTATION_TEXT, value)
    elif isinstance(value, Address):
        shown = integer(ANNOTATION_ADDRESS, value)
    else:
        shown = integer(ANNOTATION_INTEGER, value)
    return message(EVENT_ANNOTATION, text(ANNOTATION_NAME, name), shown)
