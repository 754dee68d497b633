"""The measurement between nodes, where there are several: all pairs, each with its memory there.

How fast emulated memory is says nothing; that every pair has a figure, from memory that the kernel
confirms to lie on that node, does.
"""

from __future__ import annotations

import os
import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from numatrace.record.links import measure
from numatrace.record.links.area import Area
from numatrace.record.links.cycle import WINDOW_BYTES
from numatrace.record.links.measure import measure_links
from numatrace.record.machine.sysfs import read_topology
from numatrace.record.memory.placement import query_nodes

TOPOLOGY = read_topology()
pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(len(TOPOLOGY.nodes) < 2, reason="needs two NUMA nodes"),
]
PAGE = os.sysconf("SC_PAGESIZE")
SIZE = 8 << 20


def maps_nodes(address: int) -> dict[int, int]:
    """Pages by node of the mapping that begins at or before an address, as numa_maps has it."""
    lines = Path("/proc/self/numa_maps").read_text().splitlines()
    starts = {int(line.split()[0], 16): line for line in lines}
    line = starts[max(start for start in starts if start <= address)]
    return {int(node): int(pages) for node, pages in re.findall(r" N(\d+)=(\d+)", line)}


@pytest.mark.parametrize("node", TOPOLOGY.nodes_with_memory)
def test_an_area_lies_where_numa_maps_says(node: int) -> None:
    with closing(Area(SIZE, node)) as area:
        assert maps_nodes(area.begin)[node] >= SIZE // PAGE
        pages = np.arange(area.begin, area.begin + SIZE, PAGE, dtype=np.uint64)
        assert set(query_nodes(os.getpid(), pages).tolist()) == {node}


def test_every_pair_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "CHAIN_BYTES", 2 * WINDOW_BYTES)
    monkeypatch.setattr(measure, "STREAM_BYTES", (4 * WINDOW_BYTES, 1 << 30))
    monkeypatch.setattr(measure, "caches_of", lambda *_: 2 << 20)
    before = os.sched_getaffinity(0)
    try:
        links = measure_links(lambda _: None, 60.0)
    finally:
        os.sched_setaffinity(0, before)
    assert set(links.skipped) <= {"busy"}
    pairs = {(a, b) for a in TOPOLOGY.nodes_with_cpus for b in TOPOLOGY.nodes_with_memory}
    for figures in (links.latency_ns, links.bandwidth_bytes_s):
        assert {(a, b) for a, row in figures.items() for b in row} == pairs
        assert all(value > 0 for row in figures.values() for value in row.values())
    cores = {node: TOPOLOGY.physical_cores(node) for node in TOPOLOGY.nodes_with_cpus}
    assert links.threads == cores


def test_memory_that_may_not_be_used_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without room: the reason is told, and nothing of it is touched."""
    monkeypatch.setattr(measure, "FREE_FACTOR", 1e6)
    links = measure_links(lambda _: None, 60.0)
    assert links.latency_ns == links.bandwidth_bytes_s == {}
    assert all("free, and" in why for why in links.skipped.values())
