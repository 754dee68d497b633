"""What a cause costs: from samples where there are some, else from shares and λ, with a range."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numatrace.analyze.causes.lost import added, capped, remote_lost, share_of_time
from numatrace.analyze.samples.ratios import MEASURED, SLIT
from numatrace.model.measured import Figure, RatioView

SECOND = 1_000_000_000
shares = st.floats(0.0, 1.0)


def situation(times, weights, ratio=2.0, basis=SLIT, measured=None, lost=(0.0, 0.0)):
    total = sum(times.values())
    local = sum(times[n] / total * weights.get(n, 0.0) for n in times)
    return SimpleNamespace(
        remote=measured or Figure(1.0 - local, "share", "model"),
        measured=measured,
        measured_lost=lost,
        compute_ns=times,
        compute_parts={node: ns / total for node, ns in times.items()},
        weights=SimpleNamespace(parts=weights),
        ratios=SimpleNamespace(of=lambda a, b: RatioView(a, b, ratio, "model", basis)),
    )


@given(shares, shares, st.floats(1.0, 4.0))
def test_without_samples_it_is_time_by_remote_share_by_what_distance_adds(away, held, ratio):
    times = {0: round((1 - away) * SECOND), 1: round(away * SECOND) + 1}
    now = situation(times, {0: held, 1: 1 - held}, ratio)
    lost = remote_lost(now)
    remote = now.remote.value
    assert lost.value == pytest.approx(sum(times.values()) * remote * (1 - 1 / ratio), abs=1)
    assert lost.high == pytest.approx(lost.value, abs=1)
    assert 0 <= lost.low <= lost.value / 2 + 1


def test_a_ratio_that_was_measured_leaves_less_doubt():
    times, weights = {0: SECOND, 1: SECOND}, {0: 1.0}
    guessed = remote_lost(situation(times, weights))
    sampled = remote_lost(situation(times, weights, basis=MEASURED))
    assert guessed.value == sampled.value
    assert guessed.low < sampled.low


def test_samples_decide_where_there_are_some_and_waiting_is_the_upper_end():
    share = Figure(0.5, "share", "operand sample", 0.4, 0.6)
    now = situation({0: SECOND, 1: SECOND}, {0: 1.0}, measured=share, lost=(0.1, 0.25))
    lost = remote_lost(now)
    assert (lost.value, lost.source) == (pytest.approx(0.2 * SECOND), "operand sample")
    assert lost.high == pytest.approx(2 * SECOND * 0.25 * 0.6 / 0.5)
    assert lost.low < lost.value * 0.8


def test_nothing_remote_or_nothing_known():
    assert remote_lost(situation({0: SECOND}, {0: 1.0})).value == 0
    now = situation({0: SECOND}, {0: 1.0})
    now.remote = None
    assert remote_lost(now) is None


def test_sums_and_shares():
    one, two = Figure(2.0, "ns", "model", 1.0, 3.0), Figure(4.0, "ns", "event")
    assert added(one, None) == one
    assert added(None, None) is None
    assert added(one, two) == Figure(6.0, "ns", "event", 5.0, 7.0)
    now = situation({0: 5}, {0: 1.0})
    assert share_of_time(now, added(one, two)) == (1.0, 1.0, 1.0)
    assert capped(now, added(one, two)) == Figure(5.0, "ns", "event", 5.0, 5.0)
    assert share_of_time(now, one) == (0.4, 0.2, 0.6)
