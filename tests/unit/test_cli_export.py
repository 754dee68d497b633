"""`numatrace export`: what it writes where, and what it says of wrong calls."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from numatrace.cli import export as verb
from numatrace.cli.main import run
from numatrace.export import FORMATS, write
from numatrace.model.events import SCHEMA_VERSION
from numatrace.render.json_schema import comparison_schema, report_schema
from numatrace.trace import schema as trace_schema
from numatrace.trace.writer import TraceWriter
from tests.unit import perfetto_reader
from tests.unit.traces import NO_TRACES, no_trace

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures/S1/trace.arrow"
ROWS = 978
PROGRAM = "import sys; from numatrace.cli.main import main; main(sys.argv[1:])"


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "trace.arrow"
    path.write_bytes(FIXTURE.read_bytes())
    monkeypatch.chdir(tmp_path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def holds(path: Path, format_: str) -> bool:
    """Whether the file is of that format."""
    data = path.read_bytes()
    if format_ == "perfetto":
        return len(perfetto_reader.read(data).packet) > 10
    if format_ == "parquet":
        return parquet.read_table(io.BytesIO(data)).num_rows == ROWS
    lines = data.decode().splitlines()
    return len(lines) == ROWS if format_ == "jsonl" else lines[0].startswith('"kind","t_ns"')


@pytest.mark.parametrize("name", FORMATS)
def test_goes_beside_the_trace_for_its_owner_only(
    trace: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", "--format", name]) == 0
    output = trace.with_suffix(FORMATS[name].suffixes[0])
    assert names(trace.parent) == sorted(["trace.arrow", output.name])
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert holds(output, name)
    said = capsys.readouterr()
    assert said.out == ""
    written = f"{ROWS} of {ROWS} rows" if name != "perfetto" else f" of {ROWS} rows"
    assert said.err.startswith(f"wrote {output.name}: ")
    assert written in said.err
    assert "numatrace guide export" in said.err


@pytest.mark.parametrize(
    ("name", "format_"),
    [(f"x{ending}", name) for name, each in FORMATS.items() for ending in each.suffixes]
    + [("X.CSV", "csv")],
)
def test_the_ending_says_what_to_write(trace: Path, name: str, format_: str) -> None:
    assert run(["export", "trace.arrow", "-o", name]) == 0
    assert holds(trace.with_name(name), format_)


def test_the_option_says_more_than_the_ending(trace: Path) -> None:
    assert run(["export", "-o", "x.csv", "--format", "jsonl"]) == 0
    assert holds(trace.with_name("x.csv"), "jsonl")


def test_kinds(trace: Path) -> None:
    assert run(["export", "-o", "x.jsonl", "--kind", "move", "--kind", "rate"]) == 0
    rows = [json.loads(line) for line in trace.with_name("x.jsonl").read_text().splitlines()]
    assert {row["kind"] for row in rows} == {"move", "rate"}


@pytest.mark.parametrize("name", FORMATS)
def test_standard_output(trace: Path, name: str) -> None:
    command = [sys.executable, "-c", PROGRAM, "export", str(trace), "--format", name, "-o", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    output = trace.with_name("out")
    output.write_bytes(done.stdout)
    assert holds(output, name)
    assert b"wrote standard output: " in done.stderr


@pytest.mark.parametrize("name", FORMATS)
def test_standard_output_that_is_full(trace: Path, name: str) -> None:
    command = [sys.executable, "-c", PROGRAM, "export", str(trace), "--format", name, "-o", "-"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"numatrace: cannot write to standard output\n  why: No space")


def test_a_reader_that_goes_away_is_no_error_to_tell(trace: Path) -> None:
    call = f"{sys.executable} -c '{PROGRAM}' export --format jsonl -o - | head -n 1"
    done = subprocess.run(["bash", "-c", call], capture_output=True, check=True, cwd=trace.parent)
    assert done.stdout.startswith(b'{"kind": ')
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("name", FORMATS)
def test_a_terminal_is_sent_nothing_that_it_would_obey(trace: Path, name: str) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", PROGRAM, "export", "--format", name, "-o", "-"]
    command += ["--kind", "move"]
    done = subprocess.run(
        command, stdout=theirs, stderr=subprocess.PIPE, cwd=trace.parent, check=False
    )
    os.close(theirs)
    try:
        said = os.read(ours, 65_536)
    except OSError:  # Linux: nothing was written, and the other side is closed
        said = b""
    os.close(ours)
    if FORMATS[name].text:
        assert done.returncode == 0
        assert json.loads(said.splitlines()[0])["kind"] == "move"
    else:
        assert (done.returncode, said) == (2, b"")
        assert b"to a terminal" in done.stderr
        assert b"--format jsonl" in done.stderr


# --- nothing is lost


def test_existing_files_are_kept_unless_forced(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = trace.with_name("x.csv")
    output.write_text("mine")
    assert run(["export", "-o", "x.csv"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert run(["export", "-o", "x.csv", "--force"]) == 0
    assert holds(output, "csv")
    assert names(trace.parent) == ["trace.arrow", "x.csv"]


def test_never_over_the_trace_or_through_a_link(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = trace.read_bytes()
    link, same = trace.with_name("link.csv"), trace.with_name("same.csv")
    link.symlink_to("elsewhere")
    same.hardlink_to(trace)
    for output in ("trace.arrow", "same.csv", "link.csv", ".", "none/x.csv"):
        assert run(["export", "--format", "csv", "--force", "-o", output]) == 2, output
        assert capsys.readouterr().err.startswith("numatrace: cannot write ")
    assert trace.read_bytes() == before
    assert not trace.with_name("elsewhere").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk_leaves_nothing_behind(
    trace: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/full refuses every byte, as a full disk does."""
    output = trace.with_name("x")
    output.write_text("mine")
    real_open = os.open

    def full(path: object, flags: int, mode: int = 0o777, **more: int) -> int:
        if str(path).startswith(".x."):
            os.close(real_open(path, flags, mode))  # type: ignore[arg-type]
            return real_open("/dev/full", os.O_WRONLY)
        return real_open(path, flags, mode, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", full)
    assert run(["export", "--format", name, "--force", "-o", "x"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("numatrace: cannot write x\n  why: No space left on device")
    assert output.read_text() == "mine"
    assert names(trace.parent) == ["trace.arrow", "x"]


def test_ctrl_c_leaves_no_half_file(trace: Path) -> None:
    """The program is stopped in the middle of its work, as its file shows."""
    slow = (
        "import sys, time; from numatrace.cli.main import main; from numatrace.export import csv\n"
        "def write(self, batch):\n"
        "    sys.stderr.write('at work\\n'); sys.stderr.flush(); time.sleep(60)\n"
        "csv.CsvWriter.write = write; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", slow, "export", "--format", "csv"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=trace.parent) as child:
        assert child.stderr is not None
        assert child.stderr.readline() == b"at work\n"
        assert len(names(trace.parent)) == 2
        child.send_signal(signal.SIGINT)
        said = child.stderr.read()
    assert said.strip() == b"interrupted"
    assert child.returncode == 130
    assert names(trace.parent) == ["trace.arrow"]


# --- damaged traces and wrong calls


def test_a_cut_trace_is_exported_and_what_is_missing_is_said(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace.write_bytes(trace.read_bytes()[:20_000])
    assert run(["export", "-o", "x.jsonl"]) == 0
    said = capsys.readouterr().err
    assert "missing: the file ends early" in said
    rows = len(trace.with_name("x.jsonl").read_text().splitlines())
    assert 0 < rows < ROWS
    assert f"{rows} of {rows} rows" in said


def test_losses_of_the_recording_are_said(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = TraceWriter.create(trace, force=True)
    writer.add_rows("loss", [{"t_ns": 1, "name": "fa\x1bult", "count": 1234, "detail": "full"}])
    writer.close()
    assert run(["export", "-o", "x.csv"]) == 0
    said = capsys.readouterr().err
    assert "lost when it was recorded: 1,234 events (fa\ufffdult 1,234)" in said


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_bytes_give_a_file_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    raw = bytearray(FIXTURE.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("t")
    (folder / "trace.arrow").write_bytes(raw)
    name = data.draw(st.sampled_from(list(FORMATS)))
    with contextlib.redirect_stderr(io.StringIO()) as said:
        status = run(["export", str(folder / "trace.arrow"), "--format", name])
    output = folder / f"trace{FORMATS[name].suffixes[0]}"
    assert output.exists() == (status == 0)
    assert "an error in numatrace itself" not in said.getvalue()
    assert "  do:  " in said.getvalue() if status else said.getvalue().startswith("wrote ")
    if status == 0 and f"{ROWS} of {ROWS} rows" not in said.getvalue() and name != "perfetto":
        assert "missing: " in said.getvalue()


@pytest.mark.parametrize(("content", "why"), NO_TRACES)
def test_what_is_no_trace(
    tmp_path: Path, content: bytes | None, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = no_trace(tmp_path, content)
    before = names(tmp_path)
    assert run(["export", str(path), "--format", "csv"]) == 1
    assert capsys.readouterr().err.startswith(f"numatrace: cannot read {path}\n  why: {why}")
    assert names(tmp_path) == before


def test_a_newer_trace_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace.arrow"
    with monkeypatch.context() as newer:
        newer.setattr(trace_schema, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
        TraceWriter.create(path).close()
    assert run(["export", str(path), "--format", "csv"]) == 1
    said = capsys.readouterr().err
    assert f"its schema has version {SCHEMA_VERSION + 1}" in said
    assert "do:  upgrade numatrace" in said
    assert names(tmp_path) == ["trace.arrow"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "no --format is given"),
        (["-o", "x.txt"], "-o x.txt does not end in one of .pftrace, .parquet, .csv, .jsonl"),
        (["-o", "-"], "-o - does not end in one of"),
    ],
)
def test_a_format_must_be_told(
    trace: Path, arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", *arguments]) == 2
    said = capsys.readouterr().err
    assert f"why: {why}" in said
    assert "do:  give --format, one of perfetto, parquet, csv, jsonl" in said
    assert names(trace.parent) == ["trace.arrow"]


@pytest.mark.parametrize(
    "arguments", [["--format", "xls"], ["--kind", "nothing"], ["--schema", "x"], ["a", "b"]]
)
def test_wrong_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", *arguments]) == 2
    assert "Usage: numatrace export" in capsys.readouterr().err


# --- the rest of what it says


def test_schemas(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "--schema", "report"]) == 0
    assert json.loads(capsys.readouterr().out) == report_schema()
    assert run(["export", "--schema", "comparison"]) == 0
    assert json.loads(capsys.readouterr().out) == comparison_schema()


def test_long_exports_say_how_far_they_are(
    trace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "PATIENCE_S", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run(["export", "--format", "csv"]) == 0
    said = capsys.readouterr().err
    progress, _, rest = said.rpartition("\r\x1b[K")
    assert "\r\x1b[Kexporting trace.arrow, 39 KiB: 978 rows, 0 s" in progress
    assert rest.startswith("wrote trace.csv")


def test_a_wrong_call_is_told_before_arrow_is_loaded() -> None:
    """It takes a third of a second."""
    code = (
        "import sys; from numatrace.cli.main import run\n"
        "assert run(['export', '-o', 'x.txt']) == 2; assert 'pyarrow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_help_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "--help"]) == 0
    said = capsys.readouterr().out
    assert "\n    numatrace export slow.arrow -o slow.parquet\n" in said
    assert max(map(len, said.split("\n"))) < 80


def test_memory_does_not_grow_with_the_trace(tmp_path: Path) -> None:
    """Batches are let go: what is alive at once is one of them, and what Parquet gathers."""
    import pyarrow as pa

    from numatrace.trace.reader import Trace

    path = tmp_path / "trace.arrow"
    writer = TraceWriter.create(path)
    for second in range(60):
        columns = {"t_ns": second + 1, "tgid": 7, "tid": 8, "node": 0, "addr": 1, "name": "x" * 99}
        writer.add_columns("access", columns, 2000)
        writer.flush()
    writer.close()
    for name in ("csv", "jsonl", "perfetto"):
        before, most = pa.total_allocated_bytes(), 0

        def seen(_rows: int, start: int = before) -> None:
            nonlocal most
            most = max(most, pa.total_allocated_bytes() - start)

        with Trace.open(path) as opened, Path(os.devnull).open("wb") as nothing:
            write.export(opened, name, nothing, progress=seen)
        assert most < 8 << 20, name
