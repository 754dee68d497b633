"""The main job on real input: a llama.cpp server that answers requests, recorded and analyzed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import pyarrow.compute as pc
import pytest
from pyarrow import Table, ipc

from numatrace.trace.reader import Trace

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from scenarios.workload import (  # noqa: E402 (found only once its folder is on the path)
    Server,
    asking,
    record,
    server_command,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Record

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.gguf"
    command = [sys.executable, str(ROOT / "scripts/make-model"), str(path), "--size-mb", "24"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Server]:
    with serving(server_command(model, "--threads", "2"), model.with_suffix(".log")) as running:
        yield running


@pytest.fixture(scope="module")
def trace(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server under load, recorded for some seconds."""
    path = tmp_path_factory.mktemp("trace") / "llama.arrow"
    with asking(server.url):
        record(server.pid, path, 4)
    return path


def rows(trace: Path, kind: str) -> list[dict[str, object]]:
    table: Table = ipc.open_file(trace).read_all()
    return table.filter(pc.equal(table["kind"].cast("string"), kind)).to_pylist()


def ask(url: str, *options: str) -> dict[str, object]:
    command = [sys.executable, str(ROOT / "scripts/ask-model"), "--url", url, "--json", *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def analyze(trace: Path, *options: str) -> str:
    command = [sys.executable, "-m", "numatrace", "analyze", str(trace), *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_server_is_found_and_named(trace: Path, server: Server) -> None:
    [end] = rows(trace, "end")
    assert f"process {server.pid}: llama-server" in json.loads(str(end["value"]))["server"]


def test_tensor_bytes_are_the_gguf_table_to_the_byte(trace: Path, model: Path) -> None:
    table = {tensor.name: int(tensor.n_bytes) for tensor in gguf.GGUFReader(model).tensors}
    assert {row["name"]: row["bytes"] for row in rows(trace, "tensor")} == table
    report = json.loads(analyze(trace, "--json"))
    assert {each["name"]: each["bytes"] for each in report["tensors"]} == table
    assert sum(each["bytes"] for each in report["layers"]) == sum(table.values())


def test_every_weight_is_placed(trace: Path, model: Path) -> None:
    """The server touches all weights: the bytes of each tensor lie on nodes, none is absent."""
    for tensor in json.loads(analyze(trace, "--json"))["tensors"]:
        assert sum(tensor["node_bytes"].values()) + tensor["absent_bytes"] == tensor["bytes"]
        assert tensor["absent_bytes"] == 0, tensor["name"]


def test_time_of_every_thread_equals_schedstat(
    server: Server, tmp_path: Path, record: Record
) -> None:
    """Within 1 % for each thread with work, or a quarter of a tick where it has little."""
    path = tmp_path / "trace.arrow"
    process = record("-p", str(server.pid))
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.3)
    before = schedstat_ns(server.pid)
    ask(server.url, "--seconds", "3")
    time.sleep(0.2)  # the workers are off their CPUs: schedstat is exact only then
    after = schedstat_ns(server.pid)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    counted: dict[int, int] = {}
    for row in rows(path, "oncpu"):
        counted[row["tid"]] = counted.get(row["tid"], 0) + row["oncpu_ns"]
    busy = {
        tid: after[tid] - before[tid] for tid in before if after[tid] - before[tid] > 50_000_000
    }
    assert len(busy) >= 2
    for tid, grown_ns in busy.items():
        assert counted[tid] == pytest.approx(grown_ns, rel=0.01), tid


def schedstat_ns(pid: int) -> dict[int, int]:
    return {
        int(task.name): int((task / "schedstat").read_text().split()[0])
        for task in Path(f"/proc/{pid}/task").iterdir()
    }


def test_faults_equal_the_kernels_count_under_llama(
    model: Path, tmp_path: Path, record: Record
) -> None:
    """A server that reads its model into fresh memory while it is recorded: thousands of faults."""
    command = server_command(model, "--threads", "2", "--load-mode", "none")
    process = record("-o", "load.arrow", "-d", "8", "--", *command)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, out + err
    path = tmp_path / "load.arrow"
    counted = sum(row["count"] for row in rows(path, "fault_count"))
    kernel = sum(row["count"] for row in rows(path, "counter"))
    assert kernel > 6000
    assert counted == pytest.approx(kernel, rel=0.01)


def test_one_node_is_an_answer(trace: Path) -> None:
    """S12: this machine. (On one with more nodes this test has nothing to say.)"""
    if len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) > 1:
        pytest.skip("this machine has several nodes")
    report = json.loads(analyze(trace, "--json"))
    assert report["verdict"]["kind"] == "one-node"
    assert report["findings"] == []
    text = analyze(trace)
    assert "nothing is remote here" in text
    assert "blk.0" in text
    assert max(map(len, text.splitlines())) < 80


def test_analysis_of_a_trace_is_the_same_every_time(trace: Path) -> None:
    assert analyze(trace) == analyze(trace)


def test_a_killed_recorder_leaves_the_server_as_it_was(
    server: Server, tmp_path: Path, record: Record
) -> None:
    """Same answers before, while and after; the trace so far is analyzed."""
    before = ask(server.url, "--requests", "2")
    process = record("-p", str(server.pid))
    while not (tmp_path / "trace.arrow").exists():
        assert process.poll() is None
        time.sleep(0.01)
    during = ask(server.url, "--seconds", "3")
    process.kill()
    process.communicate()
    after = ask(server.url, "--requests", "2")
    key = "answers_sha256"
    assert before[key] == during[key] == after[key]
    with Trace.open(tmp_path / "trace.arrow") as cut:
        assert sum(batch.num_rows for batch in cut.batches()) > 100
        assert cut.problems
    assert "ends early" in analyze(tmp_path / "trace.arrow")
