"""What is measured of the recorder's own cost, against what is known to have happened."""

from __future__ import annotations

import time

import pytest

from numatrace.record.bpf import loader, perf_event
from numatrace.record.bpf.call import has_task_pt_regs
from numatrace.record.bpf.plan import Plan
from numatrace.record.bpf.probes import Probes
from numatrace.record.bpf.stimulus import Stimulus
from numatrace.record.sampling import costs
from numatrace.record.sampling.costs import TICK_NS, ProgramStats, measure_tick_ns

pytestmark = pytest.mark.kernel


def throughput(seconds: float) -> float:
    """Turns of a loop per second of this thread's CPU time."""
    turns, before = 0, time.thread_time()
    while time.thread_time() - before < seconds:
        turns += 1
    return turns / (time.thread_time() - before)


def test_a_clock_interrupt_costs_what_a_loop_loses_to_it() -> None:
    """At 10,000 ticks a second a loop gets less done, by the measured cost of a tick each."""
    period_ns = 100_000
    ratios = []
    for _ in range(5):
        alone = throughput(0.1)
        fd = perf_event.open_clock(-1, period_ns, pid=0)
        perf_event.enable(fd)
        try:
            ratios.append(throughput(0.1) / alone)
        finally:
            perf_event.close(fd)
    lost = 1 - sorted(ratios)[2]
    measured = measure_tick_ns() / period_ns
    assert measured == pytest.approx(lost, rel=0.6, abs=0.02)


def test_where_it_cannot_be_measured_it_is_the_documented_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(1, "no")

    monkeypatch.setattr(costs.perf_event, "open_clock", refuse)
    assert measure_tick_ns() == TICK_NS


def test_runs_of_programs_are_counted_in_windows_only() -> None:
    fault = "tracepoint__exceptions__page_fault_user"
    with Stimulus() as stimulus:
        probes = Probes(Plan(access=False, tensor=False))
        probes.follow(stimulus.pid)
        stats = ProgramStats(probes.descriptors())
        stimulus.touch(500)
        stats.begin()
        stimulus.touch(1000)
        seconds, grown = stats.end()
        assert stats.end() == (0.0, {})
        probes.stop()
        probes.close()
    run_ns, runs = grown[fault]
    assert seconds > 0
    assert runs >= 1000  # other processes fault as well
    assert 50 < run_ns / runs < 100_000


def test_the_kernel_is_asked_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sampling program that uses the helpers is taken just where the small one was."""
    monkeypatch.setattr(loader, "has_task_pt_regs", lambda: True)
    probes = Probes(Plan(tensor=False))
    assert ("access" in probes.programs) == has_task_pt_regs()
    probes.close()
