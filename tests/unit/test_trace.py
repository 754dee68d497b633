"""The trace file: what is written is read back, however much of it is there."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from numatrace.model.errors import TraceError, UsageError
from numatrace.model.events import COLUMN, EVENTS, SCHEMA_VERSION
from numatrace.trace.reader import Trace
from numatrace.trace.schema import VERSION_KEY, arrow_schema
from numatrace.trace.writer import TraceWriter

if TYPE_CHECKING:
    from pathlib import Path

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "u64": st.integers(0, 2**64 - 1),
    "s64": st.integers(-(2**63), 2**63 - 1),
    "s32": st.integers(-(2**31), 2**31 - 1),
    "u8": st.integers(0, 255),
    "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
}


def rows_of(trace: Trace) -> list[dict[str, object]]:
    return [row for batch in trace.batches() for row in batch.to_pylist()]


def read(path: Path) -> tuple[list[dict[str, object]], list[str]]:
    """All readable rows, and what is said to be missing."""
    with Trace.open(path) as trace:
        return rows_of(trace), trace.problems


def a_trace(path: Path, batches: int = 3, *, close: bool = True) -> TraceWriter:
    """A small trace of some batches, each with rows of three kinds."""
    writer = TraceWriter.create(path)
    for n in range(batches):
        writer.add_rows("system", [{"t_ns": n, "name": "topology", "value": "{}" * n}])
        tids = np.arange(5, dtype="<i4")
        writer.add_columns(
            "oncpu", {"t_ns": n, "tgid": 7, "tid": tids, "node": 0, "oncpu_ns": 1}, 5
        )
        writer.add_columns("fault", {"t_ns": n, "addr": np.array([2**63 + n], "<u8")}, 1)
        writer.flush()
        writer.publish()
    if close:
        writer.close()
    return writer


@st.composite
def some_rows(draw: st.DrawFn) -> tuple[str, list[dict[str, object]]]:
    event = draw(st.sampled_from(EVENTS))
    row = st.fixed_dictionaries(
        {name: st.none() | VALUES[COLUMN[name].type] for name in event.columns}
    )
    return event.kind, draw(st.lists(row, min_size=1, max_size=4))


@settings(max_examples=40, deadline=None)
@given(parts=st.lists(some_rows(), min_size=1, max_size=6), flush_every=st.integers(1, 3))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    parts: list[tuple[str, list[dict[str, object]]]],
    flush_every: int,
) -> None:
    path = tmp_path_factory.mktemp("t") / "trace.arrow"
    writer = TraceWriter.create(path)
    for n, (kind, rows) in enumerate(parts):
        writer.add_rows(kind, rows)
        if n % flush_every == 0:
            writer.flush()
    writer.close()
    expected = [
        dict.fromkeys(COLUMN) | {"kind": kind} | row for kind, rows in parts for row in rows
    ]
    assert read(path) == (expected, [])


def test_cut_at_any_byte_is_a_clear_error_or_whole_batches(tmp_path: Path) -> None:
    whole = tmp_path / "whole.arrow"
    a_trace(whole)
    data = whole.read_bytes()
    complete, _ = read(whole)
    # Every byte of the head and the tail; between them a stride that meets every alignment.
    lengths = {*range(40), *range(0, len(data), 13), *range(len(data) - 300, len(data))}
    cut = tmp_path / "cut.arrow"
    seen = set()
    for length in sorted(lengths):
        cut.write_bytes(data[:length])
        try:
            rows, problems = read(cut)
        except TraceError as error:
            assert error.why
            assert error.todo
            continue
        seen.add(len(rows))
        assert rows == complete[: len(rows)]
        assert problems, f"nothing said of a cut at {length}"
    assert seen == {0, 7, 14, 21}


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_bytes_never_crash(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("t") / "trace.arrow"
    a_trace(path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    with contextlib.suppress(TraceError):
        read(path)


def test_flushed_rows_are_on_disk_before_close(tmp_path: Path) -> None:
    path = tmp_path / "trace.arrow"
    writer = a_trace(path, close=False)
    rows, problems = read(path)
    assert len(rows) == 21
    assert "ends early" in problems[0]
    writer.close()


def test_polars_duckdb_and_pyarrow_open_it(tmp_path: Path) -> None:
    path = tmp_path / "trace.arrow"
    a_trace(path)
    table = ipc.open_file(path).read_all()
    assert table.num_rows == 21
    frame = pl.read_ipc(path)
    assert frame.filter(pl.col("kind") == "oncpu")["oncpu_ns"].sum() == 15
    dataset = pa.dataset.dataset(path, format="ipc")
    query = "select count(*), max(addr) from dataset where kind = 'fault'"
    assert duckdb.sql(query).fetchall() == [(3, 2**63 + 2)]
    assert dataset.count_rows() == 21


def test_mode_owner_and_links(tmp_path: Path) -> None:
    path = tmp_path / "trace.arrow"
    a_trace(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    link = tmp_path / "link.arrow"
    link.symlink_to(path)
    with pytest.raises(UsageError, match="link"):
        TraceWriter.create(link, force=True)
    with pytest.raises(UsageError, match="exists already"):
        TraceWriter.create(path)
    with pytest.raises(UsageError, match="no folder"):
        TraceWriter.create(tmp_path / "missing" / "trace.arrow")
    with pytest.raises(UsageError, match="folder"):
        TraceWriter.create(tmp_path, force=True)


def test_an_old_trace_survives_a_recording_that_does_not_start(tmp_path: Path) -> None:
    path = tmp_path / "trace.arrow"
    a_trace(path)
    before = path.read_bytes()
    TraceWriter.create(path, force=True).abandon()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_keeps_whole_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trace.arrow"
    writer = a_trace(path, close=False)
    raw = writer._file.raw
    room = 700

    class Full:
        def write(self, data: memoryview) -> int:
            nonlocal room
            if not room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            taken = min(room, len(data))
            room -= taken
            return raw.write(data[:taken]) or 0

        def __getattr__(self, name: str) -> object:
            return getattr(raw, name)

    monkeypatch.setattr(writer._file, "raw", Full())
    writer.add_rows("note", [{"t_ns": 1, "name": str(os.urandom(4000)), "detail": "x"}])
    with pytest.raises(TraceError, match="No space left"):
        writer.flush()
    writer.abandon()
    rows, problems = read(path)
    assert len(rows) == 21
    assert problems


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "empty"), (b"hello, I am a text file\n", "begins with"), (b"ARROW1\0\0", "cut")],
)
def test_what_is_no_trace(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "trace.arrow"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=why):
        Trace.open(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        Trace.open(tmp_path / "none.arrow")
    with pytest.raises(TraceError, match="directory"):
        Trace.open(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(TraceError, match="regular file"):
        Trace.open(tmp_path / "fifo")


def other_arrow_file(path: Path, schema: pa.Schema) -> None:
    with ipc.new_file(str(path), schema):
        pass


def test_newer_and_foreign_schemas_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.arrow"
    newer = arrow_schema().with_metadata({VERSION_KEY: str(SCHEMA_VERSION + 1)})
    other_arrow_file(path, newer)
    with pytest.raises(TraceError, match=f"version {SCHEMA_VERSION + 1}") as caught:
        Trace.open(path)
    assert "upgrade" in caught.value.todo
    other_arrow_file(path, pa.schema([("a", pa.int64())]))
    with pytest.raises(TraceError, match="not a numatrace trace"):
        Trace.open(path)
    other_arrow_file(path, pa.schema([("a", pa.int64())], metadata={VERSION_KEY: b"1"}))
    with pytest.raises(TraceError, match="columns"):
        Trace.open(path)


def test_unknown_columns_are_a_programming_error(tmp_path: Path) -> None:
    writer = TraceWriter.create(tmp_path / "trace.arrow")
    with pytest.raises(ValueError, match="no columns"):
        writer.add_columns("oncpu", {"addr": 1}, 1)
    writer.abandon()
