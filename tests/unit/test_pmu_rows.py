"""Samples of perf become rows: what is kept, what it says, and that nothing vanishes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from numatrace.model.access import DATA_CLASSES, KERNEL, WRITE
from numatrace.record.machine.sysfs import node_numbers
from numatrace.record.pmu.perf_script import Samples
from numatrace.record.pmu.rate import PACE_S, Pace, Shift
from numatrace.record.pmu.rows import AccessColumns, Nodes

if TYPE_CHECKING:
    from pathlib import Path

LOAD, STORE, NOTHING = 0x2, 0x4, 0x1
HIT = 0x2 << 5
LOCAL_DRAM = LOAD | HIT | (0x80 << 5) | (0xD << 33)
REMOTE_DRAM = LOAD | HIT | (0x100 << 5) | (0xD << 33) | (1 << 37)
L3_HIT = LOAD | HIT | (0x40 << 5) | (3 << 33)
MIB = 1 << 20


def samples(**columns: object) -> Samples:
    """Samples with these columns, zeros in the others."""
    n = max(np.size(value) for value in columns.values())
    types = {"pid": np.int32, "tid": np.int32, "cpu": np.int32, "event": np.int32}
    made = {
        name: np.resize(np.asarray(columns.get(name, 0), types.get(name, np.uint64)), n)
        for name in Samples._fields
    }
    return Samples(**made)


def machine(root: Path, nodes: dict[int, str], sockets: dict[int, int]) -> Path:
    """A machine of these nodes (number: CPUs) and sockets (CPU: package)."""
    base = root / "sys/devices/system"
    for node, cpus in nodes.items():
        folder = base / f"node/node{node}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(f"{cpus}\n")
    for cpu, socket in sockets.items():
        folder = base / f"cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{socket}\n")
    (base / "cpu/online").write_text(f"0-{len(sockets) - 1}\n")
    return root


def two_nodes(root: Path) -> Nodes:
    return Nodes.read(machine(root, {0: "0-1", 2: "2-3"}, {0: 0, 1: 0, 2: 1, 3: 1}))


def test_columns_of_a_load_and_a_store(tmp_path: Path) -> None:
    columns = AccessColumns("pebs", two_nodes(tmp_path))
    made, count = columns.make(
        samples(
            t_ns=[5, 6], pid=[1 << 30] * 2, tid=[8, 9], cpu=[1, 2], addr=[0, 0],
            data_src=[LOCAL_DRAM, STORE | HIT | (8 << 5)], weight=[300, 0], period=[2003, 1],
            ip=[0x7F00, 0xFFFFFFFF81000000],
        ),
        ["mem"],
        {1 << 30},
    )  # fmt: skip
    assert count == 2
    assert made["detail"].tolist() == ["local DRAM", "local cache"]
    assert made["access"].tolist() == [0, WRITE | KERNEL]
    assert made["node"].tolist() == [0, 2]
    assert made["latency_cycles"].tolist() == [300, None]
    assert made["addr"].tolist() == [None, None]  # no address: null, not zero
    assert made["weight"].tolist() == [2003, 1]
    assert made["name"] == "pebs"


def test_without_an_address_the_source_tells_the_node_where_it_can(tmp_path: Path) -> None:
    columns = AccessColumns("pebs", two_nodes(tmp_path))
    words = [LOCAL_DRAM, REMOTE_DRAM, L3_HIT, LOCAL_DRAM]
    made, _ = columns.make(
        samples(pid=1 << 30, cpu=[0, 0, 0, -1], data_src=words), ["mem"], {1 << 30}
    )
    assert made["mem_node"].tolist() == [0, 2, None, None]
    assert made["cpu"].tolist() == [0, 0, 0, None]


def test_two_nodes_of_one_socket_are_not_told_apart_by_local_and_remote(tmp_path: Path) -> None:
    nodes = Nodes.read(machine(tmp_path, {0: "0-1", 1: "2-3"}, dict.fromkeys(range(4), 0)))
    made, _ = AccessColumns("pebs", nodes).make(
        samples(pid=1 << 30, cpu=[0, 3], data_src=[LOCAL_DRAM, REMOTE_DRAM]), ["mem"], {1 << 30}
    )
    assert made["mem_node"].tolist() == [None, None]


def test_nor_are_three_nodes(tmp_path: Path) -> None:
    tree = machine(tmp_path, {0: "0", 1: "1", 2: "2"}, {0: 0, 1: 1, 2: 2})
    assert Nodes.read(tree).other.tolist() == [-1, -1, -1]


def test_an_address_is_looked_up_in_the_process_itself(tmp_path: Path) -> None:
    """Here the machine is the one at hand: what is touched lies on one of its nodes."""
    touched = np.ones(4 * MIB, np.uint8)
    address = touched.ctypes.data + 2 * MIB
    columns = AccessColumns("ibs", two_nodes(tmp_path))
    made, _ = columns.make(
        samples(pid=os.getpid(), cpu=0, addr=address, data_src=REMOTE_DRAM), ["m"], {os.getpid()}
    )
    (node,) = made["mem_node"].tolist()
    assert node in node_numbers()


def test_what_is_left_out_is_counted_by_why(tmp_path: Path) -> None:
    columns = AccessColumns("pebs", two_nodes(tmp_path))
    events = ["cpu/mem-loads-aux/", "cpu/mem-loads,ldlat=30/P"]
    given = samples(
        pid=[7, 7, 7, 8, 7],
        event=[0, 1, 1, 1, 1],
        data_src=[LOCAL_DRAM, LOCAL_DRAM, NOTHING, LOCAL_DRAM, 0],
    )
    _, count = columns.make(given, events, {7})
    filtered = columns.filtered
    assert (count, filtered.auxiliary, filtered.no_access, filtered.others) == (1, 1, 2, 1)


WORDS = st.one_of(
    st.sampled_from([LOCAL_DRAM, REMOTE_DRAM, L3_HIT, NOTHING, 0]), st.integers(0, (1 << 64) - 1)
)
SAMPLE = st.tuples(WORDS, st.integers(-1, 3), st.integers(-5, 1 << 20), st.integers(0, 2))


@given(st.lists(SAMPLE, min_size=1, max_size=30))
def test_kept_and_left_out_are_all_there_was(
    given_samples: list[tuple[int, int, int, int]],
) -> None:
    words, pids, cpus, events = zip(*given_samples, strict=True)
    columns = AccessColumns("spe", Nodes(np.zeros(16, np.int32), np.full(1, -1, np.int32)))
    made, count = columns.make(
        samples(pid=pids, cpu=cpus, event=events, data_src=words),
        ["a", "x/mem-loads-aux/", "c"],
        {1, 2},
    )
    filtered = columns.filtered
    assert count + filtered.auxiliary + filtered.no_access + filtered.others == len(words)
    assert len(made["t_ns"]) == len(made["detail"]) == count
    assert set(made["detail"].tolist()) <= set(DATA_CLASSES)


def test_times_of_a_hardware_trace_are_shifted_by_the_smallest_delay() -> None:
    shift = Shift()
    first = shift.onto_monotonic(samples(t_ns=[100, 200]), 1_000_700)
    assert first.t_ns.tolist() == [1_000_600, 1_000_700]
    second = shift.onto_monotonic(samples(t_ns=[900]), 1_001_000)  # came sooner after its sample
    assert second.t_ns.tolist() == [1_001_000]
    third = shift.onto_monotonic(samples(t_ns=[1000]), 1_009_000)
    assert third.t_ns.tolist() == [1_001_100]


def test_the_pace_is_judged_over_whole_periods_and_not_over_the_start() -> None:
    pace = Pace(0.01, cpus=2)
    assert not pace.too_fast(0.0, 100.0)
    assert not pace.too_fast(9.0, 100.0 + PACE_S)  # perf starting
    assert not pace.too_fast(9.0 + 0.0198 * PACE_S, 100.0 + 2 * PACE_S)
    assert not pace.too_fast(99.0, 100.0 + 2.5 * PACE_S)  # the period is not over
    assert pace.too_fast(9.0 + 0.05 * PACE_S, 100.0 + 3 * PACE_S)
    pace.restart()
    assert not pace.too_fast(0.0, 300.0)
    assert not pace.too_fast(5.0, 300.0 + PACE_S)
