"""Read a trace, whole or cut short, one batch at a time."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import pyarrow as pa
from pyarrow import ipc

from numatrace.model.errors import TraceError
from numatrace.model.events import SCHEMA_VERSION
from numatrace.trace.schema import KINDS, VERSION_COLUMNS, VERSION_KEY, arrow_schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAGIC = b"ARROW1"
STREAM_OFFSET = 8
"""An Arrow IPC file is a stream between a padded magic and a footer; without its footer it is still
that stream."""

# What Arrow raises on bytes that are cut or damaged; MemoryError on an absurd length.
BAD_BYTES = (pa.ArrowException, OSError, MemoryError, ValueError)


class Trace:
    """A trace file. `batches` yields what is readable; `problems` then says what is missing."""

    def __init__(self, path: Path, file: BinaryIO, schema_version: int, writer: str) -> None:
        self.path = path
        self.schema_version = schema_version
        self.writer = writer
        self.size_bytes = os.fstat(file.fileno()).st_size
        self.problems: list[str] = []
        self._file = file

    @classmethod
    def open(cls, path: Path) -> Trace:
        """Open a trace and check that it is one.

        Raises TraceError when the file is missing, is no trace, was cut within its first
        bytes, or has a schema newer than this program reads.
        """
        file = _open_file(path)
        try:
            schema = _read_schema(path, file)
            version = _schema_version(path, schema)
            _check_columns(path, schema, version)
        except TraceError:
            file.close()
            raise
        writer = (schema.metadata or {}).get(b"numatrace.writer", b"").decode("utf-8", "replace")
        return cls(path, file, version, writer)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the record batches in order, all columns of the event table in each.

        Stops at the first batch that is cut or damaged. May be called again.
        """
        self.problems = []
        self._file.seek(STREAM_OFFSET)
        reader = ipc.open_stream(_Unclosing(self._file))
        good_bytes = self._file.tell()
        while True:
            try:
                batch = reader.read_next_batch()
                _check_batch(batch)
            except StopIteration:
                break
            except BAD_BYTES as error:
                self._cut(good_bytes, error)
                return
            good_bytes = self._file.tell()
            yield _widened(batch)
        if not self._has_footer():
            self._cut(good_bytes, None)

    def _cut(self, good_bytes: int, error: BaseException | None) -> None:
        lost = self.size_bytes - good_bytes
        reason = "the recorder did not close it, or the copy was cut"
        if error is not None and lost > 0:
            reason = f"the next batch is cut or damaged ({type(error).__name__})"
        self.problems.append(
            f"the file ends early: {reason}; "
            f"{good_bytes:,} of {self.size_bytes:,} bytes could be read"
        )

    def _has_footer(self) -> bool:
        self._file.seek(max(0, self.size_bytes - len(MAGIC)))
        return self._file.read(len(MAGIC)) == MAGIC

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Unclosing:
    """A file that Arrow may read but that stays ours when Arrow is done with it."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read
        self.seek = file.seek
        self.tell = file.tell

    def close(self) -> None:
        """Stay open."""

    def readable(self) -> bool:
        return True


def _open_file(path: Path) -> BinaryIO:
    what = f"cannot read {path}"
    try:
        # Without O_NONBLOCK a named pipe would wait for a writer.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise TraceError(
            what, error.strerror or str(error), "check the name of the trace"
        ) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise TraceError(
            what, "it is not a regular file", "give a file written by numatrace record"
        )
    return file


def _read_schema(path: Path, file: BinaryIO) -> pa.Schema:
    what = f"cannot read {path}"
    head = file.read(STREAM_OFFSET)
    if not head.startswith(MAGIC):
        shown = head[:6]
        why = f"it begins with {shown!r}, not with {MAGIC!r}" if head else "it is empty"
        raise TraceError(what, why, "give a file written by numatrace record")
    try:
        return ipc.open_stream(_Unclosing(file)).schema
    except BAD_BYTES as error:
        why = "it was cut within its first bytes, before any event"
        raise TraceError(what, why, "record again") from error


def _schema_version(path: Path, schema: pa.Schema) -> int:
    what = f"cannot read {path}"
    raw = (schema.metadata or {}).get(VERSION_KEY)
    if raw is None or not raw.isdigit() or len(raw) > 6:
        raise TraceError(
            what,
            "an Arrow file, but not a numatrace trace",
            "give a file written by numatrace record",
        )
    version = int(raw)
    if not version:
        raise TraceError(what, "its schema has version 0", "record again")
    if version > SCHEMA_VERSION:
        why = f"its schema has version {version}; this numatrace reads up to {SCHEMA_VERSION}"
        raise TraceError(what, why, "upgrade numatrace, then analyze again")
    return version


def _check_columns(path: Path, schema: pa.Schema, version: int) -> None:
    """Columns are only ever appended, so an older trace has the first of ours."""
    wanted = pa.schema([arrow_schema().field(place) for place in range(VERSION_COLUMNS[version])])
    if not schema.equals(wanted, check_metadata=False):
        why = f"its columns are not those of schema version {version}"
        raise TraceError(f"cannot read {path}", why, "give a file written by numatrace record")


def _check_batch(batch: pa.RecordBatch) -> None:
    """Refuse bytes that Arrow would misread later: bad offsets, bad text, an unknown kind."""
    batch.validate(full=True)
    kind: Any = batch.column(0)
    known = KINDS[: len(kind.dictionary)]
    if not kind.dictionary.equals(known) or kind.null_count:
        raise ValueError("unknown kinds")


def _widened(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Add the columns that came after the batch's version, without values."""
    schema = arrow_schema()
    arrays = batch.columns + [
        pa.nulls(batch.num_rows, field.type) for field in list(schema)[batch.num_columns :]
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema) if arrays else batch
