"""Traces of given rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.trace.writer import TraceWriter

if TYPE_CHECKING:
    from pathlib import Path

Row = tuple[str, dict[str, object]]
"""Kind and columns."""


NO_TRACES = [
    (None, "No such file"),
    (b"", "it is empty"),
    (b"hello, I am text", "it begins with"),
]
"""What a file holds, None for no file, and how the reason begins that is given."""


def no_trace(folder: Path, content: bytes | None) -> Path:
    """Return where a trace would be; write what is in its place."""
    path = folder / "trace.arrow"
    if content is not None:
        path.write_bytes(content)
    return path


def write(path: Path, *batches: list[Row]) -> Path:
    """Write a trace with one batch for each list."""
    writer = TraceWriter.create(path, force=True)
    for batch in batches:
        for kind, row in batch:
            writer.add_rows(kind, [row])
        writer.flush()
    writer.close()
    return path
