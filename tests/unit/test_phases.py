"""Phases of servers that did what they were told when: the plan is the oracle."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numatrace.analyze.phases import dwell as phase_dwell
from numatrace.analyze.phases import events as phase_events
from numatrace.analyze.phases import samples as phase_samples
from numatrace.analyze.phases import ticks as phase_ticks
from numatrace.analyze.phases.phases import Phases, PhaseSpan, Survey
from numatrace.analyze.rows import split
from numatrace.model.access import HOW
from tests.unit.phase_server import (
    BEGAN,
    GIB,
    MIB,
    MODEL,
    MS,
    PID,
    SECOND,
    WEIGHTS_AT,
    Plan,
    Server,
    batch,
    phases_of,
    shares,
)

PLAN: Plan = [
    ("load", 3), ("idle", 1.5), ("request", 0.02), ("prompt", 4), ("decode", 5), ("idle", 1),
    ("request", 0.02), ("prompt", 2), ("decode", 4), ("request", 0.02), ("prompt", 4),
    ("decode", 4), ("idle", 1),
]  # fmt: skip
LONG_PLAN: Plan = [(what, 3 * seconds) for what, seconds in PLAN]
SERVERS: dict[str, tuple[Server, Plan]] = {
    "8 threads": (Server(), PLAN),
    "64 threads, a large model, few samples": (
        Server(64, 20 * MS, 5, 0.15, weight_bytes=40 * GIB, layers=80), LONG_PLAN
    ),
    "a token a second": (Server(64, 20 * MS, 20, 1, weight_bytes=400 * GIB, layers=80), LONG_PLAN),
    "a tiny model": (Server(2, 2 * MS, 0.6, 0.008, weight_bytes=60 * MIB, layers=8), PLAN),
    "one thread": (Server(1), PLAN),
    "the same code for both": (Server(same_code=True), PLAN),
    "private, the same code": (Server(is_mapped=False, same_code=True), PLAN),
    "private, prompts that hardly read weights": (Server(is_mapped=False, prompt_reads=0.1), PLAN),
    "attached while it loads": (Server(is_born=False), PLAN),
}  # fmt: skip


@pytest.mark.parametrize(("server", "plan"), SERVERS.values(), ids=SERVERS)
def test_every_phase_is_found(server: Server, plan: Plan) -> None:
    found = shares(phases_of(server.batches(plan)), plan)
    for phase in ("load", "prompt", "decode", "idle"):
        assert found[phase, phase] >= 0.9, found
        wrong = [found.get((phase, name), 0.0) for name in Phases.names if name != "compute"]
        assert sum(wrong) - found[phase, phase] <= 0.03, found


def test_what_one_thread_does_for_a_request_is_not_loading() -> None:
    plan: Plan = [
        ("load", 3),
        ("idle", 2),
        *[("request", 0.2), ("prompt", 4), ("decode", 6), ("idle", 1)] * 3,
    ]
    found = shares(phases_of(Server().batches(plan)), plan)
    assert found["request", "load"] == 0
    assert found["load", "load"] > 0.95


# --- claims that must not be made


def test_prompts_alone_are_not_decoding() -> None:
    """A server of embeddings: one pass after the other, all of a kind."""
    server = Server(threads=16, prompt_pass_s=0.25, weight_bytes=200 * MIB, layers=12)
    plan: Plan = [("prompt", 20), ("idle", 1), ("prompt", 30)]
    found = shares(phases_of(server.batches(plan)), plan)
    assert found["prompt", "decode"] == 0
    assert found["prompt", "prompt"] == 0, "nothing to compare with either"
    assert found["prompt", "compute"] > 0.98


def test_tokens_alone_are_decoding_if_the_weights_pass_fast_enough() -> None:
    plan: Plan = [("decode", 10), ("idle", 1), ("decode", 10)]
    fast = Server(token_pass_s=0.1)
    assert shares(phases_of(fast.batches(plan)), plan)["decode", "decode"] > 0.95
    emulated = replace(fast, weight_bytes=7 * MIB)
    phases = phases_of(emulated.batches(plan))
    assert shares(phases, plan)["decode", "compute"] > 0.98
    [note] = phases.notes
    assert "all passes over the weights take about as long" in note


def test_private_weights_alone_are_not_known_well_enough() -> None:
    plan: Plan = [("decode", 10)]
    found = shares(phases_of(Server(is_mapped=False).batches(plan)), plan)
    assert found["decode", "compute"] > 0.98


@pytest.mark.parametrize("seed", range(3))
def test_tokens_that_slow_down_are_no_prompt(seed: int) -> None:
    plan: Plan = [("long", 20), ("idle", 1), ("long", 12)]
    found = shares(phases_of(Server(seed=seed).batches(plan)), plan)
    assert found["long", "prompt"] == 0, found


def test_a_few_samples_claim_nothing() -> None:
    server = Server(threads=2, period_ns=52 * MS)
    plan: Plan = [("idle", 1), ("prompt", 1), ("decode", 1)]
    phases = phases_of(server.batches(plan))
    assert {span.phase for span in phases.spans} <= {"compute", "idle"}
    assert phases.notes


@pytest.mark.parametrize("seed", range(6))
def test_wrong_claims_are_few_whatever_the_server_does(seed: int) -> None:
    choose = random.Random(seed)
    token_pass_s = 10 ** choose.uniform(-2, -0.5)
    pass_s = token_pass_s * 10 ** choose.uniform(1, 1.8)
    threads = choose.choice([2, 8, 32])
    server = Server(
        threads=threads, period_ns=choose.choice([2, 5, 10, 20]) * MS, prompt_pass_s=pass_s,
        token_pass_s=token_pass_s, weight_bytes=int(token_pass_s * 5e9 * min(threads, 16)),
        layers=choose.choice([8, 32, 80]), is_mapped=choose.random() < 0.6,
        same_code=choose.random() < 0.4, prompt_reads=choose.choice([0.05, 0.2, 0.5]), seed=seed,
    )  # fmt: skip
    plan: Plan = [("load", choose.uniform(0.5, 4)), ("idle", choose.uniform(0.6, 2))]
    for _ in range(4):
        plan += [("prompt", pass_s * choose.choice([0.3, 1, 2])), ("decode", token_pass_s * 60)]
        plan += [("idle", choose.uniform(0.6, 2))] * choose.randint(0, 1)
    found = shares(phases_of(server.batches(plan)), plan)
    took = {what: sum(seconds for each, seconds in plan if each == what) for what, _ in plan}
    wrong = sum(
        took[what] * share for (what, name), share in found.items() if name not in (what, "compute")
    )
    assert wrong <= 0.05 * sum(took.values()), found


# --- what holds of any trace

times = st.one_of(
    st.integers(0, 2000 * SECOND), st.sampled_from([0, 1, 1 << 62, (1 << 63) + 1, (1 << 64) - 1])
)
addresses = st.one_of(
    st.none(), st.integers(0, (1 << 64) - 1), st.integers(WEIGHTS_AT, WEIGHTS_AT + MIB)
)
ids = st.sampled_from([PID, PID + 1, PID + 2, 0, -1, (1 << 31) - 1])
accesses = st.fixed_dictionaries(
    {
        "t_ns": times, "tgid": ids, "tid": ids, "ip": addresses, "addr": addresses,
        "access": st.integers(0, 255), "name": st.sampled_from(["operand", "pebs", "", "x"]),
        "time_ns": st.one_of(st.none(), st.integers(0, (1 << 64) - 1), st.just(5 * MS)),
        "detail": st.sampled_from([*HOW, "", "kernel panic"]),
    }
)  # fmt: skip
other_rows = st.one_of(
    st.tuples(st.just("oncpu"), st.fixed_dictionaries(
        {"t_ns": times, "tgid": ids, "tid": ids, "oncpu_ns": st.integers(0, (1 << 64) - 1)})),
    st.tuples(st.sampled_from(["exec", "fork"]), st.fixed_dictionaries(
        {"t_ns": times, "tgid": ids, "tid": ids})),
    st.tuples(st.just("map"), st.fixed_dictionaries(
        {"t_ns": times, "tgid": ids, "addr": addresses, "bytes": addresses, "offset": addresses,
         "inode": st.integers(0, 9), "path": st.sampled_from([MODEL, "", "/x"]),
         "detail": st.sampled_from(["r--s", "r-xp", ""])})),
    st.tuples(st.just("tensor_at"), st.fixed_dictionaries(
        {"t_ns": times, "tgid": ids, "addr": addresses, "bytes": addresses,
         "name": st.sampled_from(["blk.0.x", "cache_k_l0", ""]),
         "path": st.sampled_from([MODEL, ""])})),
)  # fmt: skip


@given(st.lists(accesses, max_size=60), st.lists(other_rows, max_size=12), st.integers(1, 3))
@settings(deadline=None, max_examples=150)
def test_spans_part_the_recording_whatever_its_rows_say(
    samples: list[dict[str, object]], others: list[tuple[str, dict[str, object]]], often: int
) -> None:
    batches = [batch("access", samples * often)] if samples else []
    batches += [batch(kind, [row]) for kind, row in others]
    phases = phases_of(batches)
    check(phases)
    timed = [row["t_ns"] for row in samples]
    timed += [row["t_ns"] for kind, row in others if kind in ("oncpu", "fork", "exec")]
    sound = [each for each in timed if 0 < each < 1 << 62]
    if sound:
        assert (phases.spans[0].start_ns, phases.spans[-1].end_ns) == (min(sound), max(sound))
    else:
        assert phases.spans == ()


def check(phases: Phases) -> None:
    """Spans are in order, without gap or overlap, and `at` says the same."""
    for one, other in pairwise(phases.spans):
        assert one.end_ns == other.start_ns
        assert one.phase != other.phase, "neighbours differ, or they were one"
    for span in phases.spans:
        assert span.phase in Phases.names
        assert span.start_ns < span.end_ns or len(phases.spans) == 1
        inside = np.array([span.start_ns, (span.start_ns + span.end_ns) // 2], np.uint64)
        assert {Phases.names[each] for each in phases.at(inside)} == {span.phase}
    if phases.spans:
        last = phases.spans[-1]
        edges = [0, phases.spans[0].start_ns - 1, last.end_ns, last.end_ns + 1, (1 << 64) - 1]
        found = [Phases.names[each] for each in phases.at(np.array(edges, np.uint64))]
        assert found == ["idle", "idle", last.phase, "idle", "idle"]
    assert all(isinstance(note, str) for note in phases.notes)


def test_all_batches_at_once_or_one_by_one_are_the_same() -> None:
    rows = Server().batches(PLAN)
    assert phases_of(rows) == phases_of(rows)
    assert phases_of([rows[0], rows[1], *reversed(rows[2:])]) == phases_of(rows)


def test_nothing_recorded_is_nothing() -> None:
    assert Survey().finish() == Phases()
    assert Phases().at(np.array([1, 2], np.uint64)).tolist() == [4, 4]


def test_times_outside_of_the_spans_are_idle() -> None:
    phases = Phases((PhaseSpan(10, 20, "load"), PhaseSpan(20, 30, "decode")))
    assert phases.at(np.array([9, 10, 19, 20, 30, 31], np.uint64)).tolist() == [4, 0, 0, 2, 2, 4]
    assert phases.at(np.zeros(0, np.uint64)).dtype == np.uint8


# --- without samples


def test_without_samples_only_work_and_rest_are_told_apart() -> None:
    rows = [
        {"t_ns": (100 + second) * SECOND, "tgid": PID, "tid": PID, "oncpu_ns": busy * SECOND}
        for second, busy in enumerate([0, 0, 0, 2, 2, 2, 0, 0, 0])
    ]
    phases = phases_of([batch("oncpu", rows)])
    assert [span.phase for span in phases.spans] == ["idle", "compute", "idle"]
    work = phases.spans[1]
    assert abs(work.start_ns - 102 * SECOND) <= 2 * SECOND
    assert abs(work.end_ns - 105 * SECOND) <= 2 * SECOND
    assert phases.notes == ("no accesses were sampled, only the time on CPUs is known",)


def test_hardware_samples_tell_work_and_rest_apart() -> None:
    """They stand for no time, so it is how often they come that counts."""
    rows = [
        {"t_ns": start + at * MS, "tgid": PID, "tid": PID + at % 4, "name": "ibs", "ip": 5,
         "addr": WEIGHTS_AT + at * 4096, "access": 0, "detail": "local DRAM", "weight": 100}
        for start in (BEGAN, BEGAN + 9 * SECOND) for at in range(4000)
    ]  # fmt: skip
    phases = phases_of([batch("access", rows)])
    assert [span.phase for span in phases.spans] == ["compute", "idle", "compute"]
    assert abs(phases.spans[1].end_ns - BEGAN - 9 * SECOND) < SECOND // 10


# --- memory


def test_memory_does_not_grow_with_the_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = phase_samples.Thinned(limit=2000)
    for second in range(40):
        rows = [
            {"t_ns": second * SECOND + at * MS, "tgid": PID, "tid": PID + at % 8, "ip": at,
             "name": "operand", "access": 0, "detail": "operand", "addr": at, "time_ns": 8 * MS}
            for at in range(1000)
        ]  # fmt: skip
        kept.add(split(batch("access", rows))["access"])
        assert sum(len(part) for part in kept._parts) <= 2000
    samples = kept.all()
    assert (np.diff(samples.t_ns) >= 0).all()
    # Evenly over time and threads, each for as many as it stands for.
    assert samples.cpu_ns.sum() == pytest.approx(40 * 1000 * 8 * MS, rel=0.1)
    assert samples.apart_ns == 4 * MS, "the clock ticks as before, however many were dropped"
    for groups in (samples.t_ns // (10 * SECOND), samples.tid):
        counts = np.unique(groups, return_counts=True)[1]
        assert counts.min() > 0.8 * counts.mean()


def test_a_thinned_recording_has_the_same_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Server().batches(PLAN)
    monkeypatch.setattr(phase_samples.Thinned.__init__, "__defaults__", (16_000,))
    found = shares(phases_of(rows), PLAN)
    for phase in ("load", "prompt", "decode", "idle"):
        assert found[phase, phase] >= 0.9, found


def test_ticks_and_areas_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = phase_ticks.Ticks(limit=10)
    rows = [{"t_ns": at * SECOND, "oncpu_ns": SECOND} for at in range(1, 500)]
    ticks.take(split(batch("oncpu", rows))["oncpu"])
    assert len(ticks._sums) <= 10
    assert sum(ticks._sums.values()) == 499 * SECOND
    [(start, end)] = ticks.busy()
    assert start <= SECOND
    assert end >= 499 * SECOND
    monkeypatch.setattr(phase_events, "FILES", 5)
    events = phase_events.Events()
    for at in range(1, 40):
        events.take(
            split(
                batch(
                    "tensor_at",
                    [
                        {
                            "t_ns": 1,
                            "tgid": PID,
                            "addr": at << 20,
                            "bytes": 4096,
                            "name": "w",
                            "path": MODEL,
                        }
                    ],
                )
            )
        )
        events.take(split(batch("map", [
            {"t_ns": 1, "tgid": PID, "addr": at << 20, "bytes": 4096, "inode": at, "path": MODEL,
             "offset": 0, "detail": "r--s"}])))  # fmt: skip
    assert len(events.weights()) == 10


# --- pace


@pytest.mark.parametrize("pass_s", [0.01, 0.4, 1.5, 6.0])
@pytest.mark.parametrize("threads", [1, 16])
def test_bounds_of_a_pass_hold_its_time(pass_s: float, threads: int) -> None:
    """A stretch of a minute in which 200 ticks a second hit a place that moves steadily."""
    random_ = np.random.default_rng(1)
    t_ns = np.repeat(np.arange(0, 60 * SECOND, 5 * MS), threads)
    spot = t_ns / (pass_s * SECOND) % 1.0
    addr = (spot * GIB).astype(np.uint64) + random_.integers(0, 8 * MIB, len(t_ns)).astype(
        np.uint64
    )
    found = phase_dwell.pace(t_ns, addr, np.zeros(len(t_ns), np.int64), 2.5 * MS)
    assert found.low <= pass_s * SECOND <= found.high
    if pass_s >= 0.4:
        assert found.high <= 4 * pass_s * SECOND
        assert found.low >= 0.4 * pass_s * SECOND


def test_a_part_of_a_pass_has_no_pace() -> None:
    t_ns = np.arange(0, 10 * SECOND, 5 * MS)
    addr = (
        (t_ns / (200 * SECOND) * GIB).astype(np.uint64) // np.uint64(64 * MIB) * np.uint64(64 * MIB)
    )
    found = phase_dwell.pace(t_ns, addr, np.zeros(len(t_ns), np.int64), 2.5 * MS)
    assert found == phase_dwell.UNKNOWN
