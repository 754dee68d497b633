"""Access sampling against oracles: known buffers, the scheduler's clock, the kernel's answers."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import pytest
from pyarrow import Table, ipc

from numatrace.model.access import HOW, KERNEL
from numatrace.record.bpf import loader, perf_event, plan
from numatrace.record.bpf.bcc_import import find_bcc, import_bcc
from numatrace.record.bpf.plan import Plan
from numatrace.record.bpf.probes import Probes
from numatrace.record.bpf.stimulus import Stimulus
from numatrace.record.machine import sysfs
from numatrace.record.operands import Operands, read_code
from numatrace.record.options import Options
from numatrace.record.sampling.registers import in_order
from numatrace.record.sampling.sampler import mem_nodes
from numatrace.record.sampling.ticks import Ticks
from numatrace.record.session import Session
from tests.kernel.steal import stolen_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numatrace.record.summary import Summary

pytestmark = pytest.mark.kernel

Array = np.ndarray[Any, Any]
MS = 1_000_000
PERIOD_NS = 1_009_000
"""A round one would keep step with the scheduler's own clock."""

TICK_NS = 10_000_000
"""What /proc/stat counts in, and cuts off, on each of two CPUs at most."""

PAGE_FAULT, INTERRUPT = 8, 32
"""Of the record's own bits, see bpf/access.bpf.c."""


class Armed:
    """A stimulus process, followed and sampled from before its first order."""

    def __init__(self, period_ns: int = PERIOD_NS, **settings: Any) -> None:
        self.stimulus = Stimulus()
        self.stimulus.settle()
        self.probes = Probes(Plan(tensor=False, **settings))
        self.probes.follow(self.stimulus.pid)
        self.probes.follow_thread(self.stimulus.pid, self.stimulus.pid)
        self.ticks = Ticks(self.probes)
        self.problems = self.ticks.start(period_ns)

    def records(self) -> Array:
        self.stimulus.settle()
        return in_order(self.probes.rings["access"].drain(), self.probes.plan.machine)

    def resolve(self, records: Array) -> tuple[Array, Array, list[str]]:
        found = Operands(self.probes.plan.machine, read_code).resolve(records)
        names = list(HOW)
        return found.addr, found.known, [names[index] for index in found.how.tolist()]

    def close(self) -> None:
        self.ticks.close()
        self.probes.stop()
        self.probes.close()
        self.stimulus.close()


@pytest.fixture
def armed() -> Iterator[Armed]:
    armed = Armed()
    yield armed
    armed.close()


def test_reads_of_a_buffer_have_addresses_in_it(armed: Armed) -> None:
    answer = armed.stimulus.read(2048, 400 * MS)
    records = armed.records()
    user = records[records["access"] & KERNEL == 0]
    assert len(user) > 300
    addr, known, _ = armed.resolve(user)
    inside = known & (addr >= answer["addr"]) & (addr < answer["addr"] + answer["bytes"])
    assert inside.mean() >= 0.9
    nodes, told = mem_nodes(user["tgid"], addr, known)
    assert told[inside].all()
    assert (nodes[inside] >= 0).all()


def test_samples_stand_for_the_time_on_cpu(armed: Armed) -> None:
    """Their sum is what the scheduler counted, to within a few ticks; each is on the right CPU.

    What a hypervisor took away in between, the scheduler leaves out and the clock does not.
    """
    before, stolen_before = armed.stimulus.schedstat_ns(), stolen_ns()
    armed.stimulus.read(256, 600 * MS)
    records = armed.records()
    grown_ns = armed.stimulus.schedstat_ns() - before
    stolen = stolen_ns() - stolen_before
    sampled_ns = int(records["time_ns"].sum())
    assert 0.97 * grown_ns <= sampled_ns <= 1.03 * grown_ns + stolen + TICK_NS
    assert set(records["tgid"].tolist()) == {armed.stimulus.pid}
    assert set(records["cpu"].tolist()) <= set(armed.ticks.cpus)
    assert set(armed.probes.losses().values()) == {0}


def test_the_period_changes_while_it_runs(armed: Armed) -> None:
    for period_ns in (5 * PERIOD_NS, PERIOD_NS // 2):
        armed.ticks.set_period(period_ns)
        before = armed.stimulus.schedstat_ns()
        armed.records()
        armed.stimulus.read(64, 500 * MS)
        records = armed.records()
        grown_ns = armed.stimulus.schedstat_ns() - before
        assert set(records["time_ns"].tolist()) == {period_ns}
        # Turns on the CPU may be shorter than a period: then it is chance that each holds a tick.
        assert len(records) == pytest.approx(grown_ns / period_ns, rel=0.3)


def test_a_full_ring_counts_what_it_loses() -> None:
    """Ticks kept and ticks lost make up the time on CPU."""
    armed = Armed(access_ring_pages=1)
    before = armed.stimulus.schedstat_ns()
    armed.stimulus.read(64, 300 * MS)
    kept = len(armed.records())
    grown_ns = armed.stimulus.schedstat_ns() - before
    lost = armed.probes.losses()["access", "ring buffer full"]
    assert kept == armed.probes.rings["access"].room
    assert lost > 200
    assert kept + lost == pytest.approx(grown_ns / PERIOD_NS, rel=0.05)
    armed.close()


def test_time_in_a_system_call_keeps_its_number_and_the_users_registers(armed: Armed) -> None:
    armed.stimulus.copy(300 * MS)
    records = armed.records()
    kernel = records[records["access"] & KERNEL != 0]
    assert len(kernel) > 200
    calls, counts = np.unique(kernel["syscall"], return_counts=True)
    readv = {"x86_64": 19, "aarch64": 65}[armed.probes.plan.machine]
    assert calls[counts.argmax()] == readv
    assert counts.max() / len(kernel) > 0.8
    mine = kernel[kernel["syscall"] == readv]
    assert (mine["ip"] < 1 << 63).all()
    assert len(np.unique(mine["ip"])) == 1  # the one instruction that enters the kernel
    assert mine["text"][0].any()
    how = armed.resolve(mine[mine["access"] == KERNEL])[2]
    assert set(how) == {"kernel copy"}


def test_page_faults_are_told_from_interrupts(armed: Armed) -> None:
    armed.stimulus.fault(400 * MS)
    records = armed.records()
    kernel = records[records["access"] & KERNEL != 0]
    faults = kernel[kernel["access"] & PAGE_FAULT != 0]
    assert len(faults) > 100
    assert (faults["syscall"] == -1).all()
    # What is neither in a system call nor for a fault is the odd interrupt.
    exceptions = kernel[kernel["syscall"] == -1]
    assert len(faults) / len(exceptions) > 0.8
    assert set(armed.resolve(faults)[2]) == {"kernel fault"}


def test_no_page_fault_is_seen_where_there_is_none(armed: Armed) -> None:
    armed.stimulus.read(512, 10 * MS)
    armed.records()
    armed.stimulus.copy(200 * MS)
    records = armed.records()
    assert (records["access"] & PAGE_FAULT != 0).mean() < 0.02


def test_thread_base_is_what_the_kernel_says(armed: Armed) -> None:
    base = armed.stimulus.thread_base()["thread_base"]
    if not base:
        pytest.skip("not told on this machine")
    armed.stimulus.read(64, 100 * MS)
    assert set(armed.records()["thread_base"].tolist()) == {base}


def test_other_processes_leave_no_trace(armed: Armed) -> None:
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        pass
    assert len(armed.records()) == 0


def test_without_bpf_task_pt_regs_only_the_kernels_own_bit_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The program as older kernels get it; this one can run it as well."""
    monkeypatch.setattr(loader, "has_task_pt_regs", lambda: False)
    armed = Armed()
    answer = armed.stimulus.read(512, 100 * MS)
    armed.stimulus.copy(100 * MS)
    records = armed.records()
    kernel = records[records["access"] & KERNEL != 0]
    assert len(kernel) > 50
    assert set(kernel["access"].tolist()) == {KERNEL}
    assert not kernel["ip"].any()
    assert not kernel["regs"].any()
    assert set(kernel["syscall"].tolist()) == {-1}
    assert set(armed.resolve(kernel)[2]) == {"kernel"}
    addr, known, _ = armed.resolve(records[records["access"] == 0])
    assert (known & (addr >= answer["addr"])).any()
    armed.close()


def test_a_program_that_the_kernel_refuses_is_a_note_and_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if perf events could have no programs here: loaded as another type, it is refused."""
    monkeypatch.setitem(plan.PROGRAMS, "access", ("SOCKET_FILTER", "access_tick"))
    summary, table = record_stimulus(tmp_path / "t.arrow", lambda stimulus: stimulus.touch(100))
    assert summary.sampling is None
    [note] = [note for note in summary.notes if note.startswith("access sampling: ")]
    assert len(note) > 30
    assert rows(table, "fault").num_rows >= 100


def test_a_cpu_whose_clock_cannot_be_had_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others go on."""
    whole = perf_event.open_tick
    cpus = sysfs.online_cpus()

    def refuse(cpu: int, period_ns: int, program: int) -> int:
        if cpu == cpus[0]:
            raise PermissionError(13, "perf_event_open(2): Permission denied")
        return whole(cpu, period_ns, program)

    monkeypatch.setattr(perf_event, "open_tick", refuse)
    armed = Armed()
    assert armed.problems == [f"CPU {cpus[0]}: [Errno 13] perf_event_open(2): Permission denied"]
    assert armed.ticks.cpus == cpus[1:]
    armed.close()


def test_clocks_follow_cpus_that_come_and_go(armed: Armed, monkeypatch: pytest.MonkeyPatch) -> None:
    cpus = sysfs.online_cpus()
    monkeypatch.setattr(sysfs, "online_cpus", lambda: cpus[:-1])
    assert armed.ticks.follow_cpus() == []
    assert armed.ticks.cpus == cpus[:-1]
    monkeypatch.setattr(sysfs, "online_cpus", lambda: (*cpus, 4000))
    [problem] = armed.ticks.follow_cpus()
    assert problem.startswith("CPU 4000: ")
    assert sorted(armed.ticks.cpus) == list(cpus)
    armed.records()
    armed.stimulus.read(64, 100 * MS)
    assert len(armed.records()) > 80


def test_clocks_are_gone_after_close() -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    armed = Armed()
    armed.close()
    assert descriptors() <= before + 1


# --- whole recordings


def record_stimulus(
    path: Path, work: Callable[[Stimulus], object], **settings: Any
) -> tuple[Summary, Table]:
    """Record a stimulus at work in this process; returns the summary and the trace."""
    with Stimulus() as stimulus:
        session = Session(Options(path, **settings))
        session.start([stimulus.pid])
        worker = threading.Thread(target=work, args=(stimulus,))
        worker.start()
        while worker.is_alive():
            time.sleep(0.1)
            session.look()
        session.tick()
        session.stop("interrupted")
        summary = session.finish()
    return summary, ipc.open_file(path).read_all()


def rows(table: Table, kind: str) -> Table:
    return table.filter(pc.equal(table["kind"].cast("string"), kind))


def test_a_recording_keeps_every_sample_and_what_it_stands_for(tmp_path: Path) -> None:
    """At a fixed rate: time of the samples = time on CPU; nothing that was drained is missing."""
    answers: list[dict[str, int]] = []
    summary, table = record_stimulus(
        tmp_path / "t.arrow",
        lambda stimulus: answers.append(stimulus.read(2048, 900 * MS)),
        frequency_hz=499,
    )
    access = rows(table, "access")
    assert summary.sampling is not None
    assert summary.overhead is not None
    assert access.num_rows == summary.sampling.samples > 300
    assert set(access["time_ns"].to_pylist()) == {1_000_000_000 // 499}
    assert set(access["name"].to_pylist()) == {"operand"}
    assert set(access["detail"].to_pylist()) <= HOW.keys()
    oncpu_ns = pc.sum(rows(table, "oncpu")["oncpu_ns"]).as_py()
    assert pc.sum(access["time_ns"]).as_py() == pytest.approx(oncpu_ns, rel=0.06)
    low, high = answers[0]["addr"], answers[0]["addr"] + answers[0]["bytes"]
    inside = access.filter(
        pc.and_(pc.greater_equal(access["addr"], low), pc.less(access["addr"], high))
    )
    assert inside.num_rows > 0.8 * access.num_rows
    assert inside["mem_node"].null_count == 0
    assert access["weight"].null_count == access["data_src"].null_count == access.num_rows
    for rate in rows(table, "rate").to_pylist():
        assert rate["detail"] == "fixed by -F"
        assert rate["time_ns"] == 1_000_000_000 // 499
        assert json.loads(rate["value"])["costs"]["tick_ns"] > 100


def test_the_budget_makes_it_slower_and_says_so(tmp_path: Path) -> None:
    """With little budget, the first decision is for a longer period."""

    def work(stimulus: Stimulus) -> None:
        for _ in range(4):
            stimulus.read(64, 900 * MS)

    path = tmp_path / "t.arrow"
    with Stimulus() as stimulus:
        session = Session(Options(path, max_overhead=0.004, duration_s=4.5))
        session.start([stimulus.pid])
        worker = threading.Thread(target=work, args=(stimulus,))
        worker.start()
        session.run(lambda _: None)
        worker.join()
        summary = session.finish()
    rates = rows(ipc.open_file(path).read_all(), "rate").to_pylist()
    assert rates[0]["detail"] == "to begin with"
    assert rates[1]["detail"] == "over the budget"
    assert rates[1]["time_ns"] > rates[0]["time_ns"]
    measured = json.loads(rates[1]["value"])
    assert measured["overhead"] > measured["budget"] == 0.004
    load = measured["load"]
    assert load["samples"] * rates[0]["time_ns"] / 1e9 == pytest.approx(load["used_cpus"], rel=0.5)
    assert summary.overhead is not None
    assert summary.overhead.tick_cpus > 0
    assert summary.overhead.program_cpus > 0


def test_no_access_records_none(tmp_path: Path) -> None:
    summary, table = record_stimulus(
        tmp_path / "t.arrow", lambda stimulus: stimulus.read(64, 200 * MS), access=False
    )
    assert summary.sampling is None
    assert not [note for note in summary.notes if note.startswith(("access", "hardware"))]
    assert rows(table, "access").num_rows == rows(table, "rate").num_rows == 0


def test_where_perf_events_are_refused_the_rest_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "perf_event_open(2): Permission denied")

    monkeypatch.setattr(perf_event, "open_clock", refuse)
    summary, table = record_stimulus(tmp_path / "t.arrow", lambda stimulus: stimulus.touch(100))
    assert summary.sampling is None
    [note] = [note for note in rows(table, "note").to_pylist() if note["name"] == "access sampling"]
    assert "Permission denied" in note["detail"]
    assert rows(table, "fault").num_rows >= 100
    assert rows(table, "access").num_rows == 0


def test_code_that_the_resolver_cannot_take_costs_its_addresses_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: Operands, _records: Array) -> None:
        raise IndexError("no such register")

    monkeypatch.setattr(Operands, "resolve", fail)
    summary, table = record_stimulus(
        tmp_path / "t.arrow", lambda stimulus: stimulus.read(64, 200 * MS), frequency_hz=499
    )
    access = rows(table, "access")
    assert access.num_rows > 80
    assert access["addr"].null_count == access["mem_node"].null_count == access.num_rows
    assert set(access["detail"].to_pylist()) <= {"unreadable", "kernel"}
    told = [note for note in summary.notes if "no addresses: IndexError: no such register" in note]
    assert len(told) == 1


def test_a_process_that_ends_leaves_its_samples(tmp_path: Path) -> None:
    """Also the last ones, whose memory is gone when they are drained."""
    path = tmp_path / "t.arrow"
    stimulus = Stimulus()
    session = Session(Options(path, frequency_hz=997))
    session.start([stimulus.pid])
    stimulus.read(64, 100 * MS)
    stimulus.close()
    session.run(lambda _: None)
    summary = session.finish()
    assert summary.reason == "targets"
    assert rows(ipc.open_file(path).read_all(), "access").num_rows > 80


def test_lost_samples_are_in_the_trace(tmp_path: Path) -> None:
    """Kept and lost make up the time on CPU, also where nobody looks at the ring for a while."""
    path = tmp_path / "t.arrow"
    with Stimulus() as stimulus:
        session = Session(Options(path, frequency_hz=997, ring_pages=1))
        session.start([stimulus.pid])
        stimulus.read(64, 400 * MS)
        session.stop("interrupted")
        summary = session.finish()
    table = ipc.open_file(path).read_all()
    lost = sum(row["count"] for row in rows(table, "loss").to_pylist() if row["name"] == "access")
    kept = rows(table, "access").num_rows
    oncpu_ns = pc.sum(rows(table, "oncpu")["oncpu_ns"]).as_py()
    assert lost > 200
    assert (kept + lost) / 997 * 1e9 == pytest.approx(oncpu_ns, rel=0.06)
    assert summary.sampling is not None
    assert (summary.sampling.samples, summary.sampling.lost) == (kept, lost)
    assert summary.status.lost["access"] == lost


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("flags", [[], ["-DHAVE_TASK_PT_REGS"]])
def test_the_program_compiles_for(
    machine: str, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the other machine it can be compiled, though not loaded."""
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(plan.bpf_folder() / "headers"))
    other = plan.Plan(machine=machine)
    folder = find_bcc()
    assert folder is not None
    bpf = import_bcc(folder).BPF(
        text=plan.program_text(other).encode(), cflags=other.cflags() + flags
    )
    assert bpf.dump_func(b"access_tick")
    assert bpf.dump_func(b"on_tensor")
    bpf.cleanup()
