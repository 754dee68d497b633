"""One table of what was asked for: its numbers are the report's, and it fits."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numatrace.cli.analyze import analyze
from numatrace.model.report import Report
from numatrace.model.units import format_bytes, format_ns, format_share
from numatrace.render.by import TABLES
from tests.unit.test_render_glance import judged
from tests.unit.test_render_reads import MS, a_read, an_access, measured
from tests.unit.test_render_text import (
    ANYTHING,
    HOSTILE,
    NOTHING,
    SERVER,
    assert_fits,
    assert_harmless,
    hostile_report,
    row,
    section,
    text,
    thread,
)

if TYPE_CHECKING:
    from numatrace.render.options import By

ALL: tuple[By, ...] = ("thread", "slot", "layer", "tensor", "node", "phase")


def test_the_command_line_knows_every_table() -> None:
    (option,) = (each for each in analyze.params if each.name == "by")
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == tuple(TABLES) == ALL


def one(report: Report, by: By, **options: Any) -> str:
    shown = text(report, by=by, **options)
    return section(shown, "BY ")


@pytest.mark.parametrize("by", ALL)
def test_verdict_and_one_table_and_where_they_come_from(by: By) -> None:
    report = judged()
    shown = text(report, by=by)
    assert " ".join(shown.split()).startswith(f"Problem: {report.verdict.sentence}")
    assert "WHAT TO DO" not in shown
    assert "WHERE THE NUMBERS COME FROM" in shown
    assert shown.count("\n") < 60


@pytest.mark.parametrize("by", ALL)
@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_break_no_table(by: By, name: str) -> None:
    report = hostile_report(name)
    for width in (80, 120):
        shown = text(report, by=by, width=width)
        assert_fits(shown, report, width - 1)
        assert_harmless(shown)


@pytest.mark.parametrize("by", ALL)
def test_nothing_is_said_to_be_nothing(by: By) -> None:
    assert "The trace has nothing of that." in one(NOTHING, by)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(ANYTHING.of(Report), st.sampled_from(ALL), st.integers(1, 3))
def test_any_report_fits(report: Report, by: By, top: int) -> None:
    shown = text(report, by=by, top=top)
    assert_fits(shown, report)
    assert_harmless(shown)


def test_layers_are_listed_one_by_one_the_worst_first() -> None:
    report = measured()
    shown = one(report, "layer", top=50)
    for view in report.layers:
        name = "in no layer" if view.layer is None else f"blk.{view.layer}"
        total = sum(view.node_bytes.values())
        shares = [format_share(view.node_bytes.get(n, 0) / total) for n in (0, 1)]
        lost = format_ns(view.lost_ns) if view.lost_ns else "-"
        read = format_ns(view.read_ns)
        assert row(shown, name) == [name, format_bytes(view.bytes), *shares, read, "too few", lost]
    assert shown.index("blk.31 ") < shown.index("blk.30 ")
    assert "and 30 more layers of" in one(report, "layer", top=3)


def test_tensors_without_reads_say_that_nobody_was_seen_to_read() -> None:
    report = judged()
    shown = one(report, "tensor", top=40)
    for view in report.tensors:
        assert row(shown, view.name)[1] == format_bytes(view.bytes)
    assert "reading" not in shown.partition("No reads")[0]
    assert "No reads were measured" in shown


def test_slots_are_the_threads_that_compute() -> None:
    slot = thread(4712, {0: 10**9}, role="other", members=20)
    http = thread(4713, {0: 10**9}, role="http")
    report = dataclasses.replace(judged(), threads=(thread(4711, {0: 10**9}), slot, http))
    assert "4713" not in one_text(report, "slot")
    assert "4712" in one_text(report, "slot")
    assert "4713" in one_text(report, "thread")


def one_text(report: Report, by: By) -> str:
    return text(report, by=by).partition("WHERE THE NUMBERS")[0]


def reads(samples: int, **more: Any) -> Report:
    """Memory of node 0 read for 3 s on node 0 and for 1 s on node 1, with so many samples."""
    phase = {"phase": "decode", **more}
    found = (
        a_read(1, 0, cpu_node=0, samples=samples, time_ns=3000 * MS, **phase),
        a_read(2, 400 * MS, cpu_node=1, samples=samples, time_ns=1000 * MS, **phase),
    )
    server = judged().server
    return dataclasses.replace(
        measured(), reads=found, server=server, access=an_access(design_effect=2.0)
    )


def test_nodes_have_what_is_read_from_them_and_by_whom() -> None:
    shown = one(reads(700), "node")
    assert row(shown, "0") == ["0", "88 %", "50 %", "4.0 s", "25 %", "400 ms"]
    assert row(shown, "1") == ["1", "12 %", "50 %", "-", "-", "-"]


def test_shares_of_too_few_samples_are_withheld() -> None:
    assert row(one(reads(29), "node"), "0")[4] == "too few"  # 58 samples, of which 60 are needed
    assert row(one(reads(30), "node"), "0")[4] == "25 %"
    assert row(one(reads(30), "phase"), "decode")[3:5] == ["100 %", "0 %"]
    assert row(one(reads(29), "phase"), "decode")[3:5] == ["-", "-"]


def test_loading_counts_only_if_it_was_asked_for() -> None:
    assert row(one(reads(700, phase="load"), "node"), "0")[3] == "-"


def test_another_process_is_left_out() -> None:
    assert row(one(reads(700, tgid=SERVER + 1), "node"), "0")[3] == "-"
