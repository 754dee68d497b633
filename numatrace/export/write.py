"""Export a whole trace, one batch after the other, and account for every row."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from numatrace.export.choose import Choice
from numatrace.export.csv import CsvWriter
from numatrace.export.jsonl import JsonLinesWriter
from numatrace.export.parquet import ParquetWriter
from numatrace.export.perfetto.draw import draw
from numatrace.export.rows import taken
from numatrace.export.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import BinaryIO

    import pyarrow as pa

    from numatrace.trace.reader import Trace

LOSSES = 64
"""Families of losses that are told apart; the recorder knows some ten."""


@dataclass(slots=True)
class Exported:
    """What became of a trace's rows. `lost` are events that the recorder counted and not kept."""

    rows: int = 0
    written: int = 0
    bytes: int = 0
    problems: tuple[str, ...] = ()
    lost: Counter[str] = field(default_factory=Counter)
    nonsense: int = 0
    """Rows that cannot be drawn, because they have no time, or no thread or node there can be."""


class TableWriter(Protocol):
    """Writes rows as they are; `close` writes what waits."""

    def __init__(self, sink: Sink, schema: pa.Schema) -> None: ...

    def write(self, batch: pa.RecordBatch) -> None:
        """Write the rows of a batch with the writer's schema."""

    def close(self) -> None:
        """Write what is still waiting, and the end of the file."""


TABLES: dict[str, type[TableWriter]] = {
    "parquet": ParquetWriter,
    "csv": CsvWriter,
    "jsonl": JsonLinesWriter,
}


def export(
    trace: Trace,
    format_: str,
    stream: BinaryIO,
    kinds: Collection[str] = (),
    progress: Callable[[int], None] = lambda rows: None,
) -> Exported:
    """Write a trace to a stream in one of FORMATS; of some kinds of rows where given.

    `progress` is called with the number of rows read. What a damaged trace still holds is written,
    and `problems` says what is missing. Raises OSError where the stream does.
    """
    done = Exported()
    sink = Sink(stream)
    choice = Choice(kinds, trace.writer)
    if format_ == "perfetto":
        batches = partial(_counted, trace, done, progress)
        drawn = draw(batches, sink, choice.kinds, lambda: trace.problems)
        done.written, done.nonsense = drawn.rows, drawn.left_out
    else:
        writer = TABLES[format_](sink, choice.schema)
        for batch in _counted(trace, done, progress):
            part = choice.of(batch)
            writer.write(part)
            done.written += part.num_rows
        writer.close()
    done.problems = tuple(trace.problems)
    done.bytes = sink.bytes_written
    return done


def _counted(
    trace: Trace, done: Exported, progress: Callable[[int], None]
) -> Iterator[pa.RecordBatch]:
    """Yield the batches and count their rows, from the beginning each time."""
    done.rows, done.lost = 0, Counter()
    for batch in trace.batches():
        done.rows += batch.num_rows
        for name, count in taken(batch, "loss", ("name", "count")):
            if name in done.lost or len(done.lost) < LOSSES:
                done.lost[str(name or "?")] += count or 0
        progress(done.rows)
        yield batch
