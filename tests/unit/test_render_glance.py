"""The first screen of a report: bars, the answer once more at the end, and plain ASCII."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from numatrace.model.findings import Evidence, Verdict
from numatrace.model.measured import Figure
from numatrace.model.views import FilterView, MachineView, ServerView
from numatrace.render.bars import PLAIN, Heat, bar, strip
from numatrace.render.options import RenderOptions
from numatrace.render.tables import Column, table
from tests.unit.test_render_text import (
    GIB,
    HOSTILE,
    NOTHING,
    assert_fits,
    assert_harmless,
    hostile_report,
    imbalance,
    layer,
    node,
    row,
    section,
    text,
    thread,
)

if TYPE_CHECKING:
    from numatrace.model.report import Report

SHARES = st.floats(0, 1)


def judged(**more: Any) -> Report:
    """A report with what the verdict rests on."""
    server = ServerView(
        4711, {0: 7 * GIB, 1: GIB}, 0, {0: 20 * 10**9, 1: 20 * 10**9},
        Figure(0.5, "share", "model"), None, None,
    )  # fmt: skip
    return dataclasses.replace(imbalance(), server=server, **more)


def first_part(report: Report, **options: Any) -> str:
    return text(report, **options).partition("WHAT WAS FOUND")[0]


# --- bars


@settings(deadline=None)
@given(SHARES, st.integers(1, 40))
def test_a_bar_is_as_long_as_its_share(share: float, width: int) -> None:
    shown = bar(share, width)
    assert len(shown) <= width
    full = shown.count("█")
    assert abs(full - share * width) <= 1
    assert bool(shown) == (share > 0)


@given(st.lists(SHARES, max_size=20))
def test_a_strip_is_as_high_as_its_shares(shares: list[float]) -> None:
    shown = strip(shares)
    assert len(shown) == len(shares)
    levels = ["·▁▂▃▄▅▆▇█".index(char) for char in shown]
    for level, share in zip(levels, shares, strict=True):
        assert abs(level / 8 - share) <= 1 / 8
        assert (level > 0) == (share > 0)


@given(st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=5), st.integers(80, 160))
def test_bars_of_a_table_are_equally_long(shares: list[tuple[float, float]], width: int) -> None:
    heads = [Column("name", right=False, least=8), Column("a long title"), Column("b")]
    rows = [["x" * 40, *(Heat(f"{s:.2f}", s) for s in pair)] for pair in [*shares, (1.0, 1.0)]]
    lines = table(heads, rows, RenderOptions(width=width))
    assert max(map(cell_len, lines)) < width
    full = [len(run) for run in re.findall("█+", lines[-1])]
    assert len(full) == 2
    assert full[0] == full[1] >= 4
    # Numbers end where those above and below do.
    assert len({len(line) for line in lines[1:]}) == 1


def test_without_room_there_are_no_bars_and_names_stay_whole() -> None:
    heads = [Column("name", right=False, least=40), *[Column(f"n{n}") for n in range(4)]]
    lines = table(heads, [["x" * 44, *[Heat("100 %", 1.0)] * 4]], RenderOptions())
    assert "x" * 44 in lines[1]
    assert "█" not in lines[1]


# --- what it says


def test_the_answer_has_cost_cause_fix_and_picture() -> None:
    shown = first_part(judged())
    said = " ".join(shown.split())
    assert "server llama-server (pid 4711), recorded for 10 s" in said
    assert "cost 30 % of the compute threads' time: 12 s of 40 s [model]" in said
    assert "cause C1, allocation imbalance; confidence: high" in said
    assert "predicted: 0 % remote, 1.2–1.8 times today's speed [model]" in said
    assert "remote 50 % of the reads of weights: expected, not measured [model]" in said
    assert row(shown, "0") == ["0", "0-3", "88 %", "50 %"]
    assert row(shown, "1") == ["1", "4-7", "12 %", "50 %"]
    assert len(shown.split("\n")) <= 24


def test_a_cost_has_its_range_and_an_unknown_one_says_so() -> None:
    finding = judged().findings[0]
    lost = Figure(12e9, "ns", "model", 4e9, 16e9)
    some = dataclasses.replace(finding, lost_ns=lost)
    assert "30 % (10 to 40 %) of the compute" in first_part(judged(findings=(some,)))
    none = dataclasses.replace(finding, lost_ns=None)
    assert "cost    not known" in first_part(judged(findings=(none,)))


def test_a_withheld_verdict_gives_no_share() -> None:
    shown = text(judged(verdict=Verdict("withheld", "It was idle."), findings=()))
    start = shown.partition("THREADS")[0]
    assert start.startswith("No verdict: It was idle.")
    assert "remote  50 %" not in start
    assert "88 %" not in start


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 64])
def test_any_number_of_nodes_has_a_picture_that_fits(count: int) -> None:
    nodes = tuple(node(n, f"{n}") for n in range(count))
    server = dataclasses.replace(
        judged().server or ServerView(0, {}, 0, {}, None, None, None),
        weights_bytes={count - 1: GIB}, compute_ns=dict.fromkeys(range(count), 10**9),
    )  # fmt: skip
    report = judged(machine=MachineView("6.1", nodes, 1))
    shown = first_part(dataclasses.replace(report, server=server))
    assert_fits(shown, report)
    assert ("compute threads," in shown) == (count > 1)
    if count > 1:
        assert row(shown, str(count - 1))[2] == "100 %"
    assert (f"and {count - 8} more" in shown) == (count > 8)


def test_many_nodes_have_a_map_of_a_character_each() -> None:
    nodes = tuple(node(n, f"{n}") for n in range(8))
    spread = thread(4711, {1: 10**9, 6: 3 * 10**9})
    report = dataclasses.replace(
        imbalance(), machine=MachineView("6.1", nodes, 1), threads=(spread,)
    )
    threads = section(text(report), "THREADS")
    assert "nodes 0-7" in threads
    assert "·▂····▆·" in threads
    assert "6: 75 %, 1: 25 %" in threads


def test_layers_have_a_character_each() -> None:
    layers = [layer(n, {0: 100} if n < 20 else {0: 50, 1: 50}) for n in range(30)]
    layers.append(layer(30, {}, absent=10))
    shown = section(text(dataclasses.replace(imbalance(), layers=tuple(layers))), "LAYERS")
    lines = {line.split()[0]: line.split()[-1] for line in shown.split("\n") if "·" in line}
    assert re.search(r"node 0 +█{40}▄{20}··$", shown, re.MULTILINE)
    assert re.search(r"node 1 +·{40}▄{20}··$", shown, re.MULTILINE)
    assert re.search(r"absent +·{60}██$", shown, re.MULTILINE)
    assert lines


def test_more_layers_than_columns_share_characters() -> None:
    layers = tuple(layer(n, {int(n >= 250): 100}) for n in range(500))
    report = dataclasses.replace(imbalance(), layers=(*layers, layer(None, {0: 1})))
    shown = section(text(report), "LAYERS")
    assert_fits(shown, report)
    assert "A character is 8 layers" in shown
    assert re.search(r"node 0 +█{31}▂·{31}$", shown, re.MULTILINE)


# --- the end of a long report


def test_a_report_longer_than_the_terminal_ends_with_the_answer() -> None:
    report = judged()
    whole = text(report)
    lines = whole.count("\n") + 1  # the shell's prompt comes below
    assert text(report, height=lines) == whole
    shown = text(report, height=lines - 1)
    assert shown.startswith(whole)
    short = shown[len(whole) :]
    assert short.startswith("\nIN SHORT\n\nProblem: 98 % of the weights")
    assert len(short.split("\n")) <= 24
    assert "under WHAT TO DO" in short
    assert row(short, "1") == ["1", "4-7", "12 %", "50 %"]


def test_a_withheld_verdict_ends_with_what_to_do() -> None:
    verdict = Verdict("withheld", "It was idle.", (Evidence("Record again."),))
    shown = text(judged(verdict=verdict, findings=()), height=5)
    assert "- Record again." in shown.partition("IN SHORT")[2]


# --- ASCII


def test_ascii_stands_for_every_character_of_ours() -> None:
    report = judged()
    for options in ({}, {"tensors": True, "width": 120}, {"height": 3}):
        shown = text(report, ascii=True, **options)
        assert shown.isascii()
        assert shown == text(report, **options).translate(PLAIN)
        assert "#####" in shown
        assert_fits(shown, report, options.get("width", 80) - 1)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_break_neither_screen_nor_filters(name: str) -> None:
    report = dataclasses.replace(
        hostile_report(name), filters=FilterView(1, name, (name, name), (name,))
    )
    for options in ({"height": 3}, {"height": 3, "width": 120}):
        shown = text(report, **options)
        assert_fits(shown, report, options.get("width", 80) - 1)
        assert_harmless(shown)


def test_filters_are_said_at_the_top() -> None:
    filters = FilterView(4711, "decode", ("1 other process",), ("moves and faults",))
    shown = first_part(dataclasses.replace(judged(), filters=filters))
    assert "\n  Only process 4711 and phase decode.\n" in shown
    assert "- Left out: 1 other process\n" in shown
    assert "- Not restricted: moves and faults\n" in shown
    assert "Only" not in first_part(judged())
    assert text(NOTHING).startswith("No verdict: ")
