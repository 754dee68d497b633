"""`numatrace analyze`: what it prints and writes, and what it says of wrong calls."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import stat
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len

from numatrace.analyze import analyze_trace
from numatrace.cli import analyze as verb
from numatrace.cli.main import run
from numatrace.model.topology import Node, NodeMemory, Topology
from numatrace.render import RENDERERS, RenderOptions
from numatrace.trace.reader import Trace
from numatrace.trace.writer import TraceWriter
from tests.unit.traces import NO_TRACES, no_trace

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
PID = 4711
MODEL = "/srv/m\x1b[2J/model.gguf"


def write_trace(path: Path, *, nodes: int = 2, close: bool = True) -> None:
    """A server with its weights on node 0, whose threads ran on all nodes."""
    memory = NodeMemory(16 * GIB, 8 * GIB)
    topology = Topology(tuple(Node(n, (2 * n, 2 * n + 1), memory) for n in range(nodes)))
    writer = TraceWriter.create(path)
    writer.add_rows(
        "system", [{"t_ns": 1, "name": "topology", "value": json.dumps(topology.to_json())}]
    )
    writer.add_rows("map", [
        {"t_ns": 1, "tgid": PID, "addr": 1 << 30, "bytes": GIB, "offset": 0, "inode": 5,
         "path": MODEL, "detail": "r--s"}
    ])  # fmt: skip
    for t_ns in (10**9, 6 * 10**9):
        for tid in (PID, PID + 1):
            for node in range(nodes):
                writer.add_rows("oncpu", [
                    {"t_ns": t_ns, "tgid": PID, "tid": tid, "node": node, "oncpu_ns": 2 * 10**9}
                ])  # fmt: skip
        writer.add_rows("place", [
            {"t_ns": t_ns, "tgid": PID, "addr": 1 << 30, "bytes": GIB, "mem_node": 0,
             "node_bytes": GIB, "pages": 262_144, "sampled_pages": 262_144,
             "piece_pages": 262_144, "offset": 0, "inode": 5, "path": MODEL, "name": ""}
        ])  # fmt: skip
        writer.flush()
    writer.publish()
    if not close:
        writer.abandon()
    else:
        writer.add_rows("end", [{"t_ns": 7 * 10**9, "detail": "time", "value": "{}"}])
        writer.close()


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.arrow"
    write_trace(path)
    return path


def rendered(path: Path, renderer: str = "text", options: RenderOptions | None = None) -> str:
    with Trace.open(path) as opened:
        return RENDERERS[renderer](analyze_trace(opened), options or RenderOptions())


def test_prints_the_report(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["analyze", str(trace)]) == 0
    said = capsys.readouterr()
    assert said.out == rendered(trace)
    assert "model.gguf" in said.out
    assert re.search(r"^ +4712 .* 50 % .* 50 %", said.out, re.MULTILINE)
    assert said.err == ""


def test_takes_the_trace_of_this_folder_by_default(
    trace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trace.parent)
    assert run(["analyze"]) == 0
    assert capsys.readouterr().out == rendered(trace)


def test_options_reach_the_report(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["analyze", str(trace), "--top", "1", "--tensors", "--width", "100"]) == 0
    options = RenderOptions(width=100, top=1, tensors=True)
    assert capsys.readouterr().out == rendered(trace, options=options)
    assert rendered(trace, options=options) != rendered(trace)


def test_prints_json(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["analyze", "--json", str(trace)]) == 0
    said = capsys.readouterr().out
    with Trace.open(trace) as opened:
        assert json.loads(said) == analyze_trace(opened).to_json()
    assert said.isascii()


def test_no_finding_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_trace(tmp_path / "one.arrow", nodes=1)
    assert run(["analyze", str(tmp_path / "one.arrow")]) == 0
    assert "nothing is remote here" in capsys.readouterr().out


def test_a_cut_trace_is_analyzed_and_said_to_be_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cut.arrow"
    write_trace(path, close=False)
    assert run(["analyze", str(path)]) == 0
    said = capsys.readouterr().out
    assert "The trace is damaged or incomplete" in said
    assert "the file ends early" in " ".join(said.split())


# --- a file instead


def test_writes_a_file(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = trace.with_name("report.txt")
    old = os.umask(0o022)
    try:
        assert run(["analyze", str(trace), "-o", str(output)]) == 0
    finally:
        os.umask(old)
    assert output.read_text() == rendered(trace)
    assert stat.S_IMODE(output.stat().st_mode) == 0o644
    assert capsys.readouterr().out.startswith(f"wrote {output}: ")
    assert sorted(path.name for path in trace.parent.iterdir()) == ["report.txt", "trace.arrow"]


def test_overwrites_only_when_told_to(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = trace.with_name("report.json")
    output.write_text("mine")
    assert run(["analyze", str(trace), "--json", "-o", str(output)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert run(["analyze", str(trace), "--json", "-o", str(output), "--force"]) == 0
    assert output.read_text() == rendered(trace, "json")
    assert sorted(path.name for path in trace.parent.iterdir()) == ["report.json", "trace.arrow"]


def test_never_writes_over_the_trace_or_through_a_link(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = trace.read_bytes()
    link = trace.with_name("link")
    link.symlink_to(trace.with_name("elsewhere"))
    same = trace.with_name("same")
    same.hardlink_to(trace)
    for output in (trace, same, link, trace.parent, trace.parent / "none" / "r.txt"):
        assert run(["analyze", str(trace), "--force", "-o", str(output)]) == 2, output
        error = capsys.readouterr().err
        assert error.startswith("numatrace: cannot write ")
        assert "  do:  " in error
    assert trace.read_bytes() == before
    assert not trace.with_name("elsewhere").exists()


def test_a_full_disk_leaves_nothing_behind(
    trace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/full refuses every byte, as a full disk does."""
    output = trace.with_name("report.txt")
    output.write_text("mine")
    real_open = os.open

    def full(path: object, flags: int, mode: int = 0o777, **more: int) -> int:
        if str(path).startswith(str(output.with_name(".report.txt"))):
            os.close(real_open(path, flags, mode))  # type: ignore[arg-type]
            return real_open("/dev/full", os.O_WRONLY)
        return real_open(path, flags, mode, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", full)
    assert run(["analyze", str(trace), "--force", "-o", str(output)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert sorted(path.name for path in trace.parent.iterdir()) == ["report.txt", "trace.arrow"]


# --- wrong calls


@pytest.mark.parametrize(("content", "why"), NO_TRACES)
def test_what_is_no_trace(
    tmp_path: Path, content: bytes | None, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = no_trace(tmp_path, content)
    output = tmp_path / "report.txt"
    assert run(["analyze", str(path), "-o", str(output)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"numatrace: cannot read {path}\n  why: {why}")
    assert not output.exists()


@pytest.mark.parametrize(
    "arguments", [["--top", "0"], ["--width", "79"], ["--nonsense"], ["a", "b"], ["--top", "x"]]
)
def test_wrong_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["analyze", *arguments]) == 2
    assert "Usage: numatrace analyze" in capsys.readouterr().err


def test_help_ends_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["analyze", "--help"]) == 0
    said = capsys.readouterr().out
    assert "\n    numatrace analyze slow.arrow --top 40 " in said
    assert max(map(len, said.split("\n"))) < 80


# --- on a terminal


def on_terminal(trace: Path, columns: int, **environ: str) -> str:
    """What the program writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    unset = ("NO_COLOR", "COLUMNS", "LINES", "LC_ALL")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env |= {"LANG": "C.UTF-8", "PYTHONPATH": os.pathsep.join(sys.path)} | environ
    program = "import sys; from numatrace.cli.main import main; main(sys.argv[1:])"
    child = subprocess.Popen(
        [sys.executable, "-c", program, "analyze", str(trace)], stdin=theirs, stdout=theirs,
        stderr=theirs, env=env,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 65_536):
            said += part
    except OSError:  # Linux: the other side was closed
        pass
    os.close(ours)
    assert child.wait(timeout=60) == 0
    # On a busy machine it also says that it is still at work, and takes that back.
    return re.sub(r"\r\x1b\[K[^\r\n]*(?=\r\x1b\[K)|\r\x1b\[K", "", said.decode()).replace(
        "\r\n", "\n"
    )


@pytest.mark.parametrize(("columns", "used"), [(60, 80), (100, 100), (300, 120)])
def test_a_terminal_gets_colours_and_its_width(trace: Path, columns: int, used: int) -> None:
    said = on_terminal(trace, columns)
    assert said == rendered(trace, options=RenderOptions(width=used, colour=True, height=50))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
    assert "\x1b" in said
    assert "\x1b" not in plain
    widest = max(cell_len(line) for line in plain.split("\n") if "/srv" not in line)
    assert used - 12 < widest < used


def test_no_color_is_obeyed(trace: Path) -> None:
    assert on_terminal(trace, 80, NO_COLOR="1") == rendered(trace, options=RenderOptions(height=50))


def test_long_analysis_shows_that_it_is_at_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "PATIENCE_S", 0.05)
    with verb._busy_line("analyzing"):
        time.sleep(0.3)
    assert capsys.readouterr().err == ""  # no terminal: nothing
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with verb._busy_line("analyzing x"):
        time.sleep(0.3)
    said = capsys.readouterr().err
    assert "\r\x1b[Kanalyzing x: 0 s" in said
    assert said.endswith("\r\x1b[K")
    assert "\n" not in said
    monkeypatch.setattr(verb, "PATIENCE_S", 600)
    with verb._busy_line("analyzing"):
        pass
    assert capsys.readouterr().err == ""


# --- the fix as a script


def test_the_fix_becomes_a_script_beside_the_report(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = trace.with_name("fix.sh")
    assert run(["analyze", str(trace), "--fix-script", str(place)]) == 0
    said = capsys.readouterr()
    assert said.out == rendered(trace)
    assert "wrote" in said.err
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert place.read_text().startswith("#!/bin/bash\n")
    done = subprocess.run([place, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Nothing was changed." in done.stdout


def test_json_stays_json_beside_a_script(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = trace.with_name("fix.sh")
    assert run(["analyze", str(trace), "--json", "--fix-script", str(place)]) == 0
    assert json.loads(capsys.readouterr().out)["findings"]


def test_a_script_is_never_written_over_something(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, link = trace.with_name("fix.sh"), trace.with_name("link.sh")
    place.write_text("mine")
    link.symlink_to(place)
    for target in (place, link, trace.parent):
        assert run(["analyze", str(trace), "--fix-script", str(target)]) == 2
        said = capsys.readouterr()
        assert (said.out, "--fix-script" in said.err) == ("", True)
    assert place.read_text() == "mine"
    assert run(["analyze", str(trace), "--fix-script", str(link), "--force"]) == 2
    assert place.read_text() == "mine"
    assert run(["analyze", str(trace), "--fix-script", str(trace), "--force"]) == 2
    assert run(["analyze", str(trace), "--fix-script", str(place), "-o", str(place)]) == 2
    assert run(["analyze", str(trace), "--fix-script", str(place), "--force"]) == 0
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert place.read_text() != "mine"


def test_without_a_fix_there_is_no_script(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trace(tmp_path / "one.arrow", nodes=1)
    place = tmp_path / "fix.sh"
    assert run(["analyze", str(tmp_path / "one.arrow"), "--fix-script", str(place)]) == 1
    said = capsys.readouterr()
    assert "nothing is remote here" in said.out
    assert "no fix script was written" in said.err
    assert not place.exists()
