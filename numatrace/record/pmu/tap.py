"""Counts the records of a perf.data stream as it passes by: samples, losses, throttling.

`perf script` prints samples and losses, and no word of throttling. The stream that it reads says
all three, in the headers of its records (include/uapi/linux/perf_event.h; tools/perf/Documentation
/perf.data-file-format.txt): u32 type, u16 misc, u16 size of the record with its header.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

MAGIC: Final = b"PERFILE2"
_LOST: Final = 2
_THROTTLE: Final = 5
_SAMPLE: Final = 9
_AUX: Final = 11
_LOST_SAMPLES: Final = 13
_TRACING_DATA: Final = 66
_AUXTRACE: Final = 71
_HEADER: Final = struct.Struct("=IHH")
_U64: Final = struct.Struct("=Q")
_U32: Final = struct.Struct("=I")
_AUX_TRUNCATED: Final = 1
_PLAIN: Final = 32
"""Bytes of a record that are looked at: its header and the first numbers."""


@dataclass(slots=True)
class StreamTotals:
    """What a stream holds.

    `lost_records`: what the kernel says, as it happens, that it had no room for; `lost_samples`:
    samples that it dropped, most of which perf sums up at the end (Linux 6.0) and which are in the
    other number too. `throttled`: times that the kernel paused an event, to keep within
    kernel.perf_event_max_sample_rate or perf_cpu_time_max_percent. `truncated`: pieces of hardware
    trace that were cut. `broken`: from some place on it is no perf stream.
    """

    samples: int = 0
    lost_records: int = 0
    lost_samples: int = 0
    throttled: int = 0
    truncated: int = 0
    broken: bool = False

    @property
    def lost(self) -> int:
        """Samples lost: the larger number, for the two overlap."""
        return max(self.lost_records, self.lost_samples)


class StreamTap:
    """Looks at a stream that comes in pieces of any size. Never raises on any bytes."""

    def __init__(self) -> None:
        self.totals = StreamTotals()
        self._tail = b""
        self._skip = 0
        self._begun = False

    def feed(self, data: bytes) -> None:
        """Look at the next piece."""
        if self.totals.broken:
            return
        if self._skip >= len(data):
            self._skip -= len(data)
            return
        data = self._tail + data[self._skip :]
        self._skip, self._tail = 0, b""
        start = 0 if self._begun else self._begin(data)
        if self._begun and not self.totals.broken:
            self._records(data, start)

    def _begin(self, data: bytes) -> int:
        """Pass the header of the stream: its magic and its own size."""
        if len(data) < 16:
            self._tail = data
            self.totals.broken = not MAGIC.startswith(data[: len(MAGIC)])
            return 0
        self._begun = True
        self.totals.broken = data[:8] != MAGIC or _U64.unpack_from(data, 8)[0] != 16
        return 16

    def _records(self, data: bytes, at: int) -> None:
        totals, end = self.totals, len(data)
        samples = 0
        while at + 8 <= end:
            kind, _, size = _HEADER.unpack_from(data, at)
            if size < 8:
                totals.broken = True
                break
            if kind == _SAMPLE:
                samples += 1
            elif at + min(size, _PLAIN) > end:
                break
            else:
                size += self._other(kind, data[at : at + min(size, _PLAIN)])
            at += size
        totals.samples += samples
        self._skip = max(0, at - end)
        self._tail = b"" if totals.broken else data[at:]

    def _other(self, kind: int, record: bytes) -> int:
        """Count a record that is no sample; returns the bytes that follow it and are part of it."""
        totals = self.totals
        if kind == _LOST and len(record) >= 24:
            totals.lost_records += _U64.unpack_from(record, 16)[0]
        elif kind == _LOST_SAMPLES and len(record) >= 16:
            totals.lost_samples += _U64.unpack_from(record, 8)[0]
        elif kind == _THROTTLE:
            totals.throttled += 1
        elif kind == _AUX and len(record) >= 32:
            totals.truncated += bool(_U64.unpack_from(record, 24)[0] & _AUX_TRUNCATED)
        elif kind == _AUXTRACE and len(record) >= 16:
            return int(_U64.unpack_from(record, 8)[0])
        elif kind == _TRACING_DATA and len(record) >= 12:
            return int(-(-_U32.unpack_from(record, 8)[0] // 8) * 8)
        return 0
