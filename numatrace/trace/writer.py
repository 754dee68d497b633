"""Write a trace: rows of any kind, collected and written as whole Arrow record batches."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from numatrace import __version__
from numatrace.model.errors import TraceError
from numatrace.model.events import COLUMNS, EVENT
from numatrace.trace.output import check_output, disk_error
from numatrace.trace.schema import ARROW_TYPES, KINDS, arrow_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from io import RawIOBase
    from pathlib import Path
    from types import TracebackType

CODES = {event.kind: event.code for event in EVENT.values()}

Tap = Callable[[str, "Mapping[str, Any]", int], None]
"""Is shown the rows that a writer gets: their kind, columns and number, as in `add_columns`."""


class TraceWriter:
    """One trace file being written.

    Rows wait in memory until `flush`, which writes them as one batch: what was flushed can be read
    back even if the recorder is killed. Until `publish` the file has a temporary name beside the
    wanted one, so a recording that fails to start leaves an older trace as it was.
    """

    def __init__(self, path: Path, fd: int, temporary: Path) -> None:
        self.path = path
        self.rows: dict[str, int] = {}
        self.tap: Tap | None = None
        self._temporary: Path | None = temporary
        self._file = _Sink(os.fdopen(fd, "wb", buffering=0))
        self._parts: list[tuple[str, int, dict[str, Any]]] = []
        self._good_bytes = 0
        self._broken = False
        # Batches are small: threads cost more than they save, and so does zstd, which begins anew
        # with each column of a batch: 0.8 ms for twelve rows, 0.1 with lz4, in 1.2 times the space.
        options = ipc.IpcWriteOptions(compression="lz4", use_threads=False)
        self._schema = arrow_schema(f"numatrace {__version__}")
        with self._disk():
            self._ipc = ipc.new_file(pa.PythonFile(self._file, "w"), self._schema, options=options)
            self._file.drain()

    @classmethod
    def create(
        cls, path: Path, *, force: bool = False, owner: tuple[int, int] | None = None
    ) -> Self:
        """Open a new trace, mode 0600, owned by `owner` (uid, gid) where given.

        Raises UsageError when the file exists (without `force`), is a symbolic link or no regular
        file, or when its folder is missing; TraceError when the system refuses.
        """
        check_output(path, force=force)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(temporary, flags, 0o600)
            if owner is not None:
                os.fchown(fd, *owner)
        except OSError as error:
            raise disk_error(path, error) from error
        try:
            return cls(path, fd, temporary)
        except TraceError:
            temporary.unlink(missing_ok=True)
            raise

    def add_rows(self, kind: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows of one kind, each a mapping from column to value."""
        kept = list(rows)
        columns = EVENT[kind].columns
        self.add_columns(
            kind, {name: [row.get(name) for row in kept] for name in columns}, len(kept)
        )

    def add_columns(self, kind: str, columns: Mapping[str, Any], n: int) -> None:
        """Add `n` rows of one kind, column by column: arrays or lists of length n, or one value.

        What a masked array masks becomes null.
        """
        unknown = set(columns) - set(EVENT[kind].columns)
        if unknown:
            raise ValueError(f"{kind} has no columns {sorted(unknown)}")
        if n:
            self._parts.append((kind, n, dict(columns)))
            self.rows[kind] = self.rows.get(kind, 0) + n
            if self.tap is not None:
                self.tap(kind, columns, n)

    def flush(self) -> None:
        """Write what is waiting as one batch. Raises TraceError when the disk is full or gone."""
        if not self._parts or self._broken:
            return
        parts, self._parts = self._parts, []
        batch = pa.record_batch(
            [_column(column.name, column.type, parts) for column in COLUMNS], schema=self._schema
        )
        with self._disk():
            self._ipc.write_batch(batch)
            self._file.drain()
        self._good_bytes = self._file.bytes_written

    def publish(self) -> None:
        """Give the file its wanted name, in place of an older one."""
        if self._temporary is None:
            return
        with self._disk():
            self._temporary.replace(self.path)
        self._temporary = None

    def close(self) -> None:
        """Flush, write the footer, put it on disk."""
        self.flush()
        if not self._broken:
            with self._disk():
                self._ipc.close()
                self._file.drain()
                os.fsync(self._file.raw.fileno())
            self.publish()
        self._file.raw.close()

    def abandon(self) -> None:
        """Leave without a footer; a file that was never published is removed."""
        self._broken = True
        self._file.raw.close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)

    @property
    def bytes_written(self) -> int:
        """Bytes in the file so far."""
        return self._file.bytes_written

    def _disk(self) -> _Disk:
        return _Disk(self)

    def fail(self, error: OSError) -> TraceError:
        """Cut a half-written batch off, so that the file ends with a whole one."""
        self._broken = True
        with contextlib.suppress(OSError, ValueError):
            os.ftruncate(self._file.raw.fileno(), self._good_bytes)
        return disk_error(self.path, error)


class _Sink:
    """The file as Arrow sees it, which writes a batch in many pieces: they wait for `drain`."""

    def __init__(self, raw: RawIOBase) -> None:
        self.raw = raw
        self.bytes_written = 0
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    def write(self, data: bytes) -> int:
        piece = bytes(data)
        self._waiting.append(piece)
        self._waiting_bytes += len(piece)
        return len(piece)

    def drain(self) -> None:
        """Hand what waits to the kernel, whatever becomes of it then."""
        view = memoryview(b"".join(self._waiting))
        self._waiting, self._waiting_bytes = [], 0
        done = 0
        while done < len(view):
            done += self.raw.write(view[done:]) or 0
        self.bytes_written += done

    def tell(self) -> int:
        return self.bytes_written + self._waiting_bytes

    def flush(self) -> None:
        """Arrow's own flush comes between the pieces."""

    @property
    def closed(self) -> bool:
        return self.raw.closed


class _Disk:
    """Turns an OSError of the block into a TraceError that says what is on disk."""

    def __init__(self, writer: TraceWriter) -> None:
        self.writer = writer

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError):
            raise self.writer.fail(error) from error


def _column(name: str, type_: str, parts: list[tuple[str, int, dict[str, Any]]]) -> pa.Array:
    """One column of a batch: the parts' values one after the other, null where a kind has none."""
    if name == "kind":
        codes = np.repeat([CODES[kind] for kind, _, _ in parts], [n for _, n, _ in parts])
        return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), KINDS)
    arrow_type = ARROW_TYPES[type_]
    arrays, absent = [], 0
    for _, n, columns in parts:
        value = columns.get(name)
        if value is None:
            absent += n
            continue
        if absent:
            arrays.append(pa.nulls(absent, arrow_type))
            absent = 0
        arrays.append(_values(value, n, arrow_type))
    if absent:
        arrays.append(pa.nulls(absent, arrow_type))
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)


def _values(value: Any, n: int, arrow_type: pa.DataType) -> pa.Array:
    if isinstance(value, (list, tuple)):
        return pa.array(value, arrow_type)
    if isinstance(value, np.ndarray):
        mask = np.ma.getmaskarray(value) if isinstance(value, np.ma.MaskedArray) else None
        value = np.ma.getdata(value)
        # Not Array.cast: it imports pyarrow.compute, which takes as long as bcc's compiler.
        kept = np.ascontiguousarray(value, arrow_type.to_pandas_dtype())
        return pa.array(kept, arrow_type, mask=mask)
    return pa.repeat(pa.scalar(value, arrow_type), n)
