"""CPU time, moves and worker slots of threads; expected remote shares."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numatrace.analyze.samples.shares import figure, remote_share
from tests.unit.test_analyze_world import MIB, SECOND, SERVER, World


def sched(kind: str, tid: int, t_ns: int, **columns: object) -> tuple[str, list]:
    row = {"t_ns": t_ns, "tgid": SERVER, "tid": tid, "cpu": 0, "node": 0, **columns}
    return kind, [row]


def born(tid: int, t_ns: int) -> tuple[str, list]:
    return sched("fork", tid, t_ns, ptgid=SERVER, ptid=SERVER)


def oncpu(tid: int, t_ns: int, oncpu_ns: int, node: int = 0) -> tuple[str, list]:
    return "oncpu", [{"t_ns": t_ns, "tgid": SERVER, "tid": tid, "node": node, "oncpu_ns": oncpu_ns}]


def test_moves_and_what_balancing_did_of_them() -> None:
    extra = [sched("move", SERVER, 100 + n, from_node=1) for n in range(23)]
    extra += [sched("balance", SERVER, 200 + n, from_node=1, access=n) for n in range(3)]
    thread = World(extra=extra).report().threads[0]
    assert (thread.tid, thread.moves, thread.balance_moves) == (SERVER, 23, 2)


def test_workers_that_are_made_anew_for_every_token_are_one_slot_each() -> None:
    extra: list[tuple[str, list]] = []
    for token in range(20):
        tids = [2000 + 3 * token + n for n in range(3)]
        begin = 100 * (token + 1)
        extra += [born(tid, begin + n) for n, tid in enumerate(tids)]
        extra += [oncpu(tid, begin + 50, SECOND + n, node=n % 2) for n, tid in enumerate(tids)]
        extra += [sched("exit", tid, begin + 60) for tid in tids]
    report = World(times=[], extra=extra).report()
    slots = [thread for thread in report.threads if thread.members > 1]
    assert [(thread.tid, thread.members) for thread in slots] == [
        (2002, 20),
        (2001, 20),
        (2000, 20),
    ]
    assert [thread.oncpu_ns for thread in slots] == [
        {0: 20 * (SECOND + 2)},
        {1: 20 * (SECOND + 1)},
        {0: 20 * SECOND},
    ]
    assert {thread.role for thread in slots} == {"compute"}
    assert report.findings[0].cause == "C1"


def test_time_that_is_read_after_a_thread_ended_still_counts_for_its_slot() -> None:
    extra = [born(2000, 10), sched("exit", 2000, 20), born(2001, 30), sched("exit", 2001, 40)]
    extra += [oncpu(2000, 50, 5 * SECOND), oncpu(2001, 50, 6 * SECOND)]
    threads = World(times=[], extra=extra).report().threads
    assert [(t.tid, t.members, t.oncpu_ns) for t in threads] == [(2000, 2, {0: 11 * SECOND})]


def test_a_process_that_is_forked_is_no_slot() -> None:
    row = {"t_ns": 10, "tgid": 2000, "tid": 2000, "ptgid": SERVER, "ptid": SERVER}
    report = World(extra=[("fork", [row]), ("fork", [{**row, "t_ns": 20}])]).report()
    assert all(thread.members == 1 for thread in report.threads)


def test_a_row_without_a_thread_is_unattributed() -> None:
    report = World(extra=[("move", [{"t_ns": 3, "tgid": SERVER, "node": 0}])]).report()
    loss = next(loss for loss in report.losses if loss.family == "sched")
    assert loss.unattributed == 1


@pytest.mark.parametrize(
    ("times", "weights", "share"),
    [
        ({0: 1}, {0: 1}, 0.0),
        ({0: 1}, {1: 1}, 1.0),
        ({0: 1, 1: 1}, {0: 5}, 0.5),
        ({0: 1, 1: 1}, {0: 5, 1: 5}, 0.5),
        (dict.fromkeys(range(4), 1), dict.fromkeys(range(4), 1), 0.75),
        ({0: 3, 1: 1}, {0: 1, 1: 3}, 1 - 2 * 3 / 16),
        ({}, {0: 1}, None),
        ({0: 1}, {}, None),
    ],
)
def test_expected_remote_share(
    times: dict[int, int], weights: dict[int, int], share: float | None
) -> None:
    found = remote_share(times, weights)
    assert found == (share if share is None else pytest.approx(share))


amounts = st.dictionaries(st.integers(0, 7), st.integers(1, 1 << 50), min_size=1)


@given(amounts, amounts)
def test_the_share_is_what_random_reads_would_give(
    times: dict[int, int], weights: dict[int, int]
) -> None:
    """The oracle: every pair of a moment and a byte that lie on different nodes."""
    remote = sum(t * w for n, t in times.items() for m, w in weights.items() if n != m)
    total = sum(times.values()) * sum(weights.values())
    assert remote_share(times, weights) == pytest.approx(remote / total, abs=1e-9)


@given(amounts, amounts, st.integers(0, 1 << 40))
def test_a_figure_has_its_value_in_its_range(
    times: dict[int, int], weights: dict[int, int], error: int
) -> None:
    found = figure(times, weights, error)
    assert found is not None
    if error:
        assert found.low is not None
        assert found.high is not None
        assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    else:
        assert found.low is found.high is None


def test_threads_by_regions_leaves_small_regions_out() -> None:
    report = World(private={1: MIB // 2}, weights={0: 64 * MIB}).report()
    assert {share.region for share in report.shares} == {"tiny.gguf"}
