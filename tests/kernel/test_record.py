"""`numatrace record` as a user runs it: what ends it, what it writes, what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.compute as pc
import pytest
from pyarrow import Table, ipc

from numatrace.record.bpf.stimulus import Stimulus
from numatrace.record.options import Options
from numatrace.record.session import Session
from numatrace.record.tensors.gguf_table import Candidate, GgufFinder
from numatrace.trace.reader import Trace

if TYPE_CHECKING:
    from .conftest import Record

pytestmark = pytest.mark.kernel

NEVER_READ = Candidate("never.gguf", ())


def table_of(path: Path) -> Table:
    return ipc.open_file(path).read_all()


def rows(table: Table, kind: str) -> list[dict[str, object]]:
    return table.filter(pc.equal(table["kind"].cast("string"), kind)).to_pylist()


def wait_for(path: Path, process: subprocess.Popen[str], timeout_s: float = 10.0) -> None:
    """Until the trace is there: the recorder has attached."""
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline, "the recorder did not attach"
        time.sleep(0.01)


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    return out + err


def test_ctrl_c_ends_it_with_a_closed_file_and_a_summary(record: Record, tmp_path: Path) -> None:
    trace = tmp_path / "trace.arrow"
    with Stimulus() as stimulus:
        process = record("-p", str(stimulus.pid))
        wait_for(trace, process)
        answer = stimulus.touch(1000)
        stimulus.burn(200_000_000)
        process.send_signal(signal.SIGINT)
        said = finish(process)
    assert "interrupted" in said
    assert "next: numatrace analyze trace.arrow" in said
    table = table_of(trace)
    [end] = rows(table, "end")
    assert end["detail"] == "interrupted"
    low, high = answer["addr"], answer["addr"] + answer["bytes"]
    hits = [row for row in rows(table, "fault") if low <= (row["addr"] or 0) < high]
    assert sum(row["weight"] for row in hits) == 1000
    counted = sum(row["count"] for row in rows(table, "fault_count"))
    assert counted == sum(row["weight"] for row in rows(table, "fault"))
    oncpu = [row for row in rows(table, "oncpu") if row["tid"] == stimulus.pid]
    assert sum(row["oncpu_ns"] for row in oncpu) > 190_000_000
    mapped = [row for row in rows(table, "map") if row["tgid"] == stimulus.pid]
    assert any(row["path"] == "[stack]" for row in mapped)
    placed = [row for row in rows(table, "place") if row["tgid"] == stimulus.pid]
    assert sum(row["node_bytes"] for row in placed if row["mem_node"] >= 0) > 1 << 20


def test_time_ends_it(record: Record, tmp_path: Path) -> None:
    with Stimulus() as stimulus:
        said = finish(record("-p", str(stimulus.pid), "-d", "1", "-o", "a.arrow", "--json"))
    summary = json.loads(said.strip().splitlines()[0])
    assert summary["reason"] == "time"
    assert 1.0 <= summary["status"]["elapsed_s"] < 5.0
    assert summary["recorder_peak_bytes"] < 300 << 20
    assert summary["status"]["size_bytes"] == (tmp_path / "a.arrow").stat().st_size


def test_a_second_signal_ends_the_wait_for_tensor_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session whose tables never come: it waits until it is told to hurry."""
    monkeypatch.setattr(GgufFinder, "poll", lambda _: [])
    with Stimulus() as stimulus:
        session = Session(Options(tmp_path / "trace.arrow"))
        session.start([stimulus.pid])
        session.memory.finder._waiting.append(NEVER_READ)
        session.stop("interrupted")
        assert session.memory.waits_for_tables
        threading.Timer(0.5, session.stop, ["again"]).start()
        began = time.monotonic()
        summary = session.finish()
    assert 0.4 < time.monotonic() - began < 10
    assert summary.reason == "interrupted"
    assert rows(table_of(tmp_path / "trace.arrow"), "end")


def test_the_end_of_the_targets_ends_it(record: Record, tmp_path: Path) -> None:
    stimulus = Stimulus()
    process = record("-p", str(stimulus.pid))
    wait_for(tmp_path / "trace.arrow", process)
    stimulus.close()
    assert "the last target ended" in finish(process)


def test_a_command_is_followed_from_its_first_instruction(record: Record, tmp_path: Path) -> None:
    """Its child is born during the recording, and touches 2,000 pages of its own."""
    child = (
        "import mmap; m = mmap.mmap(-1, 2000 * 4096); [m.write(b'x' * 4096) for _ in range(2000)]"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    finish(record("--", sys.executable, "-c", parent))
    table = table_of(tmp_path / "trace.arrow")
    births = [row for row in rows(table, "fork") if row["tid"] == row["tgid"]]
    born = {row["tgid"] for row in births}
    assert born
    assert born <= {row["tgid"] for row in rows(table, "exec")}
    faults = sum(row["count"] for row in rows(table, "fault_count") if row["tgid"] in born)
    assert faults > 2000


def test_no_follow_leaves_children_alone(record: Record, tmp_path: Path) -> None:
    with Stimulus() as stimulus:
        process = record("-p", str(stimulus.pid), "--no-follow")
        wait_for(tmp_path / "trace.arrow", process)
        answer = stimulus.lifecycle()
        process.send_signal(signal.SIGTERM)
        finish(process)
    assert answer["pid"] not in table_of(tmp_path / "trace.arrow")["tgid"].to_pylist()


def test_the_recorder_does_not_follow_itself(record: Record, tmp_path: Path) -> None:
    """It is a child of this process, which it is told to follow with all below."""
    process = record("-p", str(os.getpid()), "-d", "1")
    finish(process)
    recorded = table_of(tmp_path / "trace.arrow")["tgid"].to_pylist()
    assert os.getpid() in recorded
    assert process.pid not in recorded


def test_left_over_pids_are_targets(record: Record, tmp_path: Path) -> None:
    with Stimulus() as one, Stimulus() as two, Stimulus() as three:
        pids = [str(each.pid) for each in (one, two, three)]
        finish(record("-p", *pids, "-d", "0.5"))
    recorded = {row["tgid"] for row in rows(table_of(tmp_path / "trace.arrow"), "process")}
    assert {int(pid) for pid in pids} <= recorded


def gone_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["-p", str(gone_pid())], "no process with this pid"),
        (["-p", "2"], "kernel thread"),
        (["-p", str(os.getpid()), "-o", "missing/trace.arrow"], "no folder"),
        (["-p", str(os.getpid()), "-o", "/dev/null"], "device"),
        (["-p", str(os.getpid()), "nonsense"], "not a process id"),
        (["-p", str(os.getpid()), "--", "true"], "either pids or"),
        ([], "no pid and no command"),
        (["--", "no-such-program-anywhere"], "no such program"),
        (["-p", str(os.getpid()), "--ring-pages", "3"], "power of two"),
    ],
)
def test_wrong_calls_say_what_why_and_what_to_do(
    record: Record, tmp_path: Path, arguments: list[str], why: str
) -> None:
    said = finish(record(*arguments), status=2)
    assert why in said
    assert "do:" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_thread_id_is_refused_with_its_process(record: Record) -> None:
    ready, leave = threading.Event(), threading.Event()
    tids: list[int] = []

    def body() -> None:
        tids.append(threading.get_native_id())
        ready.set()
        leave.wait()

    thread = threading.Thread(target=body)
    thread.start()
    ready.wait()
    said = finish(record("-p", str(tids[0])), status=2)
    leave.set()
    thread.join()
    assert f"thread of process {os.getpid()}" in said


def test_an_existing_trace_is_kept_without_force(record: Record, tmp_path: Path) -> None:
    trace = tmp_path / "trace.arrow"
    trace.write_bytes(b"precious")
    assert "--force" in finish(record("-p", str(os.getpid()), "-d", "0.2"), status=2)
    assert trace.read_bytes() == b"precious"
    finish(record("-p", str(os.getpid()), "-d", "0.2", "--force"))
    assert rows(table_of(trace), "end")


def test_a_target_that_goes_at_once(record: Record, tmp_path: Path) -> None:
    """It may be gone before attach (an error) or after (a short trace), never a traceback."""
    target = subprocess.Popen(["sleep", "0.4"])
    process = record("-p", str(target.pid))
    target.wait()
    out, err = process.communicate(timeout=30)
    assert process.returncode in (0, 2), err
    assert "Traceback" not in out + err
    if process.returncode == 0:
        assert "the last target ended" in out


def test_a_full_disk_is_an_error_that_keeps_what_was_written(
    record: Record, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", disk], check=True)
    try:
        with Stimulus() as stimulus:
            process = record("-p", str(stimulus.pid), "-o", str(disk / "trace.arrow"))
            wait_for(disk / "trace.arrow", process)
            deadline = time.monotonic() + 30
            while process.poll() is None and time.monotonic() < deadline:
                stimulus.touch(2000)
            said = finish(process, status=1)
        assert "No space left" in said
        with Trace.open(disk / "trace.arrow") as trace:
            read = sum(batch.num_rows for batch in trace.batches())
            assert read > 0
            assert trace.problems
    finally:
        subprocess.run(["umount", disk], check=True)


def test_kill_9_at_any_moment_leaves_a_readable_trace_and_an_unharmed_target(
    record: Record, tmp_path: Path
) -> None:
    """Ten moments from before the first batch to some batches on; the target's work goes on."""
    with Stimulus() as stimulus:
        for n in range(10):
            name = tmp_path / f"{n}.arrow"
            process = record("-p", str(stimulus.pid), "-o", str(name))
            wait_for(name, process)
            moment = time.monotonic() + 0.05 + 0.29 * n
            work = 0
            while time.monotonic() < moment:
                stimulus.touch(100)
                work += 1
            process.kill()
            process.communicate()
            with Trace.open(name) as trace:
                kinds = {kind for batch in trace.batches() for kind in batch["kind"].to_pylist()}
                assert trace.problems
            assert {"system", "process"} <= kinds
            if n >= 7:  # two seconds on, at least one batch with totals is there
                assert {"oncpu", "fault_count", "place"} <= kinds
            # The target never noticed: it answers, was not stopped, and no signal waits for it.
            assert stimulus.touch(10)["bytes"] == 10 * 4096
            status = Path(f"/proc/{stimulus.pid}/status").read_text()
            assert "SigPnd:\t0000000000000000" in status
            assert "TracerPid:\t0" in status


def test_refused_without_privileges(tmp_path: Path) -> None:
    """As nobody, it fails at once, in doctor's words."""
    command = [sys.executable, "-m", "numatrace", "record", "-p", "1"]
    started = time.monotonic()
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command],
        cwd="/",
        capture_output=True,
        text=True,
    )
    if "No module named numatrace" in done.stderr or "Permission denied" in done.stderr:
        pytest.skip("the checkout cannot be read by other users here")
    assert done.returncode == 1, done.stderr
    assert "sudo" in done.stderr
    assert time.monotonic() - started < 5
