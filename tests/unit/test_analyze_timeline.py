"""The timeline and the map of threads by layers: nothing is lost, all lies where it happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numatrace.analyze import load as loading
from numatrace.analyze import timeline as module
from numatrace.analyze.phases.phases import Phases, PhaseSpan
from numatrace.analyze.samples import reads
from numatrace.analyze.samples.blocks import Blocks
from tests.unit.test_analyze_access import MS, access, survey_of
from tests.unit.test_analyze_world import MIB, SECOND, SERVER, WEIGHTS_AT, World

if TYPE_CHECKING:
    from numatrace.model.measured import TimelineView
    from numatrace.model.report import Report

TEN_S = survey_of(PhaseSpan(0, 4 * SECOND, "load"), PhaseSpan(4 * SECOND, 10 * SECOND, "decode"))


@pytest.fixture(autouse=True)
def ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """How phases are told is tested elsewhere."""
    monkeypatch.setattr(loading, "Survey", TEN_S)


def timeline(report: Report) -> TimelineView:
    assert report.timeline is not None
    return report.timeline


def moved(t_ns: int, node: int = 0) -> tuple[str, list[dict[str, object]]]:
    row = {"t_ns": t_ns, "tgid": SERVER, "tid": SERVER, "cpu": 0, "node": node, "from_node": 1}
    return "move", [row]


def counted(t_ns: int, oncpu_ns: int, node: int = 0, tgid: int = SERVER) -> tuple[str, list]:
    row = {"t_ns": t_ns, "tgid": tgid, "tid": tgid, "node": node, "oncpu_ns": oncpu_ns}
    return "oncpu", [row]


def test_moves_and_phases_lie_where_they_happened() -> None:
    extra = [moved(SECOND), moved(9 * SECOND), moved(9 * SECOND + 1)]
    line = timeline(World(times=[], extra=extra).report())
    found = {step * line.step_ns // SECOND: n for step, n in enumerate(line.moves) if n}
    assert sum(line.moves) == 3
    assert found in ({0: 1, 8: 2}, {0: 1, 9: 2}, {1: 1, 9: 2}, {1: 1, 8: 2})
    assert {line.phases[0], line.phases[-1]} == {"load", "decode"}
    assert len(line.phases) == len(line.moves) == len(line.faults) <= module.STEPS


def test_counted_time_is_spread_over_the_time_since_the_reading_before() -> None:
    extra = [counted(2 * SECOND, SECOND), counted(4 * SECOND, 4 * SECOND, node=1)]
    line = timeline(World(times=[], extra=extra).report())
    assert line.source == "counter"
    zero, one = (np.array(each.oncpu_ns) for each in line.nodes)
    middle = 2 * SECOND // line.step_ns
    assert zero.sum() == pytest.approx(SECOND, rel=1e-6)
    assert one.sum() == pytest.approx(4 * SECOND, rel=1e-6)
    assert not zero[middle + 1 :].any()
    assert not one[: middle - 1].any()
    assert np.ptp(zero[1 : middle - 1]) <= 1


def test_other_processes_are_left_out() -> None:
    extra = [counted(2 * SECOND, SECOND, tgid=77), counted(4 * SECOND, SECOND)]
    line = timeline(World(times=[], extra=extra).report())
    assert sum(sum(each.oncpu_ns) for each in line.nodes) == pytest.approx(SECOND, rel=1e-6)


def test_time_of_samples_is_used_where_they_stand_for_most_of_it() -> None:
    rows = [access(5 * SECOND + n * 10 * MS, WEIGHTS_AT, time_ns=10 * MS) for n in range(300)]
    line = timeline(
        World(times=[], extra=[counted(9 * SECOND, 4 * SECOND), ("access", rows)]).report()
    )
    assert line.source == "operand sample"
    assert sum(sum(each.oncpu_ns) for each in line.nodes) == 3 * SECOND
    few = World(times=[], extra=[counted(9 * SECOND, 40 * SECOND), ("access", rows)]).report()
    assert timeline(few).source == "counter"


def test_remote_shares_change_with_the_reads() -> None:
    remote = np.random.default_rng(5).random(6000) < np.where(np.arange(6000) < 3000, 0.1, 0.6)
    rows = [
        access(4 * SECOND + n * MS, WEIGHTS_AT, node=0, mem_node=int(away), time_ns=MS)
        for n, away in enumerate(remote.tolist())
    ]
    line = timeline(World(times=[], extra=[("access", rows)]).report())
    told = [span.remote_share for span in line.shares if span.remote_share is not None]
    assert len(told) >= 4
    for before, after in zip(line.shares, line.shares[1:], strict=False):
        assert before.end_ns <= after.start_ns
    for share, truth in ((told[0], 0.1), (told[1], 0.1), (told[-2], 0.6), (told[-1], 0.6)):
        assert share.low is not None
        assert share.high is not None
        assert share.low - 0.05 <= truth <= share.high + 0.05


def test_reads_that_are_alike_for_long_count_as_fewer_samples() -> None:
    """Each block of time is all local or all remote: a block is hardly more than one sample."""
    blocks = Blocks()
    chance = np.random.default_rng(3)
    times = np.arange(40_000, dtype=np.uint64) * np.uint64(MS)
    away = chance.random(1 << 20)[(times >> np.uint64(28)).astype(np.int64)] < 0.5
    blocks.add(np.zeros(40_000, np.int64), times, np.full(40_000, MS), away)
    _, near = blocks.over_time(np.array([0]))
    assert near is not None
    assert near > 100
    blocks = Blocks()
    blocks.add(np.zeros(40_000, np.int64), times, np.full(40_000, MS), chance.random(40_000) < 0.5)
    _, near = blocks.over_time(np.array([0]))
    assert near is not None
    assert near < 1.5


def test_few_samples_give_no_share() -> None:
    rows = [access(5 * SECOND + n * MS, WEIGHTS_AT, mem_node=1) for n in range(20)]
    line = timeline(World(times=[], extra=[("access", rows)]).report())
    assert [span.remote_share for span in line.shares] == [None]


def test_a_trace_without_events_has_no_timeline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "Survey", survey_of())
    assert World(times=[]).report().timeline is None


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=20))
def test_whatever_rows_say_the_steps_are_few(rows: list[tuple[int, int]]) -> None:
    line = module.Timeline(Phases((PhaseSpan(5, 10**10, "decode"),)))
    assert 0 < line.steps <= module.STEPS
    for t_ns, oncpu_ns in rows:
        parts = line._overlap(5, max(6, t_ns))
        assert (parts >= 0).all()
        assert parts.sum() <= 1 + 1e-9
        assert np.isfinite(oncpu_ns * parts).all()


def test_series_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SERIES", 3)
    line = module.Timeline(Phases((PhaseSpan(0, 1000, "decode"),)))
    for tgid in range(1, 50):
        line._series(line.moves, (tgid, 0))[0] += 1
    assert len(line.moves) == 4
    assert sum(each.sum() for each in line.moves.values()) == 49


def test_blocks_over_time_keep_their_sums() -> None:
    blocks = Blocks(8)
    times = np.arange(100, dtype=np.uint64) * np.uint64(SECOND)
    blocks.add(np.arange(100) % 3, times, np.full(100, 2), np.arange(100) >= 50)
    spans, _ = blocks.over_time(np.array([0, 1, 2]))
    assert sum(each.weight for *_, each in spans) == 200
    assert sum(each.remote for *_, each in spans) == 100
    assert [start for start, *_ in spans] == sorted(start for start, *_ in spans)
    assert sum(each.weight for *_, each in blocks.over_time(np.array([1]))[0]) == 66


# --- the map of threads by layers


def reading(count: int) -> list[dict[str, object]]:
    return [
        access(5 * SECOND + n * MS, WEIGHTS_AT + (n * 65536) % (64 * MIB), tid=SERVER + n % 4,
               mem_node=n % 2, time_ns=MS)
        for n in range(count)
    ]  # fmt: skip


def test_the_map_holds_all_reads_but_loading() -> None:
    rows = [*reading(800), access(SECOND, WEIGHTS_AT, time_ns=7 * MS)]
    report = World(extra=[("access", rows)]).report()
    assert sum(each.read_ns for each in report.grid) == 800 * MS
    assert sum(each.samples for each in report.grid) == 800
    by_thread = {thread.tid: thread.read_ns for thread in report.threads if thread.read_ns}
    for tid, read_ns in by_thread.items():
        assert sum(each.read_ns for each in report.grid if each.tid == tid) == read_ns
    costs = [(-each.lost_ns, -each.read_ns) for each in report.grid]
    assert costs == sorted(costs)


def test_the_map_is_bounded_and_keeps_its_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "GRID", 3)
    report = World(extra=[("access", reading(800))]).report()
    assert len(report.grid) == 4
    rest = report.grid[-1]
    assert (rest.tid, rest.remote_share) == (0, None)
    assert sum(each.read_ns for each in report.grid) == 800 * MS
