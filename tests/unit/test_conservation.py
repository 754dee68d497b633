"""Whatever a trace holds: attributed + unattributed + lost = recorded, and no crash."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from numatrace.analyze import analyze_trace
from numatrace.model.events import COLUMN, EVENT, EVENTS
from numatrace.trace.reader import Trace
from numatrace.trace.writer import TraceWriter
from tests.unit.test_analyze_world import MIB, SERVER, WEIGHTS_AT, World

if TYPE_CHECKING:
    from numatrace.model.report import Report

Row = dict[str, object]
Stream = list[list[tuple[str, Row]]]

LIMITS = {"u64": (0, (1 << 64) - 1), "s64": (-(1 << 63), (1 << 63) - 1),
          "s32": (-(1 << 31), (1 << 31) - 1), "u8": (0, 255)}  # fmt: skip


def values(column: str) -> st.SearchStrategy[object]:
    """Anything that the column can hold, often something small: so that rows meet."""
    type_ = COLUMN[column].type
    if type_ in ("text", "enum"):
        words = ["", "fault", "topology", "blk.0.x", "/m.gguf", "[heap]", "r-xp", "{}", "[", "null",
                 "operand", "pebs", "remote DRAM", "kernel wait", "access"]  # fmt: skip
        return st.none() | st.sampled_from(words) | st.text(max_size=8)
    low, high = LIMITS[type_]
    small = st.integers(max(low, -1), 3)
    pages = st.integers(0, 6).map(lambda page: page * 4096)
    wide = pages if column in ("addr", "bytes", "node_bytes") else small
    return st.none() | wide | wide | wide | st.integers(low, high)


def rows() -> st.SearchStrategy[tuple[str, Row]]:
    return st.sampled_from(EVENTS).flatmap(
        lambda event: st.tuples(
            st.just(event.kind),
            st.fixed_dictionaries({name: values(name) for name in event.columns}),
        )
    )


def access_rows() -> st.SearchStrategy[Row]:
    """Samples of a server that is there, sound or not."""
    return st.fixed_dictionaries(
        {name: values(name) for name in EVENT["access"].columns}
        | {
            "tgid": st.just(SERVER),
            "tid": st.integers(SERVER, SERVER + 3),
            "node": st.sampled_from([0, 1, None]),
            "mem_node": st.sampled_from([0, 1, None]),
            "addr": st.none() | st.integers(WEIGHTS_AT - 9, WEIGHTS_AT + 64 * MIB + 9),
            "name": st.sampled_from(["operand", "operand", "pebs"]),
            "detail": st.sampled_from(["operand", "none", "kernel", "remote DRAM", "local DRAM"]),
        }
    )


def streams() -> st.SearchStrategy[Stream]:
    """Batches of rows."""
    return st.lists(st.lists(rows(), max_size=12), max_size=5)


def analyze(stream: Stream) -> Report:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.arrow"
        writer = TraceWriter.create(path)
        for batch in stream:
            for kind, row in batch:
                writer.add_rows(kind, [row])
            writer.flush()
        writer.close()
        trace = Trace.open(path)
        try:
            return analyze_trace(trace)
        finally:
            trace.close()


def number(row: Row, column: str, missing: int = 0) -> int:
    value = row[column]
    return missing if value is None else int(str(value))


@given(streams())
@settings(max_examples=60, deadline=None)
def test_the_account_of_any_stream_balances(stream: Stream) -> None:
    report = analyze(stream)
    json.dumps(report.to_json(), allow_nan=False)
    counted = Counter[str]()
    for kind, row in (each for batch in stream for each in batch):
        family = EVENT[kind].family
        if kind == "fault":
            counted[family] += number(row, "weight", 1)
        elif kind == "loss":
            counted[str(row["name"] or "")] += number(row, "count")
        elif kind not in ("fault_count", "counter", "note", "end"):
            counted[family] += 1
    exact = sum(number(row, "count") for batch in stream for kind, row in batch
                if kind == "fault_count")  # fmt: skip
    counted["fault"] = max(counted["fault"], exact)
    for loss in report.losses:
        loss.check()
        assert loss.recorded == counted[loss.family], loss.family
    assert {loss.family for loss in report.losses} >= {f for f in FAMILIES if counted[f]}
    faults = [loss.attributed for loss in report.losses if loss.family == "fault"]
    assert sum(region.faults for region in report.regions) == sum(faults)
    check_samples(report)


def check_samples(report: Report) -> None:
    """Every sample of the source that the report rests on is somewhere, and only once."""
    access = report.access
    assert access is not None
    elsewhere = (*access.kernel, *access.unplaced)
    assert access.samples == access.placed.samples + sum(view.samples for view in elsewhere)
    assert access.time_ns == access.placed.time_ns + sum(view.time_ns for view in elsewhere)
    assert sum(row.samples for row in report.reads) == access.placed.samples
    kept = sum(loss.attributed + loss.unattributed for loss in report.losses
               if loss.family == "access")  # fmt: skip
    assert access.samples <= kept


FAMILIES = ("fault", "sched", "access", "place", "map", "system")


@given(streams())
@settings(max_examples=20, deadline=None)
def test_batches_do_not_matter_to_the_totals(stream: Stream) -> None:
    one = analyze([[row for batch in stream for row in batch]])
    many = analyze(stream)
    assert [(loss.family, loss.recorded, loss.lost) for loss in one.losses] == [
        (loss.family, loss.recorded, loss.lost) for loss in many.losses
    ]
    assert one.provenance.rows == many.provenance.rows
    assert one.access is not None
    assert many.access is not None
    assert one.access.samples == many.access.samples


@given(st.lists(st.lists(access_rows(), max_size=30), max_size=4))
@settings(max_examples=40, deadline=None)
def test_every_sample_of_a_sound_world_is_accounted_for(parts: list[list[Row]]) -> None:
    report = World(extra=[("access", part) for part in parts if part]).report()
    check_samples(report)
    for phase in report.phases:
        assert phase.lost_ns <= sum(row.time_ns for row in report.reads)
    lost = sum(row.lost_ns for row in report.reads)
    assert lost <= sum(row.time_ns for row in report.reads)


@given(streams())
@settings(max_examples=25, deadline=None)
def test_a_sound_world_with_rubbish_in_it_is_still_judged_or_withheld(stream: Stream) -> None:
    world = World()
    world.extra = [(kind, [row]) for batch in stream for kind, row in batch]
    report = world.report()
    for finding in report.findings:
        assert finding.evidence
        for fix in finding.fixes:
            assert fix.lint
    for loss in report.losses:
        loss.check()
