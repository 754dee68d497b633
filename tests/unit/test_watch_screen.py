"""The live view's pictures and keys, without a machine or a terminal."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, Group

from numatrace.render.width import columns as widest
from numatrace.watch.columns import COLUMNS, fitting
from numatrace.watch.figures import bar, clock, node_cells, rate
from numatrace.watch.keys import Keys
from numatrace.watch.screen import plain, screen
from numatrace.watch.sessions import next_free
from numatrace.watch.snapshot import NodeLine, Overhead, Remote, Snapshot, ThreadLine
from numatrace.watch.view import QUIT, RECORD, View, Writing

SIZES = [(60, 20), (80, 24), (100, 30), (200, 50)]
HOSTILE = [
    "[bold red]markup[/] [/nope]",
    "\x1b[31mred\x1b]0;title\x07\r\n\t",
    "\u202ereversed \u2066x",
    "日本語日本語日本語日本語日本語日本語",
    "e" + "\u0301" * 300,
    "x" * 5000,
    "\U0001f1e9\U0001f1ea❤️",
]  # fmt: skip


def a_thread(tid: int = 8, name: str = "llama-server", **more: object) -> ThreadLine:
    line = ThreadLine(
        7, tid, None, name, 0.98, {0: 0.75, 1: 0.25}, Remote(0.48, 0.41, 0.55, 200), 2.5, 1234.0
    )
    return replace(line, **more)


def a_snapshot(**more: object) -> Snapshot:
    nodes = (
        NodeLine(0, 1.5, 0.75, 8 << 30, 4 << 30, 1 << 30),
        NodeLine(1, 0.5, 0.25, 0, 0, None),
    )
    snapshot = Snapshot(
        process="llama-server", pid=7, processes=2, threads_alive=5, host="box", n_nodes=2,
        n_cpus=64, elapsed_s=83.0, every_s=1.0, interval_s=1.01, window_s=10.0, cpus=2.0,
        remote=Remote(0.48, 0.41, 0.55, 1200), source="operand", samples_s=361.0, moves_s=3.0,
        faults_s=120.0, lost={"fault": 7}, lost_s=0.0, overhead=Overhead(0.01, 0.002, 0.001),
        nodes=nodes, threads=tuple(a_thread(tid) for tid in range(8, 13)),
    )  # fmt: skip
    return replace(snapshot, **more)


def shown(lines: list, width: int, height: int = 100, **options: object) -> str:
    """What a terminal of this size gets."""
    console = Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height, **options
    )
    console.print(Group(*lines), no_wrap=True, overflow="crop")
    return console.file.getvalue()


def check_fits(lines: list, width: int, height: int) -> None:
    assert len(lines) <= height
    for line in lines:
        assert max(cell_len(line.plain), widest(line.plain)) <= width, line.plain
        assert line.plain.isprintable()


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_figure_is_there_and_every_line_fits(width: int, height: int) -> None:
    lines = screen(a_snapshot(), View(), width, height)
    check_fits(lines, width, height)
    assert len(lines) == height
    text = "\n".join(line.plain for line in lines)
    said = ["llama-server 7 +1", "1:23", "remote 48 %", "moves 3.0/s", "faults 120/s", "lost 7"]
    said += ["overhead 1.3 % of a CPU", "8.0 GiB", "4.0 GiB", " 98 ", "1,234", "q quit"]
    for each in said:
        assert each in text, each
    if width >= 80:
        assert "remote 48 % (41 to 55)" in text
        assert "operand" in text


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_from_elsewhere_are_shown_and_not_obeyed(
    width: int, height: int, hostile: str
) -> None:
    snapshot = a_snapshot(
        process=hostile, host=hostile, source=hostile, notes=(hostile,) * 50,
        threads=tuple(a_thread(tid, hostile) for tid in range(100)),
    )  # fmt: skip
    views = [
        View(),
        View(help=True),
        View(message=hostile, paused=True),
        View(writing=Writing(hostile, 5.0, 1 << 30)),
    ]
    for view in views:
        lines = screen(snapshot, view, width, height)
        check_fits(lines, width, height)
        output = re.sub(r"\x1b\[[0-9;]*m", "", shown(lines, width, height))
        assert "\x1b" not in output
        assert len(output.splitlines()) == len(lines)
    check_fits(plain(snapshot, 100, 20), 100, 1000)
    if hostile.startswith("["):
        assert "[bold red]markup" in screen(snapshot, View(), 200, 50)[-3].plain


@given(
    st.integers(1, 240),
    st.integers(1, 70),
    st.lists(st.builds(a_thread, st.integers(0, 2**22), st.text(max_size=40),
                       slot=st.none() | st.integers(0, 65_536),
                       cpus=st.floats(0, 1e4), moves_s=st.floats(0, 1e12),
                       faults_s=st.floats(0, 1e12),
                       node_share=st.dictionaries(st.integers(0, 1023), st.floats(0, 1))),
             max_size=80),
    st.lists(st.builds(NodeLine, st.integers(0, 1023), st.floats(0, 1e4), st.floats(0, 1),
                       st.none() | st.integers(0, 2**63), st.none() | st.integers(0, 2**63),
                       st.none() | st.integers(0, 2**63)), max_size=80),
    st.sampled_from([column.name for column in COLUMNS]),
)  # fmt: skip
def test_anything_fits_any_size(
    width: int, height: int, threads: list, nodes: list, sort: str
) -> None:
    snapshot = a_snapshot(threads=tuple(threads), nodes=tuple(nodes))
    check_fits(screen(snapshot, View(sort=sort), width, height), width, height)
    check_fits(screen(None, View(), width, height), width, height)
    check_fits(plain(snapshot, 100, 20), 100, 1000)


def test_a_small_terminal_gets_a_message_instead_of_a_broken_table() -> None:
    for width, height in [(59, 24), (80, 19)]:
        [line] = screen(a_snapshot(), View(), width, height)
        assert line.plain.startswith(f"too small: {width}×{height}; at least 60×20")


def test_without_colour_no_colour_is_sent() -> None:
    lines = screen(a_snapshot(), View(), 80, 24)
    assert "\x1b[36m" in shown(lines, 80, color_system="standard")
    styles = re.findall(
        r"\x1b\[([0-9;]*)m", shown(lines, 80, color_system="standard", no_color=True)
    )
    assert styles
    assert not {code for style in styles for code in style.split(";")} & set(
        map(str, range(30, 50))
    )


def test_rows_that_do_not_fit_are_counted() -> None:
    snapshot = a_snapshot(threads=tuple(a_thread(tid) for tid in range(100)))
    lines = [line.plain for line in screen(snapshot, View(), 80, 24)]
    rows = [line for line in lines if "llama-server" in line][1:]
    assert f"and {100 - len(rows)} more" in " ".join(lines)


@pytest.mark.parametrize(
    ("sort", "first"),
    [("cpu", 1), ("remote", 2), ("moves", 3), ("faults", 4), ("samples", 5), ("tid", 1)],
)
def test_the_table_is_sorted_by_the_chosen_column(sort: str, first: int) -> None:
    quiet = {"cpus": 0.1, "moves_s": 0.0, "faults_s": 0.0, "remote": Remote(samples=1)}
    threads = (
        a_thread(6, **quiet),
        a_thread(5, **quiet | {"remote": Remote(samples=29)}),
        a_thread(4, **quiet | {"faults_s": 9.0}),
        a_thread(3, **quiet | {"moves_s": 9.0}),
        a_thread(2, **quiet | {"remote": Remote(0.9, 0.8, 1.0, 9)}),
        a_thread(1, **quiet | {"cpus": 0.9}),
    )
    lines = screen(a_snapshot(threads=threads), View(sort=sort), 80, 24)
    head = next(place for place, line in enumerate(lines) if "CPU %" in line.plain)
    assert lines[head + 1].plain.split()[0] == str(first)


def test_too_few_samples_are_said_to_be_too_few() -> None:
    snapshot = a_snapshot(remote=Remote(samples=12), threads=(a_thread(remote=Remote()),))
    lines = [line.plain for line in screen(snapshot, View(), 80, 24)]
    assert "remote few" in lines[1]
    assert re.search(r" - +0 ", next(line for line in lines if "    8 llama" in line))


def test_keys() -> None:
    view = View()
    assert (view.press("q"), view.press("r"), view.press("x")) == (QUIT, RECORD, None)
    for key in ("p", " ", "h"):
        view.press(key)
    assert (view.paused, view.help) == (False, True)
    view.press("escape")
    assert not view.help
    seen = []
    for _ in COLUMNS:
        view.press("s")
        seen.append(view.sort)
    assert sorted(seen) == sorted(column.name for column in COLUMNS)
    view.press("right")
    view.press("left")
    assert view.sort == COLUMNS[0].name


def test_bytes_become_keys_however_they_are_cut() -> None:
    data = b"s\x1b[C\x1bOD\x1b[1;5A\x1b[3~q\xc3\xa9"
    expected = ["s", "right", "left", "up", "q", "é"]
    assert Keys().feed(data) == expected
    keys = Keys()
    assert [key for byte in data[:-2] for key in keys.feed(bytes([byte]))] == expected[:-1]
    assert keys.feed(b"\x1b") == []
    assert keys.feed(b"") == ["escape"]


@given(st.binary(max_size=300))
def test_no_bytes_are_too_much(data: bytes) -> None:
    keys = Keys()
    for place in range(0, len(data), 7):
        keys.feed(data[place : place + 7])
    keys.feed(b"")
    assert keys.feed(b"q") == ["q"]


@given(st.dictionaries(st.integers(0, 63), st.floats(0, 1)), st.integers(0, 100))
def test_cells_of_a_bar_are_all_given_out(shares: dict[int, float], width: int) -> None:
    cells = node_cells(shares, width)
    whole = sum(shares.values())
    assert sum(count for _, count in cells) == (width if whole > 0 else 0)
    for node, count in cells:
        assert abs(count - shares[node] / whole * width) <= 1


def test_figures() -> None:
    assert [rate(x) for x in (0, 0.04, 0.31, 9.94, 12.4, 1234, 56_789, 1.2e6, 1e15)] == [
        "0", "0", "0.3", "9.9", "12", "1,234", "57k", "1M", "many"
    ]  # fmt: skip
    assert [clock(x) for x in (0, 83, 3723)] == ["0:00", "1:23", "1:02:03"]
    assert bar(0.5, 4) == "██░░"


def test_wide_terminals_show_more_columns() -> None:
    few, more = ({column.name for column, _ in fitting(width)} for width in (60, 200))
    assert few < more
    assert {"tid", "name", "cpu", "node", "remote", "moves", "faults"} <= few
    for width in range(60, 300):
        assert sum(columns + 1 for _, columns in fitting(width)) - 1 <= width


def test_a_snapshot_is_a_line_of_json() -> None:
    found = json.loads(json.dumps(a_snapshot().to_json(), allow_nan=False))
    assert found["version"] == 1
    assert found["threads"][0]["node_share"] == {"0": 0.75, "1": 0.25}
    assert found["remote"] == {"share": 0.48, "low": 0.41, "high": 0.55, "samples": 1200}


def test_a_second_trace_gets_another_name(tmp_path) -> None:
    path = tmp_path / "trace.arrow"
    assert next_free(path) == path
    path.touch()
    assert next_free(path).name == "trace-2.arrow"
    (tmp_path / "trace-2.arrow").touch()
    assert next_free(path).name == "trace-3.arrow"
