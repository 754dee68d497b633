"""The BPF programs against oracles: workloads of known counts, and the kernel's own accounts."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from numatrace.model.events import EVENT
from numatrace.record.bpf.plan import Plan
from numatrace.record.bpf.probes import Probes
from numatrace.record.bpf.stimulus import Stimulus
from tests.kernel.steal import STEAL_TICK_NS, stolen_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

Armed = tuple[Probes, Stimulus]
ATTEMPTS = 9
PIECE_NS = 30_000_000
"""Of the CPU time that the stimulus burns, in 20 pieces: no turn is longer."""


@pytest.fixture
def armed() -> Iterator[Armed]:
    """A stimulus process, followed from before its first order."""
    with Stimulus() as stimulus:
        stimulus.settle()
        probes = Probes(Plan())
        probes.follow(stimulus.pid)
        probes.follow_thread(stimulus.pid, stimulus.pid)
        probes.begin()
        yield probes, stimulus
        probes.stop()
        probes.close()


def fault_total(probes: Probes) -> tuple[int, int]:
    _, values = probes.fault_totals.items()
    return int(values["count"].sum()), int(values["kernel_count"].sum())


def in_range(records: np.ndarray, answer: dict[str, int]) -> np.ndarray:
    low, high = answer["addr"], answer["addr"] + answer["bytes"]
    return records[(records["addr"] >= low) & (records["addr"] < high)]


def test_a_thousand_touched_pages_are_a_thousand_faults(armed: Armed) -> None:
    probes, stimulus = armed
    answer = stimulus.touch(1000)
    records = probes.rings["fault"].drain()
    mine = in_range(records, answer)
    assert len(mine) == 1000
    assert len(np.unique(mine["addr"] // 4096)) == 1000
    assert (mine["access"] == 1).all()
    assert (mine["tgid"] == stimulus.pid).all()
    # Nothing is in the totals that is not in a record, and the other way round.
    assert records["weight"].sum() == fault_total(probes)[0]
    assert set(probes.losses().values()) == {0}


def test_faults_taken_by_the_kernel_are_told_apart(armed: Armed) -> None:
    probes, stimulus = armed
    answer = stimulus.read_into(500)
    mine = in_range(probes.rings["fault"].drain(), answer)
    assert len(mine) == 500
    assert (mine["access"] & 4 == 4).all()
    assert fault_total(probes)[1] == 500


def test_faults_equal_the_kernels_count(armed: Armed) -> None:
    """minflt + majflt of /proc/PID/stat grow by what the probes count."""
    probes, stimulus = armed

    def kernel_count() -> int:
        stat = Path(f"/proc/{stimulus.pid}/stat").read_bytes()
        fields = stat.rpartition(b")")[2].split()
        return int(fields[7]) + int(fields[9])

    before, counted = kernel_count(), fault_total(probes)[0]
    stimulus.touch(3000)
    stimulus.read_into(1000)
    stimulus.settle()
    grown = kernel_count() - before
    assert fault_total(probes)[0] - counted == pytest.approx(grown, rel=0.01)
    assert grown >= 4000


def test_sampled_faults_conserve_weight(armed: Armed) -> None:
    probes, stimulus = armed
    probes.set_fault_every(7)
    stimulus.touch(1000)
    records = probes.rings["fault"].drain()
    assert len(records) < 200
    assert records["weight"].sum() + probes.faults_pending() == fault_total(probes)[0]


def test_a_full_ring_counts_what_it_loses() -> None:
    with Stimulus() as stimulus:
        stimulus.settle()
        probes = Probes(Plan(fault_ring_pages=1))
        probes.follow(stimulus.pid)
        stimulus.touch(1000)
        kept = probes.rings["fault"].drain()
        lost = probes.losses()["fault", "ring buffer full"]
        assert lost > 800
        assert kept["weight"].sum() + lost == fault_total(probes)[0]
        stimulus.touch(20)
        assert len(probes.rings["fault"].drain()) >= 20
        probes.stop()
        probes.close()


def test_time_on_cpu_equals_schedstat(armed: Armed) -> None:
    """Within 1 % of /proc/PID/task/TID/schedstat, over many short turns, all of which were seen.

    A turn whose begin the kernel did not show is counted as unseen, and its time is not: on a busy
    machine that happens; it is tried again, and at last such turns may explain what lacks. Time
    that the hypervisor gave to others is not in schedstat, but passes between two switches.
    """
    probes, stimulus = armed
    for _ in range(ATTEMPTS):
        before, unseen, stolen = spent_ns(armed), probes.unseen_turns(), stolen_ns()
        stimulus.burn(20 * PIECE_NS)
        stimulus.settle()
        counted_ns, grown_ns = (
            now - then for now, then in zip(spent_ns(armed), before, strict=True)
        )
        stolen = stolen_ns() - stolen + (STEAL_TICK_NS if stolen else 0)  # some is counted later
        assert counted_ns <= 1.01 * grown_ns + stolen
        assert grown_ns >= 0.98 * 20 * PIECE_NS
        missed = probes.unseen_turns() - unseen
        if not missed:
            break
    assert counted_ns + missed * PIECE_NS >= 0.99 * grown_ns


def spent_ns(armed: Armed) -> tuple[int, int]:
    """CPU time of the stimulus so far: as the probes count it, and as the scheduler does."""
    probes, stimulus = armed
    keys, values = probes.oncpu.items()
    return int(values["ns"][keys["tid"] == stimulus.pid].sum()), stimulus.schedstat_ns()


def test_births_execs_and_ends(armed: Armed) -> None:
    probes, stimulus = armed
    answer = stimulus.lifecycle()
    stimulus.settle()
    time.sleep(0.05)
    records = probes.rings["sched"].drain()

    def have(kind: str, tgid: int, tid: int) -> np.ndarray:
        code = EVENT[kind].code
        return records[
            (records["code"] == code) & (records["tgid"] == tgid) & (records["tid"] == tid)
        ]

    thread, child = answer["tid"], answer["pid"]
    born = have("fork", stimulus.pid, thread)
    assert len(born) == 1
    assert born["ptid"][0] == stimulus.pid
    assert len(have("exit", stimulus.pid, thread)) == 1
    assert have("fork", child, child)["ptgid"].tolist() == [stimulus.pid]
    assert len(have("exec", child, child)) == 1
    assert len(have("exit", child, child)) == 1
    order = [have(kind, child, child)["t_ns"][0] for kind in ("fork", "exec", "exit")]
    assert order == sorted(order)


def test_children_are_left_alone_without_follow() -> None:
    with Stimulus() as stimulus:
        stimulus.settle()
        probes = Probes(Plan(follow=False))
        probes.follow(stimulus.pid)
        answer = stimulus.lifecycle()
        records = probes.rings["sched"].drain()
        assert answer["tid"] in records["tid"]
        assert answer["pid"] not in records["tgid"]
        probes.stop()
        probes.close()


def test_other_processes_leave_no_trace(armed: Armed) -> None:
    probes, _ = armed
    subprocess.run([sys.executable, "-c", "x = bytearray(1 << 22)"], check=True)
    assert len(probes.rings["fault"].drain()) == 0
    assert len(probes.rings["sched"].drain()) == 0
    assert fault_total(probes) == (0, 0)


def test_programs_are_gone_after_close() -> None:
    """No descriptor of a program, map or event is left: the kernel frees what nobody holds."""

    def descriptors() -> set[str]:
        return {entry.name for entry in Path("/proc/self/fd").iterdir()}

    before = descriptors()
    probes = Probes(Plan())
    assert len(descriptors() - before) > 10
    probes.stop()
    probes.close()
    left = descriptors() - before
    assert len(left) <= 1, left
