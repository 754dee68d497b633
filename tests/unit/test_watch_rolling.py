"""The live model: what it counts is what came in, whatever comes, in bounded memory."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numatrace.analyze.samples.intervals import LEAST_SAMPLES, wilson
from numatrace.record.memory.placement import PlaceRow
from numatrace.watch import rolling as module
from numatrace.watch.followed import MAX_NOTES
from numatrace.watch.memory import node_bytes
from numatrace.watch.rolling import Rolling
from numatrace.watch.slots import Slots

TIDS = st.integers(1, 40)
NODES = st.integers(0, 3)
ROWS = st.lists(st.tuples(TIDS, NODES, st.integers(0, 10**9)), max_size=60)


def columns(rows: list[tuple[int, ...]], *names: str) -> tuple[dict[str, list[int]], int]:
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}, len(rows)


def a_model(*nodes: int) -> Rolling:
    """A model that knows its machine, with a CPU on each node."""
    topology = {
        "nodes": [{"node": node, "cpus": str(node)} for node in nodes],
        "online_cpus": f"0-{len(nodes) - 1}",
    }
    rolling = Rolling()
    row = {"t_ns": 1, "name": "topology", "value": json.dumps(topology)}
    rolling.take("system", {name: [value] for name, value in row.items()}, 1)
    return rolling


@given(st.lists(ROWS, min_size=1, max_size=4), st.lists(ROWS, max_size=4))
def test_time_and_faults_are_conserved(times: list, faults: list) -> None:
    rolling = Rolling()
    for part in times:
        rolling.take(
            "oncpu", *columns([(7, *row) for row in part], "tgid", "tid", "node", "oncpu_ns")
        )
    for part in faults:
        rolling.take(
            "fault_count", *columns([(7, *row) for row in part], "tgid", "tid", "node", "count")
        )
    rolling.close(2.0)
    lines = list(rolling.lines(one_node=False))
    oncpu_ns = sum(ns for part in times for _, _, ns in part)
    assert sum(line.cpus for line in lines) == pytest.approx(oncpu_ns / 2e9)
    assert rolling.last.node_ns.total() == oncpu_ns
    assert sum(line.faults_s for line in lines) == pytest.approx(
        sum(count for part in faults for _, _, count in part) / 2
    )
    for line in lines:
        assert sum(line.node_share.values()) == pytest.approx(1.0) or line.cpus == 0


def samples(rows: list[tuple[int, int, int]], **more: object) -> tuple[dict[str, object], int]:
    """Operand samples: tid, node of the CPU, node of the memory (-1: not known)."""
    tid, node, mem = (np.array([row[place] for row in rows], np.int32) for place in range(3))
    return {
        "tgid": np.full(len(rows), 7, np.int32),
        "tid": tid,
        "node": node,
        "mem_node": np.ma.MaskedArray(mem, mem < 0),
        "time_ns": np.full(len(rows), 1_000_000, np.uint64),
        "detail": np.full(len(rows), "operand", object),
        "name": "operand",
        **more,
    }, len(rows)


@given(st.lists(st.tuples(TIDS, NODES, st.integers(-1, 3)), min_size=1, max_size=200))
def test_remote_shares_are_of_the_samples_whose_nodes_are_known(rows: list) -> None:
    rolling = a_model(0, 1, 2, 3)
    rolling.take("access", *samples(rows))
    rolling.close(1.0)
    known = [(tid, node != mem) for tid, node, mem in rows if mem >= 0]
    found = rolling.remote(one_node=False)
    assert found.samples == len(known)
    assert rolling.last.samples["operand"] == len(rows)
    if len(known) < LEAST_SAMPLES:
        assert found.share is None
    else:
        share = sum(remote for _, remote in known) / len(known)
        assert found.share == pytest.approx(share)
        assert (found.low, found.high) == pytest.approx(wilson(share, len(known)))
    by_thread = {line.tid: line.remote.samples for line in rolling.lines(one_node=False)}
    assert by_thread == Counter(tid for tid, _ in known)


def test_samples_of_a_thread_that_waits_for_another_are_no_accesses() -> None:
    rolling = a_model(0, 1)
    rolling.take("access", *samples([(1, 0, 1)] * 50, detail=np.full(50, "spin", object)))
    rolling.close(1.0)
    assert rolling.remote(one_node=False).samples == 0
    assert rolling.last.samples["operand"] == 50


def test_the_cpus_own_samples_are_preferred_once_there_are_enough() -> None:
    rolling = a_model(0, 1)
    rolling.take("access", *samples([(1, 0, 0)] * 40))
    hardware = samples([(1, 0, 1)] * 40, name="ibs", time_ns=None)[0]
    hardware |= {"weight": np.full(40, 9, np.uint64), "latency_cycles": np.full(40, 300, np.uint64)}
    rolling.take("access", {name: value[:20] if name not in ("name", "time_ns") else value
                            for name, value in hardware.items()}, 20)  # fmt: skip
    rolling.close(1.0)
    assert (rolling.source, rolling.remote(one_node=False).share) == ("operand", 0.0)
    rolling.take("access", hardware, 40)
    rolling.close(1.0)
    assert (rolling.source, rolling.remote(one_node=False).share) == ("ibs", 1.0)


def test_on_one_node_nothing_is_remote_however_few_samples() -> None:
    rolling = a_model(0)
    rolling.take("access", *samples([(1, 0, 0)]))
    rolling.close(1.0)
    assert rolling.remote(one_node=True).share == 0.0


def test_the_window_forgets() -> None:
    """100 remote samples, then local ones: after ten seconds only these are left."""
    rolling = a_model(0, 1)
    rolling.take("access", *samples([(1, 0, 1)] * 100))
    rolling.close(1.0)
    for _ in range(9):
        rolling.take("access", *samples([(1, 0, 0)] * 100))
        rolling.close(1.0)
    assert rolling.remote(one_node=False).share == pytest.approx(0.1)
    rolling.take("access", *samples([(1, 0, 0)] * 100))
    rolling.close(1.0)
    assert rolling.remote(one_node=False).share == 0.0
    for _ in range(10):
        rolling.close(1.0)
    assert not list(rolling.lines(one_node=False))


def births(rows: list[tuple[int, int, int]]) -> tuple[dict[str, list[int]], int]:
    """t_ns, tid, ptid within process 7."""
    return columns(
        [(t, 7, tid, 7, ptid) for t, tid, ptid in rows], "t_ns", "tgid", "tid", "ptgid", "ptid"
    )


def test_a_pool_that_is_made_anew_for_every_token_stays_the_same_slots() -> None:
    """Three workers live at a time; births come before ends, as the rings hand them out."""
    rolling = Rolling()
    tid, t_ns = 100, 0
    for token in range(200):
        workers = [tid, tid + 1, tid + 2]
        rolling.take("fork", *births([(t_ns, worker, 7) for worker in workers]))
        ended = [(t_ns + 10, 7, worker) for worker in workers]
        rolling.take("exit", *columns(ended, "t_ns", "tgid", "tid"))
        if token % 10 == 9:
            now = [(7, worker, 0, 1000) for worker in workers]
            rolling.take("oncpu", *columns(now, "tgid", "tid", "node", "oncpu_ns"))
        tid, t_ns = tid + 3, t_ns + 20
    rolling.close(1.0)
    lines = {line.slot: line for line in rolling.lines(one_node=True)}
    assert set(lines) == {0, 1, 2}
    assert all(line.cpus == pytest.approx(20_000 / 1e9) for line in lines.values())
    assert {line.tid for line in lines.values()} == {100, 101, 102}


def test_memory_is_bounded_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_THREADS", 50)
    rolling = Rolling()
    for start in range(0, 8_000, 400):
        tids = range(start, start + 400)
        rolling.take("fork", *births([(tid, tid, 7) for tid in tids]))
        rolling.take("move", *columns([(7, tid) for tid in tids], "tgid", "tid"))
        rows = [(7, tid, 0, 10) for tid in tids]
        rolling.take("oncpu", *columns(rows, "tgid", "tid", "node", "oncpu_ns"))
        rolling.take("note", {"name": ["n"] * 400, "detail": [str(tid) for tid in tids]}, 400)
        rolling.close(1.0)
        lines = list(rolling.lines(one_node=True))
        assert len(rolling.last.threads) <= 51
        assert sum(line.cpus for line in lines) == pytest.approx(4000 / 1e9)
        assert sum(line.moves_s for line in lines) == 400
    assert len(rolling.followed.notes) == MAX_NOTES
    assert len(rolling.followed.slots) < 2 * 8_000
    rest = next(line for line in lines if line.tid == 0)
    assert rest.moves_s == 350
    assert len(rolling.last.others) == 50


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30), st.integers(1, 5)), max_size=300))
def test_slots_of_living_threads_are_distinct(steps: list) -> None:
    """A slot stands for one living thread at a time; who has no slot counts for itself."""
    slots, alive = Slots(), set()
    for born, tid, creator in steps:
        thread = (7, tid)
        if born and tid != creator:
            slots.clone(thread, (7, creator))
            alive.add(thread)
        elif not born:
            slots.exit(thread)
            alive.discard(thread)
    assert len(slots) <= 4 * len(steps)
    places = [(id(pool), place) for pool, place in slots._places.values()]
    assert len(places) == len(set(places))
    assert {thread for thread in alive if thread in slots._places} == slots._places.keys()


def test_losses_add_up() -> None:
    rolling = Rolling()
    for count in (3, 4):
        rolling.take("loss", {"t_ns": 1, "name": "fault", "count": count, "detail": "full"}, 1)
        rolling.close(1.0)
    assert rolling.lost == {"fault": 7}
    assert rolling.last.lost == 4


def a_place(**more: object) -> PlaceRow:
    row = PlaceRow(addr=4096, bytes=8192, mem_node=0, node_bytes=8192, pages=2, sampled_pages=2,
                   piece_pages=2, offset=0, inode=0, path=None, name=None)  # fmt: skip
    return row._replace(**more)


def test_bytes_of_shared_files_count_once_and_private_ones_each() -> None:
    private = a_place()
    model = a_place(addr=1 << 20, inode=5, path="m.gguf", mem_node=1)
    absent = model._replace(mem_node=-1)
    found = node_bytes({1: [private, model], 2: [private, absent]}, models={5})
    assert found.all == {0: 2 * 8192, 1: 8192}
    assert found.model.total() == 8192


@given(st.lists(st.tuples(NODES, st.integers(1, 10**12)), max_size=20))
def test_bytes_are_conserved(pieces: list) -> None:
    rows = [a_place(addr=place << 12, mem_node=node, node_bytes=size)
            for place, (node, size) in enumerate(pieces)]  # fmt: skip
    found = node_bytes({1: rows}, models=())
    assert found.all.total() == sum(size for _, size in pieces)
    assert found.model.total() == 0
