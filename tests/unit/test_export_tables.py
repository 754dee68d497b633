"""Parquet, CSV and JSON lines, opened by the readers that people use: equal to the trace."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from numatrace.export import FORMATS
from numatrace.export import parquet as parquet_writer
from numatrace.export.write import TABLES, export
from numatrace.model.events import COLUMN, COLUMNS, EVENT, EVENTS, SCHEMA_VERSION
from numatrace.trace.reader import Trace
from numatrace.trace.schema import VERSION_KEY, WRITER_KEY, arrow_schema
from tests.unit.traces import Row, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from numatrace.export.write import Exported

FIXTURES = sorted((Path(__file__).resolve().parents[2] / "fixtures").glob("*/trace.arrow"))
NUMBERS = [column.name for column in COLUMNS if column.type not in ("enum", "text")]
TEXTS = [column.name for column in COLUMNS if column.type in ("enum", "text")]
FORMULAS = ['=cmd|"/c calc"!A1', "+1", "-2", "@x", "\t=1", "'"]
HOSTILE = [
    *FORMULAS,
    "a,b\r\nc",
    'say "no"',
    "",
    " ",
    "\x00\x1b[2J",
    "\u202e",
    "null",
    "NaN",
    "1e5",
]
HOSTILE += ["\N{SNOWMAN}", "\\N", "</script>", "\ufeff", "a\rb", "\x85"]


def exported(trace: Path, format_: str, *kinds: str) -> tuple[bytes, Exported]:
    stream = io.BytesIO()
    with Trace.open(trace) as opened:
        done = export(opened, format_, stream, kinds)
    assert done.bytes == len(stream.getvalue())
    return stream.getvalue(), done


def rows_of(trace: Path) -> list[dict[str, object]]:
    with Trace.open(trace) as opened:
        return [row for batch in opened.batches() for row in batch.to_pylist()]


# --- what each reader makes of a file: rows, and the sum of every column of numbers


def sums(frame: pl.DataFrame) -> tuple[int, dict[str, int]]:
    """Rows and exact sums; polars' own sum of 64-bit columns would wrap around."""
    return len(frame), {
        name: sum(value for value in frame[name].to_list() if value is not None) for name in NUMBERS
    }


def polars_parquet(path: Path) -> tuple[int, dict[str, int]]:
    return sums(pl.read_parquet(path))


def polars_csv(path: Path) -> tuple[int, dict[str, int]]:
    return sums(pl.read_csv(path, infer_schema_length=None))


def polars_jsonl(path: Path) -> tuple[int, dict[str, int]]:
    frame = pl.read_ndjson(path, infer_schema_length=None)
    missing = [pl.lit(None).alias(name) for name in NUMBERS if name not in frame.columns]
    return sums(frame.with_columns(missing))


def duck(reader: str) -> Callable[[Path], tuple[int, dict[str, int]]]:
    def read(path: Path) -> tuple[int, dict[str, int]]:
        rows = duckdb.sql(f"from {reader.format(path)}")
        there = [name for name in NUMBERS if name in rows.columns]
        added = ", ".join(f'coalesce(sum("{name}"::hugeint), 0)' for name in there)
        count, *found = duckdb.sql(f"select count(*), {added} from rows").fetchall()[0]
        return count, dict.fromkeys(NUMBERS, 0) | dict(zip(there, map(int, found), strict=True))

    return read


READERS: dict[str, tuple[str, Callable[[Path], tuple[int, dict[str, int]]]]] = {
    "polars-parquet": ("parquet", polars_parquet),
    "polars-csv": ("csv", polars_csv),
    "polars-jsonl": ("jsonl", polars_jsonl),
    "duckdb-parquet": ("parquet", duck("read_parquet('{}')")),
    "duckdb-csv": ("csv", duck("read_csv('{}', sample_size = -1)")),
    "duckdb-jsonl": (
        "jsonl",
        duck("read_json('{}', format = 'newline_delimited', sample_size = -1)"),
    ),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("trace", FIXTURES, ids=lambda path: path.parent.name)
def test_every_reader_finds_the_traces_rows_and_sums(
    trace: Path, reader: str, tmp_path: Path
) -> None:
    format_, read = READERS[reader]
    data, done = exported(trace, format_)
    path = tmp_path / f"trace{FORMATS[format_].suffixes[0]}"
    path.write_bytes(data)
    rows = rows_of(trace)
    wanted = {name: sum(int(row[name] or 0) for row in rows) for name in NUMBERS}  # type: ignore[call-overload]
    assert read(path) == (len(rows), wanted)
    assert (done.rows, done.written, done.problems) == (len(rows), len(rows), ())


# --- and every value, whatever it is

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "u64": st.sampled_from([0, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1]),
    "s64": st.integers(-(2**63), 2**63 - 1),
    "s32": st.sampled_from([-(2**31), -1, 0, 2**31 - 1]),
    "u8": st.integers(0, 255),
    "text": st.sampled_from(HOSTILE)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
}


@st.composite
def any_rows(draw: st.DrawFn) -> list[Row]:
    return [
        (
            event.kind,
            {name: draw(st.none() | VALUES[COLUMN[name].type]) for name in event.columns},
        )
        for event in draw(st.lists(st.sampled_from(EVENTS), min_size=1, max_size=6))
    ]


def read_parquet(data: bytes) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = parquet.read_table(io.BytesIO(data)).to_pylist()
    return rows


def read_jsonl(data: bytes) -> list[dict[str, object]]:
    assert set(data) <= {10, *range(32, 127)}, "safe on a terminal"
    rows = [json.loads(line) for line in data.decode().splitlines()]
    assert all(None not in row.values() for row in rows)
    assert all(list(row) == [c.name for c in COLUMNS if c.name in row] for row in rows)
    return [dict.fromkeys(COLUMN) | row for row in rows]


def read_csv(data: bytes) -> list[dict[str, object]]:
    """RFC 4180 by hand: Python's own reader cannot tell null from an empty text before 3.12."""
    records: list[list[str | None]] = [[]]
    field, quoted, was_quoted = "", False, False
    text = data.decode()
    at = 0
    while at < len(text):
        char = text[at]
        if quoted and text[at : at + 2] == '""':
            field, at = field + '"', at + 1
        elif char == '"':
            quoted, was_quoted = not quoted, True
        elif not quoted and char in ",\n":
            records[-1].append(field if was_quoted or field else None)
            field, was_quoted = "", False
            if char == "\n":
                records.append([])
        else:
            field += char
        at += 1
    assert (quoted, field, records.pop()) == (False, "", [])
    names, *rows = records
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == [
        [value or "" for value in row] for row in [names, *rows]
    ]
    return [
        {
            str(name): value if value is None or name in TEXTS else int(value)
            for name, value in zip(names, row, strict=True)
        }
        for row in rows
    ]


@settings(max_examples=60, deadline=None)
@given(batches=st.lists(any_rows(), min_size=1, max_size=3))
def test_every_value_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Row]]
) -> None:
    trace = write(tmp_path_factory.mktemp("t") / "trace.arrow", *batches)
    rows = rows_of(trace)
    assert read_parquet(exported(trace, "parquet")[0]) == rows
    assert read_jsonl(exported(trace, "jsonl")[0]) == rows
    assert read_csv(exported(trace, "csv")[0]) == rows


def hostile_trace(path: Path) -> Path:
    return write(path, [("note", {"t_ns": n, "name": text}) for n, text in enumerate(HOSTILE)])


def test_hostile_texts_are_the_same_in_polars_and_duckdb(tmp_path: Path) -> None:
    trace = hostile_trace(tmp_path / "trace.arrow")
    for format_ in TABLES:
        (tmp_path / f"x.{format_}").write_bytes(exported(trace, format_)[0])
    csv_, jsonl, packed = (tmp_path / f"x.{name}" for name in ("csv", "jsonl", "parquet"))
    seen = {
        "polars parquet": pl.read_parquet(packed)["name"].to_list(),
        "polars csv": [name or "" for name in pl.read_csv(csv_)["name"].to_list()],
        "polars jsonl": pl.read_ndjson(jsonl)["name"].to_list(),
    }
    for reader in (f"read_parquet('{packed}')", f"read_json('{jsonl}')"):
        seen[reader] = [name for (name,) in duckdb.sql(f"select name from {reader}").fetchall()]
    quoted = (
        f"read_csv('{csv_}', all_varchar = true, quote = '\"', escape = '\"', new_line = '\\n')"
    )
    seen["duckdb csv"] = [
        name or "" for (name,) in duckdb.sql(f"select name from {quoted}").fetchall()
    ]
    for reader, names in seen.items():
        assert names == HOSTILE, reader


def test_nothing_is_put_before_what_a_spreadsheet_takes_for_a_formula(tmp_path: Path) -> None:
    """Permissions such as `---p` begin like one: to change texts would change honest ones, too."""
    row: dict[str, object] = {"t_ns": 1, "tgid": 7, "addr": 0, "detail": "---p", "path": "=1+1"}
    data, _ = exported(write(tmp_path / "trace.arrow", [("map", row)]), "csv")
    (found,) = read_csv(data)
    assert (found["detail"], found["path"]) == ("---p", "=1+1")


# --- what comes along


def test_parquet_keeps_units_meanings_and_versions(tmp_path: Path) -> None:
    data, _ = exported(FIXTURES[0], "parquet")
    file = parquet.ParquetFile(io.BytesIO(data))
    with Trace.open(FIXTURES[0]) as trace:
        schema = arrow_schema(trace.writer)
        assert trace.writer
    assert file.schema_arrow.equals(schema, check_metadata=True)
    assert schema.metadata[WRITER_KEY]
    assert schema.metadata[VERSION_KEY] == str(SCHEMA_VERSION).encode()
    chunk = file.metadata.row_group(0).column(1)
    assert chunk.compression == "ZSTD"
    assert file.metadata.num_row_groups == 1, "batches of a second are gathered"


def test_parquet_writes_what_waits_before_it_is_much(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(parquet_writer, "GROUP_ROWS", 10)
    trace = write(tmp_path / "t.arrow", *([("exit", {"t_ns": n})] for n in range(25)))
    file = parquet.ParquetFile(io.BytesIO(exported(trace, "parquet")[0]))
    groups = range(file.metadata.num_row_groups)
    assert [file.metadata.row_group(n).num_rows for n in groups] == [10, 10, 5]


@pytest.mark.parametrize("format_", TABLES)
def test_chosen_kinds_have_their_own_columns(format_: str, tmp_path: Path) -> None:
    data, done = exported(FIXTURES[0], format_, "move", "exit")
    read = {"parquet": read_parquet, "csv": read_csv, "jsonl": read_jsonl}[format_]
    wanted = [row for row in rows_of(FIXTURES[0]) if row["kind"] in ("move", "exit")]
    columns = {"kind", *EVENT["move"].columns, *EVENT["exit"].columns}
    assert wanted
    found = [{name: row[name] for name in columns} for row in read(data)]
    assert found == [{name: row[name] for name in columns} for row in wanted]
    assert done.written == len(wanted)
    if format_ != "jsonl":
        assert set(read(data)[0]) == columns


@pytest.mark.parametrize("format_", TABLES)
def test_a_cut_trace_gives_all_that_can_be_read(format_: str, tmp_path: Path) -> None:
    cut = tmp_path / "cut.arrow"
    data = FIXTURES[0].read_bytes()
    cut.write_bytes(data[: len(data) * 2 // 3])
    found, done = exported(cut, format_)
    read = {"parquet": read_parquet, "csv": read_csv, "jsonl": read_jsonl}[format_]
    assert read(found) == rows_of(cut)
    assert done.written > 0
    assert "ends early" in done.problems[0]


@pytest.mark.parametrize("format_", TABLES)
def test_an_empty_trace_is_a_whole_file(format_: str, tmp_path: Path) -> None:
    data, done = exported(write(tmp_path / "trace.arrow"), format_)
    assert (done.rows, done.written, done.problems) == (0, 0, ())
    read = {"parquet": read_parquet, "csv": read_csv, "jsonl": read_jsonl}[format_]
    assert read(data) == []
    assert bool(data) == (format_ != "jsonl")


@pytest.mark.parametrize("format_", FORMATS)
def test_twice_gives_the_same_bytes_and_losses_are_told(format_: str, tmp_path: Path) -> None:
    lost: list[Row] = [
        ("loss", {"t_ns": 5, "name": "fault", "count": 3, "detail": "full"}),
        ("loss", {"t_ns": 6, "name": "fault", "count": 4, "detail": "full"}),
        ("loss", {"t_ns": 6, "name": "sched", "count": 0, "detail": "full"}),
    ]
    trace = write(tmp_path / "trace.arrow", lost)
    data, done = exported(trace, format_)
    assert exported(trace, format_)[0] == data
    assert dict(done.lost) == {"fault": 7, "sched": 0}
    assert done.rows == 3


def test_a_trace_of_version_1_has_todays_columns(tmp_path: Path) -> None:
    """Its columns are the first of ours; the others are null."""
    schema = arrow_schema("numatrace 0.0.1")
    old = pa.schema(list(schema)[:28], metadata={**schema.metadata, VERSION_KEY: b"1"})
    kinds = pa.array([event.kind for event in EVENTS], pa.string())
    kind = pa.DictionaryArray.from_arrays(pa.array([EVENT["exit"].code], pa.int32()), kinds)
    arrays = [
        kind,
        pa.array([7], pa.uint64()),
        *(pa.nulls(1, field.type) for field in list(old)[2:]),
    ]
    path = tmp_path / "trace.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, old) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=old))
    wanted = [dict.fromkeys(COLUMN) | {"kind": "exit", "t_ns": 7}]
    assert read_parquet(exported(path, "parquet")[0]) == wanted
    assert read_csv(exported(path, "csv")[0]) == wanted
    assert read_jsonl(exported(path, "jsonl")[0]) == wanted
