"""The real perf with the kernel's software events: all of the way but the CPU's own PMU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from numatrace.record.machine import procfs
from numatrace.record.pmu import choose, process
from numatrace.record.pmu.cpu import identify
from numatrace.record.pmu.hardware import HardwareSource
from numatrace.record.pmu.perf_session import PerfSampling
from numatrace.record.pmu.tables import Row, load
from numatrace.trace.writer import TraceWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

PERF = process.find_perf()
SPIN = """
import os, sys, threading, time
until = time.monotonic() + float(sys.argv[1])
def spin():
    x = 0
    while time.monotonic() < until:
        x += 1
if sys.argv[2:] == ["fork"]:
    time.sleep(1.0)
    if os.fork() == 0:
        spin()
        os._exit(0)
threads = [threading.Thread(target=spin) for _ in range(1)]
[thread.start() for thread in threads]
spin()
"""
TOUCH = """
import mmap, sys, threading
PAGES = 3000
def touch(pages):
    area = mmap.mmap(-1, pages * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    for page in range(pages):
        area[page * 4096] = 1
sys.stdin.readline()
touch(PAGES)
thread = threading.Thread(target=touch, args=(PAGES,))
thread.start(); thread.join()
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def perf_runs() -> None:
    if PERF is None or process.run([PERF, "--version"], 10.0).status != 0:
        pytest.skip("perf is not installed for this kernel")


@pytest.fixture(autouse=True)
def no_zombie_is_left() -> Iterator[None]:
    yield
    for pid in procfs.children(os.getpid()):
        stat = procfs.stat(pid)
        assert "perf" not in procfs.comm(pid), stat


@pytest.fixture
def software(monkeypatch: pytest.MonkeyPatch) -> Row:
    """A table in which this CPU's samples are ticks of cpu-clock."""
    cpu = identify()
    match = f'vendor = "{cpu.vendor}"\nfamily = {cpu.family}\nmodels = [{cpu.model}]'
    if cpu.parts:
        match = f"implementer = {cpu.parts[0][0]}\nparts = [{cpu.parts[0][1]}]"
    text = f"""
    [sampling.ticks]
    samples = "pebs"
    pmu = "software"
    population = "ticks"
    source = "none"
    choices = [{{ needs = ["type"], events = ["cpu-clock"] }}]
    [counts.faults]
    id = "faults"
    population = "page faults"
    source = "none"
    remote = {{ name = "page-faults", event = "page-faults" }}
    [[cpu]]
    name = "this one"
    {match}
    counters = 4
    sampling = "ticks"
    counts = ["faults"]
    """
    rows = load({"software.toml": text})
    monkeypatch.setattr(choose, "load", lambda: rows)
    return rows[0]


@pytest.fixture
def spinning() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-c", SPIN, "60"])
    time.sleep(0.3)
    yield child
    child.kill()
    child.wait()


def chosen() -> choose.Choice:
    choice = choose.Chooser(hz=199, seconds=60).choose()
    assert choice.rung == "hardware", choice.why
    return choice


def collect(session: PerfSampling, seconds: float) -> list[np.ndarray]:
    """Samples of so long: (t_ns, pid, tid, when they came)."""
    taken = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        session.ping()
        time.sleep(0.1)
        taken += [(one, time.monotonic_ns()) for one in session.take()]
    return [(s.t_ns, s.pid, s.tid, np.full(len(s.t_ns), at)) for s, at in taken]


def stacked(parts: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    assert parts, "no sample came"
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


@pytest.mark.usefixtures("software")
def test_samples_come_while_it_runs_in_monotonic_time_and_end_on_sigint(
    spinning: subprocess.Popen[bytes],
) -> None:
    choice = chosen()
    assert choice.sample is not None
    assert "data_src" in choice.sample.fields
    before = time.monotonic_ns()
    session = PerfSampling(choice.perf, choice.sample)
    session.start([spinning.pid])
    pids = session.pids
    t_ns, pid, tid, came_ns = stacked(collect(session, 4.0))
    began = time.monotonic()
    rest = [one for chunks in session.finish(20) for one in chunks]
    assert time.monotonic() - began < 20
    assert session.failure() == ""
    assert not session.running
    assert not [each for each in pids if Path(f"/proc/{each}").exists()]
    assert set(pid.tolist()) == {spinning.pid}
    assert set(tid.tolist()) == set(procfs.thread_ids(spinning.pid))
    assert (t_ns > before).all()
    assert (t_ns.astype(np.int64) < came_ns).all()  # the clock is ours
    times = np.concatenate([t_ns, *(one.t_ns for one in rest)])
    assert (np.diff(times.astype(np.int64)) >= 0).all()  # and in order
    # Nothing got lost between the kernel and here.
    assert len(times) == session.tap.totals.samples
    assert session.tap.totals.lost == session.dropped == session.reader.totals.malformed == 0
    # They came as they were taken, not all at the end.
    assert len(t_ns) > 0.5 * len(times)


@pytest.mark.usefixtures("software")
def test_children_born_later_are_sampled_too() -> None:
    choice = chosen()
    assert choice.sample is not None
    parent = subprocess.Popen([sys.executable, "-c", SPIN, "8", "fork"])
    session = PerfSampling(choice.perf, choice.sample)
    try:
        session.start([parent.pid])
        _, pid, _, _ = stacked(collect(session, 6.0))
        assert len(set(pid.tolist())) == 2
    finally:
        list(session.finish(20))
        parent.kill()
        parent.wait()


@pytest.mark.usefixtures("software")
def test_it_ends_by_itself_when_the_target_is_gone() -> None:
    choice = chosen()
    assert choice.sample is not None
    child = subprocess.Popen([sys.executable, "-c", SPIN, "2"])
    session = PerfSampling(choice.perf, choice.sample)
    session.start([child.pid])
    child.wait()
    until = time.monotonic() + 20
    while session.running and time.monotonic() < until:
        time.sleep(0.1)
    assert not session.running
    list(session.finish(5))
    assert session.failure() == ""


@pytest.mark.usefixtures("software")
def test_a_target_that_is_gone_before_is_perfs_complaint() -> None:
    choice = chosen()
    assert choice.sample is not None
    child = subprocess.Popen(["true"])
    child.wait()
    session = PerfSampling(choice.perf, choice.sample)
    session.start([child.pid])
    until = time.monotonic() + 20
    while session.running and time.monotonic() < until:
        time.sleep(0.1)
    list(session.finish(5))
    assert session.failure().startswith("perf record: ")


@pytest.mark.usefixtures("software")
def test_system_wide_samples_are_filtered(
    tmp_path: Path, spinning: subprocess.Popen[bytes]
) -> None:
    choice = chosen()
    assert choice.sample is not None
    choice = replace(choice, sample=replace(choice.sample, system_wide=True), count=None)
    writer = TraceWriter.create(tmp_path / "trace.arrow")
    notes: list[str] = []
    source = HardwareSource(
        choice, writer, lambda _, text: notes.append(text), lambda: [spinning.pid]
    )
    source.start()
    until = time.monotonic() + 3
    while time.monotonic() < until:
        time.sleep(0.1)
        source.look()
    source.stop()
    source.finish()
    source.close()
    writer.close()
    # cpu-clock knows no data source: every sample is left out, and accounted for.
    totals = source._sessions[0].tap.totals
    filtered = source._columns.filtered if source._columns else None
    assert filtered is not None
    assert filtered.no_access > 0
    assert filtered.others > 0
    assert filtered.no_access + filtered.others == totals.samples
    assert any("neither read nor wrote memory" in note for note in notes)


@pytest.mark.usefixtures("software")
def test_counters_have_every_fault_of_all_threads_also_of_later_ones(tmp_path: Path) -> None:
    choice = replace(chosen(), sample=None)
    assert choice.count is not None
    child = subprocess.Popen(
        [sys.executable, "-c", TOUCH], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    time.sleep(0.5)
    writer = TraceWriter.create(tmp_path / "trace.arrow")
    notes: list[str] = []
    before = procfs.fault_counters(child.pid)
    source = HardwareSource(choice, writer, lambda _, text: notes.append(text), lambda: [child.pid])
    source.start()
    time.sleep(2.5)  # perf has begun to count
    child.stdin.write("go\n")
    child.stdin.flush()
    assert child.stdout.readline() == "done\n"
    time.sleep(1.2)
    after = procfs.fault_counters(child.pid)
    source.stop()
    source.finish()
    source.close()
    writer.close()
    child.communicate("\n")
    rows = pa.ipc.open_file(tmp_path / "trace.arrow").read_all().to_pylist()
    counted = sum(row["count"] for row in rows if row["kind"] == "counter")
    assert {row["tgid"] for row in rows if row["kind"] == "counter"} == {child.pid}
    assert counted == sum(after.values()) - sum(before.values())
    assert counted >= 6000
    assert notes == []


def test_perf_itself_refuses_what_the_machine_has_not(tmp_path: Path) -> None:
    """A tree that promises load latency, and a perf that finds no such PMU."""
    if (Path("/") / choose.DEVICES / "cpu/events/mem-loads").exists():
        pytest.skip("this machine has load latency")
    (tmp_path / "proc").mkdir()
    text = "vendor_id : GenuineIntel\ncpu family : 6\nmodel : 85\nstepping : 4\n"
    (tmp_path / "proc/cpuinfo").write_text(text)
    for name in ("format/ldlat", "events/mem-loads"):
        path = tmp_path / choose.DEVICES / "cpu" / name
        path.parent.mkdir(parents=True)
        path.write_text("x\n")
    choice = choose.Chooser(tmp_path, seconds=60).choose()
    assert choice.rung == "operand"
    assert "perf refused cpu/mem-loads,ldlat=30/P: " in choice.why[0]
    assert choice.count is None
    assert all("perf refused" in why for why in choice.count_why)
