"""Ring records to trace rows, one column array at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numatrace.model.events import BPF_EVENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numatrace.record.bpf.ring import Ring
    from numatrace.trace.writer import TraceWriter

Array = np.ndarray[Any, Any]


class Drainer:
    """Moves what the rings hold into the trace, and hands back the records for a look."""

    def __init__(self, rings: Mapping[str, Ring], writer: TraceWriter) -> None:
        self.rings = rings
        self.writer = writer
        self.records = 0
        self.fullest = 0.0
        """Share of its ring that the fullest one had used at the last call."""

    def drain(self) -> dict[str, Array]:
        """Empty every ring, into the trace unless its records want more; returns them by ring."""
        drained = {}
        self.fullest = 0.0
        for name, ring in self.rings.items():
            records = ring.drain()
            if len(records):
                self.records += len(records)
                self.fullest = max(self.fullest, len(records) / ring.room)
                write_records(self.writer, name, records)
            drained[name] = records
        return drained


def write_records(writer: TraceWriter, ring: str, records: Array) -> None:
    """Write a ring's records, each kind's columns with its own meaning.

    Not those of a kind that user space completes first: their source writes them.
    """
    for event in BPF_EVENTS:
        if event.ring != ring or event.wire is not None:
            continue
        mine = records[records["code"] == event.code]
        writer.add_columns(event.kind, {name: mine[name] for name in event.columns}, len(mine))
