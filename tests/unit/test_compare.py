"""Two reports compared: intervals, pairs, predictions, and what must not be compared."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numatrace.analyze import analyze_trace
from numatrace.analyze.compare import NOT_APPLIED, compare
from numatrace.analyze.compare.changes import change, interval
from numatrace.analyze.compare.parts import moved_share
from numatrace.analyze.samples.intervals import wilson
from numatrace.model.comparison import Change
from numatrace.model.errors import ComparisonError
from numatrace.model.findings import Verdict
from numatrace.model.machine import Memory
from numatrace.model.measured import Figure, PhaseView
from numatrace.model.topology import NodeMemory
from numatrace.model.views import LayerView, MachineView
from numatrace.trace.reader import Trace
from tests.unit.compare_reports import (
    GIB,
    MODEL,
    SECOND,
    SERVER,
    access,
    bound,
    expected,
    finding,
    imbalanced,
    node,
    plan,
    report,
    server,
    share,
    thread,
)
from tests.unit.test_analyze_world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.model.comparison import Comparison
    from numatrace.model.report import Report

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
MOVED = "numa_pages_migrated"


def counted(successes: int, trials: int) -> Figure:
    """A share with Wilson's interval, as reports have it."""
    value = successes / trials
    return share(value, *wilson(value, trials))


# --- the interval of a difference


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_interval_is_the_published_one(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    """Newcombe 1998, table II, method 10."""
    found = interval(counted(*second), counted(*first))
    assert found == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("trials", "truth"), [(40, 0.5), (60, 0.1), (100, 0.02)])
def test_equal_shares_are_seldom_told_apart(trials: int, truth: float) -> None:
    """Exactly: the sum over all outcomes of two recordings of one and the same server."""
    weight = [
        math.comb(trials, n) * truth**n * (1 - truth) ** (trials - n) for n in range(trials + 1)
    ]
    wrong = sum(
        weight[a] * weight[b]
        for a in range(trials + 1)
        for b in range(trials + 1)
        if change(counted(a, trials), counted(b, trials)).beyond_chance
    )
    assert 0.0 < wrong < 0.06


def test_figures_without_interval_are_exact() -> None:
    assert change(expected(0.2), expected(0.5)).low is None
    found = change(expected(0.2), share(0.5, 0.4, 0.7, "model"))
    assert (found.low, found.high) == pytest.approx((0.2, 0.5))
    assert found.beyond_chance


def test_figures_of_different_sources_are_not_subtracted() -> None:
    found = change(expected(0.2), share(0.5, 0.4, 0.7))
    assert (found.change, found.beyond_chance) == (None, None)
    assert found.before is not None
    assert found.after is not None


# --- properties of all comparisons


@st.composite
def figures(draw: Any, source: Any = None) -> Figure:
    low, value, high = sorted(draw(st.tuples(*[st.floats(0, 1)] * 3)))
    known = draw(st.booleans())
    source = source or draw(st.sampled_from(["operand sample", "hardware sample", "model"]))
    return Figure(value, "share", source, *((low, high) if known else ()))


amounts = st.dictionaries(st.integers(0, 1), st.integers(0, 1 << 50), max_size=2)


@st.composite
def reports(draw: Any) -> Report:
    """Reports of one machine and model that differ in everything else."""
    maybe = st.none() | figures()
    cause = st.sampled_from(["C1", "C2", "C3", "C4", "C6", "C8"])
    causes = draw(st.lists(cause, unique=True, max_size=3))
    kind = draw(st.sampled_from(["healthy", "not-worth-fixing", "withheld", "one-node"]))
    kind = draw(st.sampled_from(["fix", "withheld"])) if causes else kind
    role = st.sampled_from(["compute", "loader", "http", "other"])
    threads = tuple(
        thread(
            tid, draw(amounts), role=draw(role), moves=draw(st.integers(0, 1 << 40)),
            remote_share=draw(maybe), comm=draw(st.text(max_size=5)),
        )
        for tid in range(1, draw(st.integers(1, 4)))
    )  # fmt: skip
    layers = tuple(
        LayerView(SERVER, draw(st.sampled_from([MODEL, "/b"])), n, 1, 5, draw(amounts), 0)
        for n in (None, 7)
    )
    phases = tuple(
        PhaseView(name, 5, draw(st.integers(0, 99)), 9, 9, draw(maybe), draw(st.integers(0, 9)))
        for name in draw(st.lists(st.sampled_from(["load", "decode", "idle"]), unique=True))
    )
    plans = (plan(draw(st.none() | st.floats(0, 1)), draw(amounts)),) if draw(st.booleans()) else ()
    weights = draw(amounts)
    view = server(
        draw(maybe), weights, expected_share=draw(st.none() | figures("model")),
        compute_ns=draw(amounts), weights_error_bytes=draw(st.integers(0, 1 << 40)),
        migrated_pages=draw(st.none() | st.integers(0, 1 << 40)),
    )  # fmt: skip
    return report(
        None, weights, tuple(causes), kind, threads=threads, layers=layers, phases=phases,
        plans=plans, server=draw(st.none() | st.just(view)),
        access=draw(st.none() | st.sampled_from([access(), access("placement")])),
    )  # fmt: skip


def changes(found: Any) -> Iterator[Change]:
    """All changes anywhere in a comparison, in order."""
    if isinstance(found, Change):
        yield found
    elif dataclasses.is_dataclass(found):
        for part in dataclasses.fields(found):
            yield from changes(getattr(found, part.name))
    elif isinstance(found, tuple):
        for each in found:
            yield from changes(each)


@given(reports())
def test_nothing_differs_from_itself(only: Report) -> None:
    found = compare(only, only)
    assert found.direction in ("same", "unknown")
    assert found.outcome in ("same", "as-predicted", "not-as-predicted", "cannot-tell")
    for each in changes(found):
        assert each.before == each.after
        assert each.change == (None if each.before is None else 0.0)
        assert not each.beyond_chance
        assert each.low is None or each.low <= 0.0 <= (each.high or 0.0)
    assert all(layer.moved_share in (None, 0.0) for layer in found.layers)
    assert all(pair.before == pair.after for pair in found.threads)
    assert all(setting.before == setting.after for setting in found.settings)


OPPOSITE = {"better": "worse", "worse": "better", "same": "same", "unknown": "unknown"}


@settings(max_examples=50)
@given(reports(), reports())
def test_swapping_the_sides_reverses_the_signs(one: Report, other: Report) -> None:
    there, back = compare(one, other), compare(other, one)
    assert back.direction == OPPOSITE[there.direction]
    assert (back.before, back.after) == (there.after, there.before)
    for a, b in zip(changes(there), changes(back), strict=True):
        assert (b.before, b.after) == (a.after, a.before)
        assert b.beyond_chance == a.beyond_chance
        assert (b.change is None) == (a.change is None)
        if a.change is not None:
            assert b.change == pytest.approx(-a.change)
        if a.low is not None and a.high is not None:
            assert (b.low, b.high) == pytest.approx((-a.high, -a.low))
            assert a.low <= (a.change or 0.0) <= a.high
    assert [(b.before, b.after) for b in back.threads] == [
        (a.after, a.before) for a in there.threads
    ]
    assert [b.moved_share for b in back.layers] == pytest.approx(
        [a.moved_share for a in there.layers]
    )


@settings(max_examples=50)
@given(reports(), reports())
def test_every_thread_is_in_one_pair_of_its_role(one: Report, other: Report) -> None:
    found = compare(one, other).threads
    for side, whole in (("before", one), ("after", other)):
        mine = [getattr(pair, side) for pair in found if getattr(pair, side) is not None]
        assert sorted(each.tid for each in mine) == sorted(each.tid for each in whole.threads)
    for pair in found:
        assert {each.role for each in (pair.before, pair.after) if each} == {pair.role}


# --- the answer


def found_of(before: Report, after: Report, limit: float | None = None) -> tuple[str, str]:
    found = compare(before, after, limit)
    assert found.sentence
    return found.outcome, found.direction


def test_a_fix_that_did_what_was_predicted() -> None:
    found = compare(imbalanced(), bound())
    assert (found.outcome, found.direction) == ("as-predicted", "better")
    assert found.remote_share.change == pytest.approx(-0.47)
    assert found.remote_share.beyond_chance
    assert found.prediction is not None
    assert [(check.name, check.kept) for check in found.prediction.checks] == [
        ("remote reads of the weights", True),
        ("weights on node 0", True),
    ]
    assert found.prediction.checks[0].off == pytest.approx(0.01)
    assert "48 % of the reads of weights are remote in BEFORE, 1 % in AFTER" in found.sentence


@pytest.mark.parametrize(("seen", "kept"), [(0.05, True), (0.051, False), (0.3, False)])
def test_a_prediction_is_kept_within_five_points(seen: float, kept: bool) -> None:
    after = bound(server=server(share(seen, seen, seen), {0: GIB}))
    found = compare(imbalanced(), after)
    assert found.prediction is not None
    assert found.prediction.kept is kept
    assert found.outcome == ("as-predicted" if kept else "better")


def test_bytes_per_node_are_part_of_the_prediction() -> None:
    half = {0: GIB // 2, 1: GIB // 2}
    found = compare(imbalanced(), bound(server=server(share(0.0, 0.0, 0.01), half)))
    assert found.prediction is not None
    assert [check.off for check in found.prediction.checks] == pytest.approx([0.0, -0.5, 0.5])
    assert found.prediction.kept is False


def test_a_fix_without_effect_is_not_as_predicted() -> None:
    found = compare(imbalanced(), imbalanced())
    assert (found.outcome, found.direction) == ("not-as-predicted", "same")
    assert "C1 is still found" in found.sentence
    assert NOT_APPLIED in found.notes
    other = imbalanced(findings=(finding("C2"),))
    found = compare(imbalanced(), other)
    assert "plan bind:0 was to bring remote reads of the weights to 0 %" in found.sentence
    assert "and it is 48 %" in found.sentence


def test_without_a_plan_no_difference_is_no_failure() -> None:
    assert found_of(bound(), bound()) == ("same", "same")
    assert compare(bound(), bound()).prediction is None


def test_what_the_recording_after_does_not_tell_leaves_the_prediction_open() -> None:
    nothing = server(share(0.02, 0.01, 0.03), {})
    found = compare(imbalanced(), bound(server=nothing))
    assert found.prediction is not None
    assert [check.kept for check in found.prediction.checks] == [True, None]
    assert found.prediction.kept is None
    assert found.outcome == "better"


def test_more_remote_reads_are_worse() -> None:
    assert found_of(bound(), imbalanced()) == ("worse", "worse")


@pytest.mark.parametrize(
    ("before", "after", "direction"),
    [
        (share(0.48, 0.46, 0.5), share(0.44, 0.42, 0.46), "same"),  # more than chance, and small
        (share(0.48, 0.3, 0.66), share(0.4, 0.22, 0.6), "same"),  # large, and may be chance
        (share(0.48, 0.46, 0.5), share(0.4, 0.38, 0.42), "better"),
        (expected(0.5), expected(0.44), "better"),
        (expected(0.5), expected(0.46), "same"),
        (None, share(0.4, 0.38, 0.42), "unknown"),
    ],
)
def test_a_difference_has_to_be_large_and_more_than_chance(
    before: Figure | None, after: Figure | None, direction: str
) -> None:
    found = compare(report(before, {0: GIB}), report(after, {0: GIB}))
    assert found.direction == direction


@pytest.mark.parametrize("cause", ["C3", "C4", "C6"])
def test_causes_that_are_not_about_remote_reads_count_for_more(cause: str) -> None:
    """Threads on one node, but too many: without them, spread over both, more reads are remote."""
    before = report(share(0.0, 0.0, 0.01), {0: GIB}, (cause, "C1"))
    after = report(share(0.5, 0.48, 0.52), {0: GIB}, ("C1",))
    assert found_of(before, after) == ("better", "better")
    assert f"{cause} is gone" in compare(before, after).sentence
    assert found_of(after, before) == ("worse", "worse")


@pytest.mark.parametrize("kinds", [("withheld", "fix"), ("fix", "withheld"), ("withheld",) * 2])
def test_without_a_verdict_nothing_is_guessed(kinds: tuple[str, str]) -> None:
    before, after = (
        dataclasses.replace(each, verdict=Verdict(kind, "So."))  # type: ignore[arg-type]
        for each, kind in zip((imbalanced(), bound()), kinds, strict=True)
    )
    found = compare(before, after)
    assert (found.outcome, found.direction) == ("cannot-tell", "unknown")
    names = [n for n, kind in zip(("BEFORE", "AFTER"), kinds, strict=True) if kind == "withheld"]
    assert f"the report of {' and '.join(names)} has no verdict" in found.sentence


def test_a_limit_is_about_the_second_recording_only() -> None:
    assert found_of(imbalanced(), bound(), 0.01) == ("as-predicted", "better")
    assert found_of(imbalanced(), bound(), 0.0099) == ("above-limit", "better")
    assert found_of(bound(), imbalanced(), 0.5) == ("worse", "worse")
    silent = dataclasses.replace(imbalanced(), verdict=Verdict("withheld", "So."))
    assert found_of(silent, bound(), 0.001) == ("above-limit", "unknown")
    assert found_of(silent, bound(), 0.5) == ("cannot-tell", "unknown")
    assert found_of(bound(), silent, 0.5) == ("cannot-tell", "unknown")
    unknown = bound(server=server(None, {0: GIB}))
    assert found_of(bound(), unknown, 0.5) == ("cannot-tell", "unknown")


def test_shares_of_different_kinds_give_way_to_the_expected_ones() -> None:
    before = report(share(0.9, 0.8, 0.95, "hardware sample"), {0: GIB})
    after = report(share(0.2, 0.1, 0.3), {0: GIB})
    found = compare(before, after)
    assert found.remote_share.before == found.remote_share.after == expected(0.5)
    assert found.direction == "same"
    assert any("hardware samples before, operand samples after" in note for note in found.notes)
    assert all(phase.remote_share.change is None for phase in found.phases[1:])


# --- what changed


def test_rates_are_per_second_of_cpu_time() -> None:
    found = compare(imbalanced(), bound())
    rates = {each.name: each.change for each in found.figures}
    pairs = {
        name: tuple(f.value if f is not None else None for f in (each.before, each.after))
        for name, each in rates.items()
    }
    assert pairs["compute threads"] == (4, 2)
    assert pairs["CPU time of the compute threads"] == pytest.approx((40 * SECOND, 20 * SECOND))
    assert pairs["moves per thread-second"] == pytest.approx((12 / 40, 0))
    assert pairs["page faults per thread-second"] == pytest.approx((48 / 40, 24 / 20))
    assert pairs["page migrations per thread-second"] == pytest.approx((2000 / 40, 2000 / 20))
    # of decoding: loading and idling are no work
    assert pairs["time lost per second of compute"] == pytest.approx((0.1, 0.1))


def test_hardly_any_cpu_time_has_no_rates() -> None:
    brief = bound(threads=(thread(5, {0: SECOND // 11}, moves=7),))
    rates = {each.name: each.change.after for each in compare(bound(), brief).figures}
    assert rates["moves per thread-second"] is None
    assert rates["compute threads"] is not None


def test_time_lost_needs_samples() -> None:
    found = compare(imbalanced(access=access("placement")), bound(access=None))
    lost = {each.name: each.change for each in found.figures}["time lost per second of compute"]
    assert (lost.before, lost.after) == (None, None)


def test_threads_match_by_role_and_cpu_time() -> None:
    before = bound(
        threads=(
            thread(1, {0: 5 * SECOND}),
            thread(2, {0: 9 * SECOND}),
            thread(3, {1: SECOND}, role="http"),
            thread(4, {1: 99 * SECOND}, tgid=1),  # of another process
        )
    )
    after = bound(
        threads=(
            thread(72, {0: SECOND}, role="other"),
            thread(70, {0: SECOND}),
            thread(71, {0: 3 * SECOND}, members=40),
            thread(69, {0: 2 * SECOND}),
        )
    )
    pairs = [
        (each.role, each.rank, each.before.tid if each.before else None,
         each.after.tid if each.after else None)
        for each in compare(before, after).threads
    ]  # fmt: skip
    assert pairs == [
        ("compute", 1, 2, 71),
        ("compute", 2, 1, 69),
        ("compute", 3, None, 70),
        ("http", 1, 3, None),
        ("other", 1, None, 72),
    ]


def test_layers_match_when_the_file_was_moved() -> None:
    def layers(paths: dict[str, int], node_bytes: dict[int, int]) -> tuple[LayerView, ...]:
        return tuple(
            LayerView(SERVER, path, number, 3, size, node_bytes, 0)
            for path, size in paths.items()
            for number in (0, 1, None)
        )

    before = bound(layers=layers({"/a/draft": 10, "/z/main": 99}, {0: 100}))
    after = bound(layers=layers({"/b/main": 99, "/c/draft": 10}, {0: 25, 1: 75}))
    found = compare(before, after).layers
    assert [(each.path, each.layer, each.bytes) for each in found] == [
        ("/b/main", 0, 99), ("/b/main", 1, 99), ("/b/main", None, 99),
        ("/c/draft", 0, 10), ("/c/draft", 1, 10), ("/c/draft", None, 10),
    ]  # fmt: skip
    assert {each.moved_share for each in found} == {0.75}


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        ({0: 10}, {0: 99}, 0.0),
        ({0: 10}, {1: 10}, 1.0),
        ({0: 10}, {0: 5, 1: 5}, 0.5),
        ({0: 1, 1: 1, 2: 2}, {0: 2, 1: 2, 2: 4, 3: 0}, 0.0),
        ({0: 10}, {}, None),
        ({}, {}, None),
    ],
)
def test_moved_share(before: dict[int, int], after: dict[int, int], moved: float | None) -> None:
    assert moved_share(before, after) == (None if moved is None else pytest.approx(moved))


def test_nodes_have_weights_time_and_free_memory() -> None:
    machine = MachineView("6.12.9", (node(0, free=GIB), node(1, "4-7")), 0)
    view = server(None, {0: 3 * GIB, 1: GIB}, compute_ns={1: 5}, weights_error_bytes=GIB // 4)
    found = compare(bound(), bound(machine=machine, server=view)).nodes
    assert [each.node for each in found] == [0, 1]
    zero = found[0]
    assert zero.weights_bytes.change == 2 * GIB
    assert zero.weights_bytes.high == pytest.approx(2.25 * GIB)
    assert zero.weights_share.change == pytest.approx(-0.25)
    assert (zero.weights_share.low, zero.weights_share.high) == pytest.approx((-0.3125, -0.1875))
    assert zero.compute_share.change == pytest.approx(-1.0)
    assert zero.free_bytes.change == -5 * GIB


def test_settings_say_how_the_server_was_run() -> None:
    old = imbalanced()
    process = dataclasses.replace(old.processes[0], policy="bind:0", argv=("a b", "$(x)"))
    found = compare(old, bound(processes=(process,)))
    pairs = {each.name: (each.before, each.after) for each in found.settings}
    assert pairs["memory policy"] == ("default", "bind:0")
    assert pairs["command"][1] == "'a b' '$(x)'"
    assert pairs["compute threads"] == ("4", "2")
    assert pairs["allowed CPUs"] == ("0-7", "0-7")


# --- what must not be compared


def with_nodes(*nodes: Any) -> Report:
    return bound(machine=MachineView("6.12.9", nodes, 0))


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (with_nodes(node(0)), "nodes 0, 1, AFTER with 0"),
        (with_nodes(node(0), node(2, "4-7")), "nodes 0, 1, AFTER with 0, 2"),
        (with_nodes(node(0), node(1, "4-15")), "node 1 has CPUs 4-7 in BEFORE and CPUs 4-15"),
        (with_nodes(node(0), node(1, "")), "CPUs 4-7 in BEFORE and no CPUs in AFTER"),
        (with_nodes(node(0), node(1, "4-7", distances={0: 32, 1: 10})), "other distances"),
        (with_nodes(node(0, total_bytes=32 * GIB), node(1, "4-7")), "16 GiB in BEFORE and 32 GiB"),
    ],
)
def test_two_machines_are_refused(other: Report, why: str) -> None:
    with pytest.raises(ComparisonError) as caught:
        compare(bound(), other)
    assert why in caught.value.why
    assert caught.value.exit_code == 4


def test_the_kernel_may_keep_a_little_more_memory() -> None:
    other = with_nodes(node(0, total_bytes=15 * GIB), node(1, "4-7", total_bytes=None))
    assert found_of(bound(), other) == ("same", "same")


@pytest.mark.parametrize("part", ["name", "type", "bytes", "count"])
def test_two_models_are_refused(part: str) -> None:
    tensors = list(bound().tensors)
    change_to: dict[str, Any] = {"name": "blk.3.other", "type": "Q4_0", "bytes": GIB}
    if part == "count":
        tensors.pop()
    else:
        tensors[3] = dataclasses.replace(tensors[3], **{part: change_to[part]})
    with pytest.raises(ComparisonError, match="two models") as caught:
        compare(bound(), bound(tensors=tuple(tensors)))
    assert "8 tensors of 1.0 GiB" in caught.value.why


def test_tensors_of_other_processes_and_other_paths_make_no_other_model() -> None:
    tensors = bound().tensors
    moved = tuple(dataclasses.replace(each, path="/elsewhere") for each in tensors)
    foreign = tuple(dataclasses.replace(each, tgid=1, name="x") for each in tensors)
    found = compare(bound(), bound(tensors=(*moved, *foreign)))
    assert (found.outcome, found.notes) == ("same", ())


def test_a_model_that_is_not_known_is_said_to_be_unchecked() -> None:
    found = compare(bound(), bound(tensors=()))
    assert any("could not be checked" in note for note in found.notes)


# --- recorded


def recorded(name: str) -> Report:
    with Trace.open(FIXTURES / name / "trace.arrow") as trace:
        return analyze_trace(trace)


def compared(before: str, after: str) -> Comparison:
    return compare(recorded(before), recorded(after))


def test_recorded_fix_is_better_and_its_undoing_worse() -> None:
    there = compared("S1", "S10")
    assert there.direction == "better"
    assert there.outcome in ("as-predicted", "better")
    assert there.remote_share.change == pytest.approx(-0.47, abs=0.05)
    assert [each.before.value for each in (there.nodes[0].weights_share,) if each.before] == [
        pytest.approx(1.0)
    ]
    back = compared("S10", "S1")
    assert (back.outcome, back.direction) == ("worse", "worse")


def test_recordings_of_two_machines_are_refused() -> None:
    with pytest.raises(ComparisonError, match="nodes 0, 1, AFTER with 0"):
        compared("S1", "S12")


def test_a_report_has_the_figures_that_are_compared() -> None:
    times = [{0: 4 * SECOND, 1: SECOND}, {1: 3 * SECOND}]
    later = Memory({0: NodeMemory(8 * GIB, GIB), 1: NodeMemory(8 * GIB, GIB)}, {MOVED: 130})
    row = {"t_ns": 9 * SECOND, "name": "memory", "value": json.dumps(later.to_json())}
    world = World(
        weights={0: 48 << 20, 1: 16 << 20}, times=times, vmstat={MOVED: 100},
        extra=[("system", [row])],
    )  # fmt: skip
    found = world.report().server
    assert found is not None
    assert (found.tgid, found.weights_bytes) == (1000, {0: 48 << 20, 1: 16 << 20})
    assert found.compute_ns == {0: 4 * SECOND, 1: 4 * SECOND}
    assert found.remote_share == found.expected_share == expected(0.5)
    assert found.migrated_pages == 30
    assert compare(world.report(), world.report()).direction == "same"
