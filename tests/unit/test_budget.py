"""The overhead budget as pure functions, against a simulated machine."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numatrace.record.sampling.budget import (
    AIM,
    LEARN_NS,
    LONGER,
    MAX_HZ,
    MIN_HZ,
    SHORTER,
    START_PERIOD_NS,
    Bounds,
    Costs,
    Load,
    fault_records,
    first_period,
    interrupt_cpus,
    next_period,
    overhead,
    sampling_cpus,
    scattered,
)

NS = 1_000_000_000
BOUNDS = Bounds(NS // MAX_HZ, NS // MIN_HZ)
COSTS = Costs(tick_ns=4_000, program_ns=1_000, reader_ns=10_000)


def load_at(period_ns: float, used_cpus: float, fixed_cpus: float) -> Load:
    """A machine on which every CPU's clock ticks, and hits the followed threads when they run."""
    return Load(used_cpus, used_cpus * NS / period_ns, fixed_cpus * 0.7, fixed_cpus * 0.3)


def settle(
    used_cpus: float, fixed_cpus: float, costs: Costs, budget: float, decisions: int = 40
) -> float:
    period: float = START_PERIOD_NS
    for _ in range(decisions):
        load = load_at(period, used_cpus, fixed_cpus)
        period = next_period(int(period), load, costs, budget, BOUNDS)
    return period


costs = st.builds(
    Costs,
    tick_ns=st.floats(500, 30_000),
    program_ns=st.floats(200, 5_000),
    reader_ns=st.floats(500, 200_000),
)


@given(
    used_cpus=st.floats(0.01, 256),
    fixed_cpus=st.floats(0, 0.05),
    costs=costs,
    budget=st.floats(0.001, 0.2),
)
def test_it_settles_within_the_budget_or_at_the_slowest(
    used_cpus: float, fixed_cpus: float, costs: Costs, budget: float
) -> None:
    period = settle(used_cpus, fixed_cpus, costs, budget)
    assert BOUNDS.shortest_ns <= period <= BOUNDS.longest_ns
    spent = overhead(load_at(period, used_cpus, fixed_cpus), costs)
    assert spent <= budget or period == BOUNDS.longest_ns
    interrupts = interrupt_cpus(load_at(period, used_cpus, fixed_cpus), costs)
    assert interrupts <= budget * 1.001 or period == BOUNDS.longest_ns
    # And does not waste it: half of what is left for samples is used, or half of what interrupts
    # may take, or it ticks its fastest.
    whole = max(1.0, used_cpus)
    room = AIM * budget * whole - fixed_cpus
    used = sampling_cpus(load_at(period, used_cpus, fixed_cpus), costs)
    if room > 0 and period < BOUNDS.longest_ns:
        fastest = period == pytest.approx(BOUNDS.shortest_ns)
        assert used >= room / 2 or interrupts >= AIM * budget / 2 or fastest


@given(
    used_cpus=st.floats(0.01, 256),
    fixed_cpus=st.floats(0, 0.05),
    costs=costs,
    budget=st.floats(0.001, 0.2),
    period_ns=st.integers(BOUNDS.shortest_ns, BOUNDS.longest_ns),
)
def test_one_decision_never_leaps(
    used_cpus: float, fixed_cpus: float, costs: Costs, budget: float, period_ns: int
) -> None:
    load = load_at(period_ns, used_cpus, fixed_cpus)
    chosen = next_period(period_ns, load, costs, budget, BOUNDS)
    assert period_ns / SHORTER - 1 <= chosen <= period_ns * LONGER + 1


def test_a_busier_server_affords_more_samples() -> None:
    one, many = (cpus * NS / settle(cpus, 0.005, COSTS, 0.01) for cpus in (1, 64))
    assert many > 4 * one


def test_many_threads_that_wait_for_one_another_lose_no_more_than_one() -> None:
    """As a share of 256 CPUs it could be 2.5 CPUs of interrupts, each a halt for all."""
    costs = Costs(tick_ns=1_000, program_ns=500, reader_ns=5_000)
    load = load_at(settle(256, 0.005, costs, 0.01), 256, 0.005)
    assert interrupt_cpus(load, costs) <= 0.01
    assert load.samples > 5_000


def test_an_idle_server_keeps_the_period() -> None:
    idle = Load(0.0, 0.0, 0.006, 0.001)
    assert next_period(START_PERIOD_NS, idle, COSTS, 0.01, BOUNDS) == START_PERIOD_NS


def test_small_changes_are_not_worth_it() -> None:
    period = settle(8, 0.005, COSTS, 0.01)
    load = load_at(period, 8.4, 0.005)
    assert next_period(int(period), load, COSTS, 0.01, BOUNDS) == int(period)


def test_over_the_budget_is_never_a_small_change() -> None:
    """At 1 % over the budget, within the dead band, it still gives way."""
    load = Load(1.0, 0.0101 * NS / 15_000, 0.0, 0.0)
    assert overhead(load, COSTS) > 0.01
    assert next_period(START_PERIOD_NS, load, COSTS, 0.01, BOUNDS) > START_PERIOD_NS


def test_at_the_slowest_it_stays() -> None:
    """Nothing is gained by restarting the clocks, however far over the budget it is."""
    period = int(BOUNDS.longest_ns)
    for near in (period, scattered(period, BOUNDS, random.Random(1))):
        load = load_at(near, 1.0, 0.05)
        assert overhead(load, COSTS) > 0.01
        assert next_period(near, load, COSTS, 0.01, BOUNDS) == near


@given(period_ns=st.floats(BOUNDS.shortest_ns, BOUNDS.longest_ns), seed=st.integers(0, 1000))
def test_periods_are_primes_of_microseconds_close_by(period_ns: float, seed: int) -> None:
    chosen = scattered(period_ns, BOUNDS, random.Random(seed))
    micros, rest = divmod(chosen, 1000)
    assert rest == 0
    assert micros > 1
    assert all(micros % divisor for divisor in range(2, int(micros**0.5) + 1))
    assert chosen == pytest.approx(period_ns, rel=0.05, abs=40_000)


def test_the_first_period_is_one_of_them() -> None:
    micros = START_PERIOD_NS // 1000
    assert all(micros % divisor for divisor in range(2, int(micros**0.5) + 1))


@given(costs=costs, budget=st.floats(0.001, 0.5), cpus=st.integers(1, 512))
def test_to_begin_with_new_code_is_within_the_budget_too(
    costs: Costs, budget: float, cpus: int
) -> None:
    """On one busy CPU, with nothing else to pay: unless that is slower than the slowest."""
    period = first_period(costs, budget, BOUNDS, cpus)
    all_busy = load_at(period, cpus, 0.0)
    assert interrupt_cpus(all_busy, costs) <= budget or period == BOUNDS.longest_ns
    assert START_PERIOD_NS <= period <= BOUNDS.longest_ns
    new = Costs(costs.tick_ns, costs.program_ns, LEARN_NS)
    assert overhead(load_at(period, 1.0, 0.0), new) <= budget or period == BOUNDS.longest_ns


def test_while_code_is_new_the_clocks_are_slow() -> None:
    period = settle(2.0, 0.005, COSTS, 0.01)
    load = load_at(period, 2.0, 0.005)
    learning = replace(load, learning_cpus=0.01)
    assert overhead(learning, COSTS) == pytest.approx(overhead(load, COSTS) + 0.005)
    slower = next_period(int(period), learning, COSTS, 0.01, BOUNDS)
    assert slower > 1.5 * period
    # As it ends by itself, they come back.
    after = load_at(slower, 2.0, 0.005)
    assert next_period(int(slower), after, COSTS, 0.01, BOUNDS) < slower


@given(used_cpus=st.floats(0, 256), budget=st.floats(0.001, 0.5), most=st.integers(1, 100_000))
def test_fault_records_stay_within_their_share(used_cpus: float, budget: float, most: int) -> None:
    load = Load(used_cpus, 0.0, 0.0, 0.0)
    allowed = fault_records(load, budget, most)
    assert 0 < allowed <= most
    assert allowed * 400e-9 <= 0.2 * budget * max(1.0, used_cpus) + 1e-9
