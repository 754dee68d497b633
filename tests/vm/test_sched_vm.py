"""Threads on real nodes: every move, and all time on the node where it was spent."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from pyarrow import ipc

from numatrace.record.bpf.stimulus import Stimulus
from numatrace.record.machine.sysfs import read_topology
from numatrace.record.options import Options
from numatrace.record.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TOPOLOGY = read_topology()
NODES = TOPOLOGY.nodes_with_cpus

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(len(NODES) < 2, reason=f"needs two nodes with CPUs, has {len(NODES)}"),
]

MOVES = 23


def first_cpu(node: int) -> int:
    found = TOPOLOGY.node(node)
    assert found is not None
    return found.cpus[0]


def recorded(
    folder: Path, work: Callable[[Stimulus], None]
) -> tuple[Stimulus, list[dict[str, object]]]:
    """Record a stimulus at work; returns it (ended) and the rows of its only thread."""
    path = folder / "trace.arrow"
    with Stimulus() as stimulus:
        stimulus.pin(first_cpu(NODES[0]))
        stimulus.settle()
        session = Session(Options(path))
        session.start([stimulus.pid])
        work(stimulus)
        stimulus.settle()
        session.tick()
        session.stop("test")
        session.finish()
    rows = ipc.open_file(path).read_all().to_pylist()
    return stimulus, [row for row in rows if row["tid"] == stimulus.pid]


def test_a_thread_that_moves_itself_23_times_makes_23_moves(tmp_path: Path) -> None:
    cpus = first_cpu(NODES[0]), first_cpu(NODES[1])
    hops = 0

    def work(stimulus: Stimulus) -> None:
        nonlocal hops
        hops = stimulus.hop(cpus, MOVES)["hops"]

    _, rows = recorded(tmp_path, work)
    moves = [row for row in rows if row["kind"] == "move"]
    assert hops == MOVES, "the guest did not do what it was told"
    assert len(moves) == MOVES
    there = [(row["from_node"], row["node"]) for row in moves]
    back_and_forth = [(NODES[0], NODES[1]), (NODES[1], NODES[0])] * MOVES
    assert there == back_and_forth[:MOVES]


def test_time_is_on_the_node_where_it_was_spent(tmp_path: Path) -> None:
    """A third of the work on one node, the rest on the other; the whole equals schedstat."""
    grown_ns: dict[int, int] = {}
    moving_ns = 0

    def work(stimulus: Stimulus) -> None:
        nonlocal moving_ns
        begun = stimulus.schedstat_ns()
        for node, burn_ns in ((NODES[0], 300_000_000), (NODES[1], 600_000_000)):
            stimulus.pin(first_cpu(node))
            stimulus.settle()
            before = stimulus.schedstat_ns()
            stimulus.burn(burn_ns)
            stimulus.settle()
            grown_ns[node] = stimulus.schedstat_ns() - before
        moving_ns = stimulus.schedstat_ns() - begun - sum(grown_ns.values())

    _, rows = recorded(tmp_path, work)
    counted: Counter[int] = Counter()
    for row in rows:
        if row["kind"] == "oncpu":
            counted[int(str(row["node"]))] += int(str(row["oncpu_ns"]))
    assert sum(counted.values()) == pytest.approx(sum(grown_ns.values()) + moving_ns, rel=0.01)
    for node, ns in grown_ns.items():
        # To be told to move is done on the old node or on the new one.
        assert 0.98 * ns <= counted[node] <= 1.02 * ns + moving_ns, (counted, grown_ns, moving_ns)
