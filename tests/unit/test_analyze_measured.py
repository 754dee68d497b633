"""Measured remote shares: intervals, time lost, sources, and verdicts that rest on them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numatrace.analyze import load as loading
from numatrace.analyze.phases.phases import Phases, PhaseSpan
from numatrace.analyze.phases.time_split import TimeSplit
from numatrace.analyze.samples.blocks import Blocks, effect
from numatrace.analyze.samples.intervals import LEAST_FOR_VERDICT, LEAST_SAMPLES, Weighed, wilson
from numatrace.model.access import DATA_CLASSES
from numatrace.model.topology import Performance
from tests.unit.test_analyze_access import MS, access, account, report_of, survey_of
from tests.unit.test_analyze_world import MIB, SECOND, SERVER, WEIGHTS_AT, World

if TYPE_CHECKING:
    from numatrace.model.measured import AccessView
    from numatrace.model.report import Report

CHANCE = np.random.default_rng(11)
LAYER = 32 * MIB


@pytest.fixture(autouse=True)
def always_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """How phases are told is tested elsewhere."""
    monkeypatch.setattr(loading, "Survey", survey_of(PhaseSpan(0, 1 << 62, "compute")))


def access_of(report: Report) -> AccessView:
    assert report.access is not None
    return report.access


def spread(count: int, **columns: object) -> list[dict[str, object]]:
    """Samples one after the other over the recording, through all of the weights."""
    return [
        access(SECOND + n * (8 * SECOND // count), WEIGHTS_AT + (n * 4096) % (64 * MIB), **columns)
        for n in range(count)
    ]


# --- intervals


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("count", [30, 100, 1000])
def test_the_interval_covers_the_truth_19_times_in_20(share: float, count: int) -> None:
    drawn = CHANCE.binomial(count, share, 4000) / count
    covered = [low <= share <= high for low, high in (wilson(each, count) for each in drawn)]
    assert 0.92 <= np.mean(covered) <= 1.0


def test_unequal_weights_count_as_fewer_samples() -> None:
    """The oracle is a simulation: weights of 1 and 9, half of each."""
    covered = []
    for _ in range(2000):
        weights = CHANCE.choice([1.0, 9.0], 200)
        remote = CHANCE.random(200) < 0.3
        weighed = Weighed(200, 0, weights.sum(), weights[remote].sum(), (weights**2).sum())
        share = weighed.share("operand sample")
        assert share is not None
        covered.append(share.low <= 0.3 <= share.high)  # type: ignore[operator]
    assert 0.93 <= np.mean(covered) <= 0.98


@given(st.floats(0, 1), st.floats(1, 1e7))
def test_an_interval_holds_its_share_and_stays_within_0_and_1(share: float, count: float) -> None:
    low, high = wilson(share, count)
    assert 0.0 <= low <= share <= high <= 1.0


def test_too_few_samples_give_no_share() -> None:
    few = Weighed(29, 0, 29.0, 10.0, 29.0)
    assert few.share("operand sample") is None
    assert replace(few, weight=30.0, squares=30.0).share("operand sample") is not None
    assert replace(few, weight=30.0, squares=30.0).share("operand sample", 1.1) is None
    assert Weighed().share("operand sample") is None


def correlated(threads: int, alike: bool) -> tuple[Blocks, np.ndarray, float]:
    """Samples whose chance of being remote changes from block to block; the share is 0.5.

    `alike`: all threads have the same chance at a time, as when they read one layer together.
    """
    blocks, seconds = Blocks(), 60
    count = seconds * 50
    times = (np.arange(count) * (SECOND // 50)).astype(np.uint64)
    block = (times >> np.uint64(29)).astype(np.int64)
    found = []
    common = CHANCE.random(block.max() + 1)
    for thread in range(threads):
        chance = common if alike else CHANCE.random(block.max() + 1)
        remote = CHANCE.random(count) < chance[block]
        weights = np.full(count, MS, np.int64)
        blocks.add(np.full(count, thread), times, weights, remote)
        found.append(remote.mean())
    return blocks, np.arange(threads), float(np.mean(found))


@pytest.mark.parametrize("alike", [False, True])
def test_samples_that_are_alike_widen_the_interval_until_it_covers(alike: bool) -> None:
    covered, naive = [], []
    for _ in range(150):
        blocks, slots, share = correlated(3, alike)
        design = blocks.of_all(slots)
        assert design is not None
        count = 3 * 60 * 50
        naive.append(wilson(share, count)[0] <= 0.5 <= wilson(share, count)[1])
        low, high = wilson(share, count / design)
        covered.append(low <= 0.5 <= high)
    assert np.mean(naive) < 0.8, "without it, the interval is too narrow"
    assert np.mean(covered) > 0.88


def test_threads_that_differ_are_no_reason_for_wider_intervals() -> None:
    blocks = Blocks()
    times = (np.arange(3000) * 20 * MS).astype(np.uint64)
    for thread, chance in enumerate((0.1, 0.9)):
        remote = CHANCE.random(3000) < chance
        blocks.add(np.full(3000, thread), times, np.full(3000, MS), remote)
    found = blocks.of_threads(np.arange(2))
    assert found is not None
    assert found < 1.3


def test_few_blocks_say_nothing() -> None:
    values = np.array([[10.0, 5.0, 10.0]] * 9)
    assert effect(np.zeros(9, np.int64), values) is None
    assert effect(np.zeros(10, np.int64), np.repeat(values[:1], 10, axis=0)) == 1.0


def test_blocks_are_bounded_and_their_sums_stay() -> None:
    blocks = Blocks(blocks=64)
    times = np.arange(0, 10_000) << 29
    blocks.add(np.zeros(10_000), times.astype(np.uint64), np.ones(10_000), np.ones(10_000) > 0)
    blocks.settle()
    assert len(blocks._cells.keys) <= 64
    assert blocks._cells.floats[:, :2].sum(axis=0).tolist() == [10_000.0, 10_000.0]


# --- what the report says of threads, layers and the time lost


def test_shares_and_lost_time_by_thread_and_layer() -> None:
    rows = [
        *(access(SECOND + n * 10 * MS, WEIGHTS_AT + n) for n in range(60)),
        *(access(SECOND + n * 10 * MS, WEIGHTS_AT + LAYER, mem_node=1) for n in range(40)),
        *(access(SECOND + n * 10 * MS, tid=SERVER + 1, node=1) for n in range(50)),
    ]
    report = report_of(*rows, distances={0: {0: 10, 1: 25}, 1: {0: 20, 1: 10}})
    threads = {thread.tid: thread for thread in report.threads}
    first, second = threads[SERVER], threads[SERVER + 1]
    assert first.remote_share is not None
    assert second.remote_share is not None
    assert first.remote_share.value == pytest.approx(0.4)
    assert first.remote_share.source == "operand sample"
    assert second.remote_share.value == 1.0
    assert first.lost_ns == round(40 * MS * (1 - 1 / 2.5))
    assert second.lost_ns == round(50 * MS * (1 - 1 / 2.0))
    layers = {layer.layer: layer for layer in report.layers}
    assert layers[0].lost_ns == second.lost_ns
    assert layers[1].lost_ns == first.lost_ns
    assert layers[1].remote_share is not None
    assert layers[1].remote_share.value == 1.0
    assert {tensor.layer: tensor.lost_ns for tensor in report.tensors} == {
        0: second.lost_ns, 1: first.lost_ns,
    }  # fmt: skip
    weights = next(region for region in report.regions if region.cls == "weights")
    assert weights.read_ns == 150 * MS
    assert weights.lost_ns == first.lost_ns + second.lost_ns
    assert [(row.tid, row.layer, row.cpu_node, row.mem_node) for row in report.hot] == [
        (SERVER + 1, 0, 1, 0), (SERVER, 1, 0, 1),
    ]  # fmt: skip
    assert [(r.cpu_node, r.mem_node, r.ratio) for r in access_of(report).ratios] == [
        (0, 1, 2.5), (1, 0, 2.0),
    ]  # fmt: skip
    assert all("not a latency" in ratio.basis for ratio in access_of(report).ratios)


def test_a_distance_that_nobody_gave_is_called_an_assumption() -> None:
    report = report_of(*spread(40, node=1))
    (ratio,) = access_of(report).ratios
    assert (ratio.ratio, ratio.source) == (2.0, "model")
    assert "assumption" in ratio.basis


def test_memory_beyond_cpus_takes_what_the_firmware_says(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(nodes={0: (0, 1), 1: (2, 3), 2: ()}, extra=[("access", spread(40, mem_node=2))])
    figures = (Performance(0, (0,), read_latency_ns=100), Performance(2, (0,), read_latency_ns=250))
    topology = replace(world.topology, performance=figures)
    monkeypatch.setattr(World, "topology", topology)
    (ratio,) = access_of(world.report()).ratios
    assert (ratio.ratio, ratio.source) == (2.5, "model")
    assert "HMAT" in ratio.basis


def test_measured_shares_take_the_place_of_expected_ones_where_samples_suffice() -> None:
    rows = [*spread(100), *spread(10, tid=SERVER + 1, node=1)]
    report = report_of(*rows)
    shares = {share.tid: share.remote_share for share in report.shares}
    assert (shares[SERVER].source, shares[SERVER].value) == ("operand sample", 0.0)
    assert (shares[SERVER + 1].source, shares[SERVER + 1].value) == ("model", 0.5)


# --- verdicts


def test_threads_that_read_their_own_node_only_are_healthy_whatever_placement_suggests() -> None:
    """Placement times CPU time would say 50 %: each thread reads its own slice, so it is 0 %."""
    halves = {0: 32 * MIB, 1: 32 * MIB}
    rows = [*spread(200), *spread(200, tid=SERVER + 1, node=1, mem_node=1)]
    report = report_of(*rows, weights=halves)
    assert report.verdict.kind == "healthy"
    assert "0 % of reads measured to be remote" in report.verdict.sentence
    text = " ".join(evidence.text for evidence in report.verdict.reasons)
    assert "Measured remote share of weight reads: 0 %" in text
    assert "from 400 samples" in text
    assert "Expected" not in text
    assert "operand sample" in report.provenance.sources


def test_a_cause_is_shown_by_what_was_measured() -> None:
    report = report_of(*spread(150), *spread(150, tid=SERVER + 1, node=1), policy="bind:0")
    assert [finding.cause for finding in report.findings] == ["C1"]
    (share,) = [f for e in report.findings[0].evidence for f in e.figures if f.unit == "share"]
    assert share.source == "operand sample"
    assert share.value == pytest.approx(0.5)
    assert share.low is not None
    assert share.low < 0.5


def test_with_few_samples_the_verdict_rests_on_placement() -> None:
    count = LEAST_FOR_VERDICT - 1
    report = report_of(*spread(count))
    assert access_of(report).remote_share is None
    assert [finding.cause for finding in report.findings] == ["C1"]
    assert any("Expected remote share" in e.text for e in report.findings[0].evidence)
    assert access_of(report_of(*spread(count + 1))).remote_share is not None


def test_a_trace_without_samples_says_on_what_it_rests_and_why() -> None:
    access_view = access_of(World().report())
    assert (access_view.rung, access_view.samples) == ("placement", 0)
    assert access_view.why == "no access was sampled"
    few = access_of(report_of(*spread(LEAST_SAMPLES - 1)))
    assert few.rung == "placement"
    assert "only 29 samples" in few.why


def test_notes_and_rates_say_why_a_source_is_missing() -> None:
    note = {"t_ns": 1, "name": "hardware samples", "detail": "no PMU in this guest"}
    rate = {"t_ns": 2 * SECOND, "name": "operand", "time_ns": 5 * MS, "detail": "within 1 %",
            "value": '{"overhead": 0.004, "name": "x", "list": [1], "big": 1e400,'
                     ' "costs": {"tick_ns": 2e3, "b": true}}'}  # fmt: skip
    view = access_of(report_of(*spread(40), extra=(("note", [note]), ("rate", [rate]))))
    assert "no PMU in this guest" in view.why
    (found,) = view.rates
    assert (found.source, found.period_ns, found.why) == ("operand", 5 * MS, "within 1 %")
    assert (found.overhead, found.budget) == (0.004, None)
    assert [(cost.name, cost.value) for cost in found.costs] == [("costs.tick_ns", 2000.0)]


def test_more_than_a_twentieth_of_the_samples_lost_withholds_the_verdict() -> None:
    report = report_of(*spread(200), losses={"access": 11})
    assert report.verdict.kind == "withheld"
    assert "access" in report.verdict.sentence
    assert "11 of 211" in report.verdict.sentence
    text = " ".join(evidence.text for evidence in report.verdict.reasons)
    assert "-F" in text
    assert "--ring-pages" in text
    assert account(report) == (211, 200, 0, 11)
    assert report_of(*spread(200), losses={"access": 10}).verdict.kind == "healthy"


def test_an_idle_server_is_withheld_whatever_was_sampled() -> None:
    report = report_of(*spread(200), times=[{0: 10 * MS}])
    assert report.verdict.kind == "withheld"
    assert "idle" in report.verdict.sentence


# --- hardware


def hardware(count: int, detail: str, cycles: int, **columns: object) -> list[dict[str, object]]:
    usual = {"name": "pebs", "detail": detail, "weight": 1000, "time_ns": None}
    return spread(count, latency_cycles=cycles, **{**usual, **columns})


def test_the_hardware_says_what_was_remote_and_how_long_it_took() -> None:
    rows = [
        *hardware(60, "local DRAM", 200),
        *hardware(40, "remote DRAM", 500, mem_node=1),
        *hardware(500, "local cache", 20),
    ]
    report = report_of(*rows, times=[{0: 4 * SECOND}])
    view = access_of(report)
    assert (view.rung, view.source) == ("hardware sample", "pebs")
    assert view.remote_share is not None
    assert view.remote_share.value == pytest.approx(0.4), "what caches served is not memory"
    (ratio,) = view.ratios
    assert (ratio.ratio, ratio.source) == (2.5, "hardware sample")
    (thread,) = [thread for thread in report.threads if thread.read_ns]
    waited = 60 * 200 + 40 * 500 + 500 * 20
    assert thread.read_ns == pytest.approx(4 * SECOND, abs=2)
    lost = 4 * SECOND * (40 * 500 / waited) * (1 - 1 / 2.5)
    assert thread.lost_ns == pytest.approx(lost, rel=1e-6)
    assert sum(row.samples for row in report.reads) == 600
    assert account(report) == (600, 600, 0, 0)


@pytest.mark.parametrize("detail", DATA_CLASSES)
def test_every_class_of_data_is_memory_near_or_far_or_neither(detail: str) -> None:
    view = access_of(report_of(*hardware(40, detail, 300)))
    memory = detail.split()[-1] in ("DRAM", "CXL", "PMEM")
    assert (view.rung == "hardware sample") == memory
    if memory:
        report = report_of(*hardware(120, detail, 300))
        share = access_of(report).remote_share
        assert share is not None
        assert share.value == float(detail.startswith("remote"))


def test_with_both_sources_the_hardware_counts_and_operands_give_the_time() -> None:
    rows = [*hardware(50, "local DRAM", 200), *hardware(50, "remote DRAM", 400, mem_node=1)]
    report = report_of(*rows, *spread(300, time_ns=2 * MS))
    view = access_of(report)
    assert (view.rung, view.samples) == ("hardware sample", 100)
    (thread,) = [thread for thread in report.threads if thread.read_ns]
    assert thread.read_ns == pytest.approx(300 * 2 * MS, abs=2)
    assert account(report) == (400, 400, 0, 0)


def test_hardware_samples_without_memory_leave_the_operands_in_charge() -> None:
    view = access_of(report_of(*hardware(500, "local cache", 9), *spread(200)))
    assert (view.rung, view.source, view.samples) == ("operand sample", "operand", 200)


def test_one_node_has_nothing_remote_and_no_interval() -> None:
    report = report_of(*spread(200), nodes={0: (0, 1)}, times=[{0: 8 * SECOND}])
    assert report.verdict.kind == "one-node"
    (thread,) = [thread for thread in report.threads if thread.read_ns]
    assert thread.remote_share is not None
    assert (thread.remote_share.value, thread.remote_share.low) == (0.0, None)
    assert json.dumps(report.to_json(), allow_nan=False)


# --- CPU time by phase


@given(
    st.lists(st.tuples(st.integers(1, 50), st.sampled_from(Phases.names)), max_size=8),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 1 << 40)), min_size=1, max_size=8),
)
def test_cpu_time_is_divided_among_phases_without_loss(
    stretches: list[tuple[int, str]], reads: list[tuple[int, int]]
) -> None:
    spans, at = [], 0
    for length, phase in stretches:
        spans.append(PhaseSpan(at, at + length, phase))
        at += length
    split = TimeSplit(Phases(tuple(spans)))
    since = 0
    for t_ns, oncpu_ns in sorted(reads):
        parts = split.split(since, t_ns, oncpu_ns)
        assert sum(part for _, part in parts) == oncpu_ns
        assert all(part >= 0 for _, part in parts)
        seen = {span.phase for span in spans if span.start_ns < t_ns and span.end_ns > since}
        if seen:
            assert {phase for phase, part in parts if part} <= seen
        since = t_ns


def test_a_prompt_in_the_middle_of_an_interval_gets_its_part() -> None:
    spans = (PhaseSpan(0, 100, "idle"), PhaseSpan(100, 200, "prompt"),
             PhaseSpan(200, 500, "decode"))  # fmt: skip
    parts = dict(TimeSplit(Phases(spans)).split(0, 500, 40_500))
    assert parts == {"prompt": 10_000, "decode": 30_000, "idle": 500}
