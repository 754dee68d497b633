"""The cost model: worked examples, its bounds, and published measurements."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numatrace.analyze.plans.cost import Machine, Range, State, remote_share, slowdown, speedup
from tests.unit.cost_cases import Case, bound, cases, machine, near, one_node, spread

ROOT = Path(__file__).resolve().parents[2]
CASES = tuple(cases())
EXACT = Range(1.0, 1.0)
SHARES = st.lists(st.floats(0.01, 1), min_size=2, max_size=4)


def slow(on: Machine, state: State) -> Range:
    return slowdown(on, state)


def test_the_three_limits_of_the_formula() -> None:
    """max(c·(1 + r(λ - 1)), r·β, N·m), each limit in turn the largest; c is 0.5 to 1.5."""
    equal = machine(2, EXACT, EXACT)
    assert slow(equal, near()).high == pytest.approx(1.5 * 1.2)
    assert slow(equal, near(instances=2)) == pytest.approx((1.0, 1.5))
    assert slow(equal, one_node()).low == pytest.approx(2.0)
    far = machine(2, EXACT, Range(5.0, 5.0))
    assert slow(far, spread()).low == pytest.approx(0.5 * 3.0)
    assert slow(far, spread()).high == pytest.approx(1.5 * 3.0 * 1.2)
    narrow = machine(2, Range(8.0, 8.0), EXACT)
    assert slow(narrow, spread()).low == pytest.approx(0.5 * 8.0)


def test_the_worked_example_of_skylake() -> None:
    """With 90.9 GB/s near and 34.4 GB/s over the link, and memory the limit, in units of a bound
    socket: one node's memory with all threads 0.76, interleaved 1.51, local 2.0."""
    beta = 90.9 / 34.4
    skylake = machine(2, Range(beta, beta), EXACT)
    memory = 2.0  # of a bound socket, whose memory serves one half of what two could
    assert memory / slow(skylake, bound()).low == pytest.approx(1.0)
    corners = [memory / (2 * 0.5 * beta), memory / (0.5 * beta)]
    assert corners == pytest.approx([0.76, 1.51], abs=0.01)
    assert slow(skylake, one_node()).high >= memory / 0.76
    assert slow(skylake, spread()).low <= memory / 1.51 <= slow(skylake, spread()).high


@given(SHARES, SHARES)
def test_the_remote_share_is_the_sum_of_what_is_not_local(t: list[float], w: list[float]) -> None:
    nodes = min(len(t), len(w))
    threads = {node: part / sum(t[:nodes]) for node, part in enumerate(t[:nodes])}
    weights = {node: part / sum(w[:nodes]) for node, part in enumerate(w[:nodes])}
    expected = 1 - sum(threads[node] * weights[node] for node in threads)
    assert remote_share(machine(nodes), State(threads, weights, 16)) == pytest.approx(expected)
    assert remote_share(machine(nodes), State(threads, weights, 16, own=1.0)) == pytest.approx(0)


@given(SHARES, st.sampled_from([one_node, spread, near]))
def test_nothing_gains_more_than_was_seen(w: list[float], after: object) -> None:
    nodes = len(w)
    weights = {node: part / sum(w) for node, part in enumerate(w)}
    before = State(dict.fromkeys(range(nodes), 1 / nodes), weights, 16 * nodes)
    low, high = speedup(machine(nodes), before, after(nodes))  # type: ignore[operator]
    assert 1 / (0.9 * nodes) <= low <= high <= 0.9 * nodes


def test_a_change_and_its_reverse_are_each_others_inverse() -> None:
    for one, other in ((one_node(), spread()), (spread(), near()), (one_node(), bound())):
        there, back = speedup(machine(), one, other), speedup(machine(), other, one)
        unclipped = there.high < 1.8 and back.high < 1.8
        assert not unclipped or there.low * back.high == pytest.approx(0.95 * 1.05)
        assert there.middle > 0.95


def test_fewer_cores_cost_where_they_are_the_limit() -> None:
    fast = np.ones(2)
    assert slow(machine(), State({0: 1.0}, {0: 1.0}, 4)).high == pytest.approx(1.5 * 32 / 4)
    few = Machine((0, 1), fast * 2, (fast, fast), machine().latency, machine().link)
    assert few.core_bound.high > machine().core_bound.high


# --- published measurements


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.source}: {case.what}")
def test_no_published_gain_is_predicted_to_be_a_loss(case: Case) -> None:
    assert not case.wrong_way


def test_four_of_five_published_measurements_are_within_the_predicted_range() -> None:
    said = [case for case in CASES if case.predicted is not None]
    assert len(said) >= 30
    assert sum(case.inside for case in said) >= 0.8 * len(said)


def test_the_page_of_the_guide_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/gen-model"), "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
