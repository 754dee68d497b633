"""A sampling session against programs in perf's place: good, silent, endless, hostile."""

from __future__ import annotations

import os
import signal
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from numatrace.record.pmu.choose import Choice
from numatrace.record.pmu.hardware import HardwareSource
from numatrace.record.pmu.perf_session import PerfSampling
from numatrace.record.pmu.plan import CountPlan, SamplePlan, record_command, script_command
from numatrace.record.pmu.tables import Count, Counts
from numatrace.trace.writer import TraceWriter
from tests.unit.pmu_fake import FIELDS, calls, fake_perf, line, show

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAN = SamplePlan("pebs", ("cpu/mem-loads,ldlat=30/P",), "loads", hz=199, fields=FIELDS)
HEADER = b"PERFILE2" + struct.pack("=Q", 16)
REMOTE_DRAM = 0x2 | (0x102 << 5) | (0xD << 33) | (1 << 37)
GONE = 1 << 30
WAIT = "trap 'exit 0' INT; while :; do sleep 0.05; done"
DEAF = "trap '' INT TERM; while :; do sleep 0.2; done"
EAT = "cat > /dev/null"


def stream(samples: int, *others: bytes) -> bytes:
    sample = struct.pack("=IHH", 9, 1, 72) + bytes(64)
    return HEADER + sample * samples + b"".join(others)


def record_of(kind: int, *numbers: int) -> bytes:
    return struct.pack(f"=IHH{len(numbers)}Q", kind, 0, 8 + 8 * len(numbers), *numbers)


def finished(session: PerfSampling, seconds: float = 10.0) -> int:
    """Samples that came until the end."""
    return sum(len(one.t_ns) for chunks in session.finish(seconds) for one in chunks)


def started(perf: str, plan: SamplePlan = PLAN, **options: int) -> PerfSampling:
    session = PerfSampling(perf, plan, **options)
    session.start([os.getpid()])
    return session


def wait_for(condition: object, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)


def alive(pids: tuple[int, ...]) -> list[int]:
    """Those that still run; a zombie is a process that nobody reaped."""
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    left = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children]
    assert not [line for line in left if b"perf" in line or not line], "a process or a zombie"


def test_replayed_samples_come_through(tmp_path: Path) -> None:
    text = "".join(line(100 + i / 1000, 0x7000 + i, REMOTE_DRAM) for i in range(2000))
    perf = fake_perf(
        tmp_path,
        record=show(stream(2000), tmp_path, "stream") + "\n" + WAIT,
        script=f"{EAT}\n{show(text, tmp_path, 'text')}",
    )
    session = started(perf)
    wait_for(lambda: session.tap.totals.samples == 2000)
    assert finished(session) == 2000
    assert session.failure() == ""
    assert session.dropped == 0
    assert sorted(call.split()[0] for call in calls(tmp_path)) == ["record", "script"]


def test_what_nobody_takes_is_dropped_and_counted(tmp_path: Path) -> None:
    text = "".join(line(100 + i / 1000, 0x7000, REMOTE_DRAM) for i in range(20_000))
    perf = fake_perf(
        tmp_path,
        record=show(stream(20_000), tmp_path, "stream") + "\n" + WAIT,
        script=f"{show(text, tmp_path, 'text')}\n{EAT}",
    )
    session = started(perf, queue_chunks=2)
    wait_for(lambda: session.reader.totals.samples == 20_000)
    taken = finished(session)
    assert session.dropped > 0
    assert taken + session.dropped == 20_000


@pytest.mark.parametrize(
    ("record", "script", "failure"),
    [
        (DEAF, EAT, "killed"),  # perf record that does not end when told
        (WAIT, DEAF, "killed"),  # perf script that does not end when its input does
        (WAIT, "cat /dev/zero", "killed"),  # one endless line
        (f"cat /dev/zero & {DEAF}", EAT, "killed"),
        ("yes perf", "yes garbage", "killed"),
        (f"yes perf >&2 & {WAIT}", EAT, ""),  # endless complaints
        ("echo 'No permission to enable' >&2; exit 255", EAT, "record: No permission to enable"),
        (WAIT, "echo 'incompatible file format' >&2; exit 255", "script: incompatible file"),
        ("exit 0", "exit 0", ""),
        ("kill -9 $$", EAT, "record: it ended with status -9"),
    ],
)
def test_whatever_perf_does_the_end_comes_in_time(
    tmp_path: Path, record: str, script: str, failure: str
) -> None:
    session = started(fake_perf(tmp_path, record=record, script=script))
    if not failure.startswith("killed"):
        wait_for(lambda: calls(tmp_path))
        time.sleep(0.3)
    else:
        time.sleep(0.2)
    pids = session.pids
    began = time.monotonic()
    finished(session, 1.5)
    assert time.monotonic() - began < 15
    assert failure in session.failure()
    assert bool(failure) == bool(session.failure())
    assert not alive(pids)
    assert not session.running


def test_a_script_without_output_for_real_samples_is_a_failure(tmp_path: Path) -> None:
    """perf 6.1 ends with 0 and no word where it cannot read a record."""
    perf = fake_perf(
        tmp_path, record=show(stream(50), tmp_path, "stream") + "\n" + WAIT, script=EAT
    )
    session = started(perf)
    wait_for(lambda: session.tap.totals.samples == 50)
    assert finished(session) == 0
    assert session.failure() == "perf script made none of 50 samples into text"


def test_the_commands_sample_what_was_planned() -> None:
    command = " ".join(record_command("/usr/bin/perf", PLAN, [7, 8], 5))
    for words in (
        "record -q", "-k CLOCK_MONOTONIC", "-F 199", "-e cpu/mem-loads,ldlat=30/P", "-p 7,8",
        "-o -", "--control=fd:5", "-d", "-W", "--sample-cpu", "-T", "--synth=no",
    ):  # fmt: skip
        assert f" {words}" in command
    wide = SamplePlan("ibs", ("ibs_op//",), "", hz=50, system_wide=True, modern=False)
    command = " ".join(record_command("perf", wide, [7], None))
    assert " -a" in command
    assert "-p" not in command
    assert "--control" not in command
    assert "--synth" not in command
    spe = SamplePlan("spe", ("arm_spe_0//",), "", period=99, fields=FIELDS)
    assert "-k" not in record_command("perf", spe, [7])
    assert "--itrace=M" in script_command("perf", spe)
    assert "--itrace=M" not in script_command("perf", PLAN)


def test_perf_is_asked_to_hand_over_what_it_holds(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    body = (
        'for word in "$@"; do case "$word" in --control=fd:*) fd="${word#--control=fd:}";; esac; '
        f"done\nhead -c 5 < /dev/fd/$fd > '{heard}'\n{WAIT}"
    )
    session = started(fake_perf(tmp_path, record=body, script=EAT))
    session.ping()
    wait_for(lambda: heard.exists() and heard.read_bytes() == b"ping\n")
    for _ in range(20_000):  # a perf that does not listen makes nobody wait
        session.ping()
    finished(session)


# --- as the session uses it


class Recording:
    """A HardwareSource with a real trace behind it."""

    def __init__(
        self, folder: Path, sample: SamplePlan | None, perf: str, targets: list[int],
        count: CountPlan | None = None,
    ) -> None:  # fmt: skip
        self.path = folder / "trace.arrow"
        self.writer = TraceWriter.create(self.path)
        self.notes: list[str] = []
        choice = Choice("hardware", (), "cpu", perf=perf, sample=sample, count=count)
        self.source = HardwareSource(
            choice, self.writer, lambda name, text: self.notes.append(f"{name}: {text}"),
            lambda: targets, root=folder,
        )  # fmt: skip
        for tgid in targets:
            self.source.attached(tgid)
        self.source.start()

    def end(self) -> list[dict[str, object]]:
        self.source.stop()
        self.source.look({})
        self.source.finish()
        self.source.close()
        self.writer.close()
        return list(pa.ipc.open_file(self.path).read_all().to_pylist())


def test_rows_losses_and_remarks_of_a_recording(tmp_path: Path) -> None:
    nothing = 0x1
    texts = [
        *(line(100 + i / 1000, 0, REMOTE_DRAM, pid=GONE) for i in range(30)),
        *(line(200, 0x1000, nothing, pid=GONE) for _ in range(5)),
        *(line(300, 0x1000, REMOTE_DRAM, pid=GONE + 1) for _ in range(7)),
        "not a sample\n",
    ]
    events = (record_of(5, 1, 2, 3), record_of(2, 1, 11), record_of(13, 4))
    perf = fake_perf(
        tmp_path,
        record=show(stream(42, *events), tmp_path, "stream") + "\n" + WAIT,
        script=f"{EAT}\n{show(''.join(texts), tmp_path, 'text')}",
    )
    recording = Recording(tmp_path, PLAN, perf, [GONE])
    wait_for(lambda: recording.source._sessions[0].tap.totals.lost == 11)
    recording.source.tick()
    rows = recording.end()
    access = [row for row in rows if row["kind"] == "access"]
    assert len(access) == recording.source.rows == 30
    first = access[0]
    assert (first["t_ns"], first["tgid"], first["cpu"]) == (100_000_000_000, GONE, 1)
    assert (first["detail"], first["name"], first["weight"]) == ("remote DRAM", "pebs", 2003)
    assert (first["latency_cycles"], first["data_src"], first["addr"]) == (300, REMOTE_DRAM, None)
    losses = {row["detail"]: row["count"] for row in rows if row["kind"] == "loss"}
    assert losses == {"perf's buffer was full": 11, "perf printed what is no sample": 1}
    assert {row["name"] for row in rows if row["kind"] == "loss"} == {"access"}
    rate = next(row for row in rows if row["kind"] == "rate")
    assert (rate["name"], rate["time_ns"], rate["count"]) == ("pebs", 1_000_000_000 // 199, None)
    for remark in (
        "5 samples neither read nor wrote memory",
        "7 samples were of processes that are not followed",
        "1 times the kernel paused sampling, to keep within its limits",
    ):
        assert f"hardware samples: {remark}" in recording.notes


def test_a_perf_that_ends_too_early_is_told_at_once_and_once(tmp_path: Path) -> None:
    perf = fake_perf(tmp_path, record="echo 'Too many open files' >&2; exit 255", script=EAT)
    recording = Recording(tmp_path, PLAN, perf, [GONE])
    wait_for(lambda: not recording.source.sampling)
    recording.source.tick()
    recording.source.tick()
    recording.end()
    assert recording.notes == ["hardware samples: perf record: Too many open files"]


def test_a_perf_that_is_gone_is_a_note(tmp_path: Path) -> None:
    recording = Recording(tmp_path, PLAN, str(tmp_path / "no-perf"), [GONE])
    recording.source.look({})
    recording.source.tick()
    assert [row["kind"] for row in recording.end()] == []
    assert recording.notes[0].startswith("hardware samples: perf cannot be started: ")


def test_without_a_plan_nothing_runs(tmp_path: Path) -> None:
    recording = Recording(tmp_path, None, "", [GONE])
    recording.source.look({})
    recording.source.tick()
    assert recording.end() == []
    assert recording.notes == []


def test_slowing_down_starts_perf_anew_at_half_the_rate(tmp_path: Path) -> None:
    perf = fake_perf(tmp_path, record=WAIT, script=EAT)
    recording = Recording(tmp_path, PLAN, perf, [os.getpid()])
    wait_for(lambda: len(calls(tmp_path)) == 2)  # one that is ended sooner would tell nothing
    recording.source.slow_down("too dear")
    recording.source.look({})
    wait_for(lambda: len(calls(tmp_path)) == 4)
    rows = recording.end()
    rates = [(row["time_ns"], row["detail"]) for row in rows if row["kind"] == "rate"]
    assert rates == [(1_000_000_000 // 199, "as asked for"), (1_000_000_000 // 99, "too dear")]
    assert sum(" -F 99 " in call for call in calls(tmp_path)) == 1


# --- counters

COUNT = CountPlan((Counts("x", "s", (
    Count("reads", "local", "LOCAL", "cpu/event=0x44/", "fills"),
    Count("reads", "remote", "REMOTE", "node-load-misses", "fills"),
)),))  # fmt: skip
JSON = (
    '{{"interval" : {t}, "thread" : "a b-{tid}", "counter-value" : "{value}", "unit" : "", '
    '"event" : "{event}", "event-runtime" : 900, "pcnt-running" : {share}, '
    '"metric-value" : 0.0, "metric-unit" : "(null)"}}\n'
)


def counter_rows(*rows: tuple[float, str, str, float]) -> str:
    tid = os.getpid()
    return "".join(
        JSON.format(t=t, tid=tid, event=event, value=value, share=share)
        for t, event, value, share in rows
    )


def stat_body(text: str, folder: Path, then: str = WAIT) -> str:
    find = 'while [ "$1" != --log-fd ]; do shift; done\n'
    return f"{find}{show(text, folder, 'counts')} > /dev/fd/$2\n{then}"


def test_counters_become_rows_with_their_population(tmp_path: Path) -> None:
    text = counter_rows(
        (1.0, "reads.local", "1200.000000", 100.0),
        (1.0, "node-load-misses:u", "300.000000", 40.0),
        (1.0, "something else", "5.000000", 100.0),
        (2.0, "reads.local", "<not counted>", 0.0),
        (2.0, "node-load-misses:u", "<not supported>", 0.0),
    )
    perf = fake_perf(tmp_path, stat=stat_body(text + '{"thread" : "cut-1", "coun', tmp_path))
    recording = Recording(tmp_path, None, perf, [os.getpid()], COUNT)
    wait_for(lambda: recording.source._counters.reader.totals.counts == 5)
    rows = [row for row in recording.end() if row["kind"] == "counter"]
    assert [(row["name"], row["count"], row["time_ns"], row["detail"]) for row in rows] == [
        ("reads.local", 1200, 900, "LOCAL: fills"),
        ("reads.remote", 300, 900, "REMOTE: fills"),
    ]
    assert {(row["tgid"], row["tid"]) for row in rows} == {(os.getpid(), os.getpid())}
    assert recording.notes == [
        "counters: reads.remote is not supported here",
        "counters: reads.remote was on the hardware 40 % of the time, and scaled",
        "counters: 1 rows of perf stat were not kept",
    ]
    assert "-e cpu/event=0x44,name=reads.local/ -e node-load-misses" in calls(tmp_path)[0]


@pytest.mark.parametrize("then", [DEAF, "yes >&2", "kill -9 $$", "exit 1"])
def test_the_end_of_counting_comes_in_time_too(tmp_path: Path, then: str) -> None:
    recording = Recording(tmp_path, None, fake_perf(tmp_path, stat=then), [os.getpid()], COUNT)
    wait_for(lambda: calls(tmp_path))
    time.sleep(0.2)
    pids = recording.source._counters.pids
    began = time.monotonic()
    assert recording.end() == []
    assert time.monotonic() - began < 15
    assert len(recording.notes) == 1
    assert not alive(pids)


def test_interrupts_are_meant_for_us_and_not_for_perf(tmp_path: Path) -> None:
    """Ctrl-C goes to the whole foreground group: perf must not be in ours."""
    session = started(fake_perf(tmp_path, record=WAIT, script=EAT))
    assert {os.getpgid(pid) for pid in session.pids}.isdisjoint({os.getpgrp()})
    finished(session)
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
