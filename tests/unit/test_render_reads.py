"""The measured part of the text report: its numbers are the report's, and it fits."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import pytest

from numatrace.model.measured import (
    AccessView,
    CostView,
    Figure,
    PhaseView,
    RateView,
    RatioView,
    ReadView,
    TimeView,
)
from numatrace.model.units import format_ns
from numatrace.model.views import ShareView
from tests.unit.test_render_text import HOSTILE, MODEL, SERVER, imbalance, row, section, text

if TYPE_CHECKING:
    from numatrace.model.report import Report

MS = 10**6


def share(value: float, **more: Any) -> Figure:
    figure = Figure(value, "share", "operand sample", max(0.0, value - 0.04), value + 0.04)
    return dataclasses.replace(figure, **more)


def an_access(**more: Any) -> AccessView:
    view = AccessView(
        rung="operand sample",
        why="hardware samples: no PMU in this guest",
        source="operand",
        samples=20_000,
        lost=0,
        time_ns=20_000 * MS,
        placed=TimeView("an address in known memory", 15_000, 15_000 * MS),
        kernel=(TimeView("kernel fault", 600, 600 * MS), TimeView("kernel", 400, 400 * MS)),
        waiting=TimeView("spin", 1_000, 1_000 * MS),
        unplaced=(TimeView("none", 3_000, 3_000 * MS),),
        unknown_node=TimeView("unknown", 30, 30 * MS),
        remote_share=share(0.48),
        unnamed_weights=False,
        design_effect=2.25,
        thread_design_effect=1.4,
        least_samples=30,
        merged=False,
        rates=(
            RateView(0, "operand", 5 * MS, 0, "to begin with"),
            RateView(0, "operand", MS, 0, "within the budget", 0.006, 0.01, (CostView("x", 1.0),)),
        ),
        ratios=(RatioView(1, 0, 2.1, "model", "the firmware's distance"),),
    )
    return dataclasses.replace(view, **more)


def a_read(layer: int | None, lost_ns: int, **more: Any) -> ReadView:
    view = ReadView(
        SERVER, SERVER, "llama-3-8b.gguf", MODEL, layer, 1, 0, "", 700, 700 * MS, lost_ns
    )
    return dataclasses.replace(view, **more)


def measured(**more: Any) -> Report:
    report = imbalance()
    threads = [
        dataclasses.replace(view, read_ns=(n + 1) * 900 * MS, remote_share=share(0.1 * n),
                            lost_ns=n * 100 * MS)
        for n, view in enumerate(report.threads[:4])
    ]  # fmt: skip
    layers = [
        dataclasses.replace(view, read_ns=40 * MS + n, lost_ns=n * MS, remote_share=None)
        for n, view in enumerate(report.layers)
    ]
    regions = [
        dataclasses.replace(view, read_ns=300 * MS, lost_ns=2 * MS, remote_share=share(0.5))
        for view in report.regions
    ]
    phases = (
        PhaseView("load", 2 * 10**9, 10**9, 900, 60 * MS, None, 0),
        PhaseView("decode", 8 * 10**9, 9 * 10**9, 19_100, 7 * 10**9, share(0.48), 600 * MS),
    )
    values: dict[str, Any] = {
        "access": an_access(),
        "threads": (*threads, *report.threads[4:]),
        "layers": tuple(layers),
        "regions": tuple(regions),
        "phases": phases,
        "hot": tuple(a_read(n, (40 - n) * MS) for n in range(40)),
    }
    return dataclasses.replace(report, **(values | more))


def shown_of(report: Report, **options: Any) -> str:
    return section(text(report, **options), "WHO READS WHAT")


def words(shown: str) -> str:
    return " ".join(shown.split())


def test_threads_layers_and_pairs_are_those_of_the_report() -> None:
    report = measured()
    shown = shown_of(report, top=50)
    for view in report.threads[:4]:
        assert view.remote_share is not None
        percent = f"{100 * view.remote_share.value:.0f}"
        cells = row(shown.partition("What they read")[0], str(view.tid))
        assert cells[:3] == [str(view.tid), view.comm, "compute"]
        assert cells[3] == format_ns(view.read_ns)
        assert cells[4].startswith(f"{percent} % (")
        assert cells[5] == (format_ns(view.lost_ns) if view.lost_ns else "-")
    for view in report.layers:
        name = "llama-3-8b.gguf" + (", no layer" if view.layer is None else "")
        name = name if view.layer is None else f"blk.{view.layer} of {name}"
        read = shown.partition("What they read")[2].partition("The remote reads")[0]
        lost = format_ns(view.lost_ns) if view.lost_ns else "-"
        assert row(read, name) == [name, format_ns(view.read_ns), "too few", lost]
    hot = shown.partition("The remote reads")[2].partition("\n\n")[0]
    assert len(re.findall(r"blk\.\d+ of", hot)) == 40
    assert "node 0  node 1" in hot
    assert row(shown, "decode")[1:6] == ["8.0 s", "9.0 s", "19,100", "7.0 s", "48 % (44-52)"]
    assert row(shown, "load")[5:] == ["too few", "-"]


def test_the_worst_come_first_and_what_is_left_out_is_counted() -> None:
    shown = shown_of(measured(), top=2)
    threads, _, rest = shown.partition("What they read")
    assert re.findall(r"^ +(47\d\d) ", threads, re.MULTILINE) == [
        str(SERVER + 3), str(SERVER + 2),
    ]  # fmt: skip
    assert "and 2 more, reading for 2.7 s, 100 ms of it lost" in words(threads)
    assert "blk.31" in rest.partition("The remote")[0]
    assert "blk.0 of" not in rest.partition("The remote")[0]
    assert len(re.findall("node 0  node 1", rest)) == 2


def test_weights_are_listed_by_layer_and_other_memory_by_region() -> None:
    report = measured()
    read = shown_of(report, top=50).partition("What they read")[2]
    read = read.partition("The remote reads")[0]
    assert row(read, "heap")[1:] == ["300 ms", "50 % (46-54)", "2.0 ms"]
    assert not re.search(r"^ +llama-3-8b\.gguf  ", read, re.MULTILINE), "its layers are listed"
    assert "code" not in read, "another process's"


def test_the_account_of_the_samples_is_always_there() -> None:
    shown = words(shown_of(measured()))
    told = "75 % in accesses to known memory, 5 % waiting for another thread (a barrier, polled)"
    assert f"Of 20 s of sampled time: {told}, 5 % in the kernel" in shown
    assert "15 % without a place" in shown
    assert "In the kernel: 3 % for a page fault; 2 % for another system call" in shown
    assert "Without a place: 15 % no memory operand, and no load near it" in shown
    assert "0.1 % in known memory whose node is unknown" in shown
    few = measured(access=an_access(rung="placement", remote_share=None), hot=())
    assert "15 % without a place" in words(shown_of(few))


def test_source_reason_rate_and_cost_are_said() -> None:
    shown = words(shown_of(measured()))
    assert "Measured by operand samples" in shown
    assert "(hardware samples: no PMU in this guest)" in shown
    assert "Reads of the weights while the server computed: 48 % (44-52) remote." in shown
    assert "20,000 samples, none lost; one every 1.0 ms of CPU time at last (1 change)" in shown
    assert "within the budget; tracing cost 0.6 % of the CPU time, 1 % allowed" in shown
    assert "95 % intervals, 1.5 times as wide as if samples in a row were independent" in shown
    assert "2.1 on node 1 for memory of node 0 (the firmware's distance)" in shown
    merged = measured(access=an_access(merged=True, lost=77))
    assert "small entries are merged" in words(shown_of(merged))
    assert "20,000 samples, 77 lost" in words(shown_of(merged))


def test_hardware_is_called_so_and_its_samples_may_have_no_time() -> None:
    access = an_access(
        rung="hardware sample", why="", source="ibs", time_ns=0, kernel=(),
        waiting=TimeView("spin", 0, 0),
        placed=TimeView("", 600, 0), unplaced=(TimeView("the sample has no address", 200, 0),),
        rates=(RateView(0, "ibs", 0, 100_003, "chosen for this CPU"),), samples=800,
        unknown_node=TimeView("", 0, 0),
    )  # fmt: skip
    shown = words(shown_of(measured(access=access)))
    assert "Measured by the CPU's own samples of memory accesses." in shown
    assert "one every 100,003 events: chosen for this CPU" in shown
    assert "Of the samples: 75 % in accesses to known memory, 0 % waiting for" in shown
    assert "25 % without a place" in shown


def test_without_samples_it_says_why_and_shows_no_table() -> None:
    access = an_access(
        rung="placement", why="no access was sampled", samples=0, time_ns=0, remote_share=None,
        placed=TimeView("", 0, 0), kernel=(), unplaced=(), unknown_node=TimeView("", 0, 0),
    )  # fmt: skip
    shown = shown_of(dataclasses.replace(imbalance(), access=access))
    assert "Not measured: shares are expected" in words(shown)
    assert "(no access was sampled)" in words(shown)
    assert "reading" not in shown


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_break_nothing(name: str) -> None:
    access = an_access(
        why=name, kernel=(TimeView(name, 1, 1),), unplaced=(TimeView(name, 1, 1),),
        rates=(RateView(0, "operand", 1, 0, name),), ratios=(RatioView(0, 1, 2.0, "model", name),),
    )  # fmt: skip
    report = measured(access=access, hot=tuple(a_read(None, 5, region=name) for _ in range(3)))
    report = dataclasses.replace(
        report,
        threads=tuple(dataclasses.replace(view, comm=name) for view in report.threads),
        regions=tuple(dataclasses.replace(view, label=name) for view in report.regions),
        layers=tuple(dataclasses.replace(view, path=name) for view in report.layers),
        phases=(PhaseView(name, 1, 1, 1, 1, share(0.5), 1),),
    )
    for line in text(report).split("\n"):
        assert "\x1b" not in line
        assert line.isprintable() or not line
    assert "WHO READS WHAT" in text(report)


def test_measured_and_expected_shares_of_a_matrix_are_told_apart() -> None:
    report = measured()
    title = "REMOTE READS OF THE COMPUTE THREADS"
    label = report.regions[0].label
    mine = ShareView(SERVER, SERVER, label, share(0.25))
    model = ShareView(SERVER, SERVER + 1, label, Figure(0.5, "share", "model"))
    mixed = section(text(dataclasses.replace(report, shares=(mine, model))), title)
    assert row(mixed, str(SERVER))[-1] == "25 % (21-29)"
    assert row(mixed, str(SERVER + 1))[-1] == "~50 %"
    assert "the others, with a ~, are computed, not measured" in words(mixed)
    every = section(text(dataclasses.replace(report, shares=(mine,))), title)
    assert "Measured; in brackets 95 % intervals." in every
    assert "computed" not in every
    none = section(text(dataclasses.replace(report, shares=(model,))), f"EXPECTED {title}")
    assert "Computed, not measured" in none
    assert row(none, str(SERVER + 1))[-1] == "50 %"
