"""Counts of a recording's records: the text of `perf report --stats`.

The only text in which perf tells THROTTLE and LOST_SAMPLES records; `perf script` prints neither.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_MAX_TEXT: Final = 1 << 20
_RECORDS: Final = re.compile(r" *([A-Z0-9_]{1,32}) events: +(\d{1,18})\b")
_EVENT: Final = re.compile(r"(\S.*) stats:")


@dataclass(frozen=True, slots=True)
class RecordTotals:
    """Records by type, and of each event the samples taken and lost.

    `lost_samples` is what LOST_SAMPLES records report: samples that the kernel dropped, not
    records. None of these is in `records["SAMPLE"]`.
    """

    records: dict[str, int]
    samples: dict[str, int]
    lost_samples: dict[str, int]

    @property
    def throttled(self) -> int:
        """Times the kernel held an event back because it took too much time."""
        return self.records.get("THROTTLE", 0)

    @property
    def lost_records(self) -> int:
        """Times the ring buffer was full; each stands for an unknown number of records here."""
        return self.records.get("LOST", 0)


def parse(text: bytes) -> RecordTotals:
    """Totals of the output; lines of any other form are passed over."""
    totals = RecordTotals({}, {}, {})
    event = None
    for line in text[:_MAX_TEXT].decode("utf-8", "replace").split("\n"):
        heading = _EVENT.fullmatch(line)
        if heading is not None:
            event = None if heading[1] == "Aggregated" else heading[1]
        match = _RECORDS.match(line)
        if match is not None:
            _add(totals, event, match[1], int(match[2]))
    return totals


def _add(totals: RecordTotals, event: str | None, kind: str, count: int) -> None:
    if event is None:
        totals.records[kind] = totals.records.get(kind, 0) + count
    elif kind == "SAMPLE":
        totals.samples[event] = totals.samples.get(event, 0) + count
    elif kind == "LOST_SAMPLES":
        totals.lost_samples[event] = totals.lost_samples.get(event, 0) + count
