"""λ comes from the best source that there is, and says which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from numatrace.analyze.samples.columns import LOCAL, REMOTE
from numatrace.analyze.samples.ratios import (
    ASSUMED,
    HMAT,
    LEAST_TIMED,
    MEASURED,
    SAMPLED,
    SAMPLED_ALL,
    SLIT,
    Ratios,
)
from numatrace.model.machine import Links
from numatrace.model.topology import Performance
from tests.unit.plan_machine import TWO, Machine, no_samples

if TYPE_CHECKING:
    from numatrace.analyze.samples.cellview import CellView

LINKS = Links(latency_ns={0: {0: 80.0, 1: 140.0}, 1: {0: 150.0, 1: 80.0}, 3: {0: 90.0, 1: 180.0}})
FAR = {0: {0: 10, 1: 21}, 1: {0: 21, 1: 10}}


def sampled(*cells: tuple[int, int, int]) -> CellView:
    """Cells with enough samples: node of the CPU, of the memory, and cycles of each access."""
    cpu, mem, cycles = (np.array(column, np.int64) for column in zip(*cells, strict=True))
    count = np.full(len(cells), LEAST_TIMED, np.int64)
    view = no_samples()
    view.cpu, view.mem, view.samples, view.timed = cpu, mem, count, count
    view.cycles = count * cycles
    view.served = np.where(cpu == mem, LOCAL, REMOTE)
    return view


def test_the_source_that_is_nearest_to_the_pair_counts() -> None:
    topology = Machine(distances=FAR).topology
    both = sampled((0, 0, 100), (0, 1, 190))
    found = Ratios(topology, both, LINKS)
    assert (found.find(0, 1).basis, found.find(0, 1).ratio) == (SAMPLED, pytest.approx(1.9))
    assert (found.find(1, 0).basis, found.find(1, 0).ratio) == (MEASURED, pytest.approx(150 / 80))
    assert Ratios(topology, both).find(1, 0).basis == SAMPLED_ALL
    assert found.find(0, 1, sampled=False).basis == MEASURED
    assert Ratios(topology, no_samples()).find(0, 1).ratio == pytest.approx(2.1)
    assert Ratios(topology, no_samples()).find(0, 1).basis == SLIT
    assert Ratios(None, no_samples()).find(0, 1).basis == ASSUMED


def test_a_pair_that_could_not_be_measured_falls_back() -> None:
    assert Ratios(Machine(distances=FAR).topology, no_samples(), Links()).find(0, 1).basis == SLIT


def test_a_node_without_memory_is_measured_against_its_nearest() -> None:
    found = Ratios(Machine().topology, no_samples(), LINKS).find(3, 1)
    assert (found.basis, found.ratio) == (MEASURED, pytest.approx(2.0))


def test_the_firmware_knows_memory_without_cpus() -> None:
    figures = (Performance(0, (0,), read_latency_ns=100), Performance(2, (0,), read_latency_ns=250))
    topology = Machine(nodes={**TWO, 2: ()}, performance=figures).topology
    found = Ratios(topology, no_samples()).find(0, 2)
    assert (found.basis, found.ratio) == (HMAT, pytest.approx(2.5))


def test_only_what_is_used_is_shown() -> None:
    found = Ratios(Machine().topology, no_samples())
    found.find(0, 1)
    assert found.used() == ()
    found.of(0, 1)
    assert [(view.cpu_node, view.mem_node) for view in found.used()] == [(0, 1)]
