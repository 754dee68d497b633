"""Situations set up live: the right cause and no other, and a fix that works when it is run."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from known.known import Buffer, Slot

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from scenarios.pool import PARTS, pooling  # noqa: E402 (found only once its folder is on the path)
from scenarios.table import SCENARIOS, run  # noqa: E402
from scenarios.trial import analyzed  # noqa: E402
from scenarios.workload import (  # noqa: E402
    Server,
    asking,
    record,
    server_command,
    serving,
    wait_for_url,
)

NODES = len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))
DISK = Path("/mnt/disk")
SECONDS = 8.0
SHORT = 4.0
"""Where nothing has to be measured."""

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(NODES < 2, reason=f"needs two NUMA nodes, has {NODES}"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model on a real file system: its page cache lies on nodes."""
    folder = DISK if DISK.is_mount() else tmp_path_factory.mktemp("model")
    path = folder / "model.gguf"
    command = [sys.executable, str(ROOT / "scripts/make-model"), str(path), "--size-mb", "24"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


def causes(report: dict[str, Any]) -> list[str]:
    return [finding["cause"] for finding in report["findings"]]


def test_s10_bound_and_healthy(model: Path, tmp_path: Path) -> None:
    trace = tmp_path / "s10.arrow"
    run(SCENARIOS["S10"], model, trace, SECONDS)
    report = analyzed(trace)
    assert report["verdict"]["kind"] == "healthy", report["verdict"]
    assert causes(report) == []
    assert report["layers"]


def told(report: dict[str, Any]) -> str:
    """The verdict's sentence and its reasons."""
    verdict = report["verdict"]
    return " ".join([verdict["sentence"], *(each["text"] for each in verdict["reasons"])])


def test_s13_idle_asks_for_a_recording_under_load(model: Path, tmp_path: Path) -> None:
    trace = tmp_path / "s13.arrow"
    run(SCENARIOS["S13"], model, trace, SHORT)
    report = analyzed(trace)
    assert report["verdict"]["kind"] == "withheld", report["verdict"]
    assert causes(report) == []
    assert "idle" in told(report)
    assert "Record again while the server answers requests" in told(report)


def test_s22_losses_are_counted_and_withhold_the_verdict(model: Path, tmp_path: Path) -> None:
    trace = tmp_path / "s22.arrow"
    said = run(SCENARIOS["S22"], model, trace, SHORT)
    assert "larger --ring-pages" in said
    lost = int(re.search(r"lost .*?fault ([\d,]+)", said)[1].replace(",", ""))
    report = analyzed(trace)
    assert report["verdict"]["kind"] == "withheld", report["verdict"]
    assert causes(report) == []
    [fault] = [loss for loss in report["losses"] if loss["family"] == "fault"]
    assert fault["lost"] == lost
    assert fault["lost"] / fault["recorded"] > 0.05
    assert f"{lost:,}" in told(report)
    assert "--ring-pages" in told(report)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "shown"),
    [("S20-old", "/bin/ollama runner"), ("S20-new", "/lib/ollama/llama-server --model")],
)
def test_s20_the_server_below_ollama_is_found_and_serve_is_what_changes(
    name: str, shown: str, model: Path, tmp_path: Path
) -> None:
    """The recording is of `ollama serve`; the fix for the newer one is run as it stands."""
    scenario = SCENARIOS[name]
    scenario.prepare()
    before, after = tmp_path / "before.arrow", tmp_path / "after.arrow"
    with serving(scenario.served(model), tmp_path / "before.log") as serve:
        child = server_pid(serve.pid)
        assert child != serve.pid
        record(serve.pid, before, SECONDS, load=partial(asking, serve.url))
        report = analyzed(before)
        [server] = [each for each in report["processes"] if each["is_server"]]
        assert (server["tgid"], server["ptgid"]) == (child, serve.pid)
        assert shown in " ".join(server["argv"][:2])
        assert report["verdict"]["kind"] == "fix", report["verdict"]
        assert causes(report)[0] == "C1"
        steps = report["findings"][0]["fixes"][0]["steps"]
        assert any(f"kill {serve.pid} " in step["command"] for step in steps)
        assert steps[-1]["command"].endswith("/bin/ollama serve")
        if name == "S20-old":
            return
        with fixed(serve, steps, tmp_path / "after.log") as again:
            record(again.pid, after, SECONDS, load=partial(asking, again.url))
    healthy = analyzed(after)
    assert healthy["verdict"]["kind"] == "healthy", healthy["verdict"]
    assert causes(healthy) == []


@pytest.mark.long
def test_s21_new_workers_for_every_graph_are_slots_of_one_pool(model: Path, tmp_path: Path) -> None:
    """Each worker's time and remote share are told over its hundred threads, as they were."""
    scenario = SCENARIOS["S21"]
    scenario.prepare()
    trace = tmp_path / "s21.arrow"
    with (
        pooling(scenario.wrapper, model, tmp_path / "s21.log") as workload,
        ThreadPoolExecutor(1) as beside,
    ):
        recording = beside.submit(record, workload.pid, trace, SECONDS, *scenario.record_options)
        while not trace.exists() and not recording.done():
            time.sleep(0.1)  # what the workers do while the recorder starts is not compared
        begun = workload.mark()
        time.sleep(SECONDS)
        done = workload.mark().since(begun)
        recording.result()
    report = analyzed(trace)
    assert report["verdict"]["kind"] == "fix", report["verdict"]
    assert causes(report)[0] == "C1"
    slots = {each["tid"]: each for each in report["threads"] if each["members"] > 1}
    assert len(slots) == len(PARTS) - 1
    for true, old in zip(done.slots[1:], begun.slots[1:], strict=True):
        [found] = [slots[tid] for tid in slots if tid in true.tids]
        assert found["members"] > 0.5 * (len(true.tids) - len(old.tids)) > 20
        oncpu_ns = sum(found["oncpu_ns"].values())
        reading = true.time_ns()["weights"] / true.time_ns().total()
        assert found["read_ns"] / oncpu_ns == pytest.approx(reading, abs=0.1), report["threads"]
        remote = remote_share(true, workload.buffers["weights"])
        assert found["remote_share"]["value"] == pytest.approx(remote, abs=0.1), report["threads"]


def remote_share(slot: Slot, buffer: Buffer) -> float:
    """The remote part of a worker's time on a buffer, as the worker itself counted it."""
    [item] = [item for item in slot.items if item.key == buffer.name]
    remote = sum(ns * buffer.remote_from(node) for node, ns in item.time_ns.items())
    return remote / sum(item.time_ns.values())


def test_s1_is_named_and_its_fix_makes_it_healthy(model: Path, tmp_path: Path) -> None:
    """The emitted commands are run as they stand, and the second recording is healthy."""
    scenario = SCENARIOS["S1"]
    scenario.prepare()
    before, after = tmp_path / "before.arrow", tmp_path / "after.arrow"
    command = [*scenario.wrapper, *server_command(model, *scenario.options)]
    with serving(command, tmp_path / "before.log") as server:
        record(server.pid, before, SECONDS, load=partial(asking, server.url))
        report = analyzed(before)
        assert report["verdict"]["kind"] == "fix", report["verdict"]
        assert causes(report) == ["C1"]
        fix = report["findings"][0]["fixes"][0]
        with fixed(server, fix["steps"], tmp_path / "after.log") as again:
            record(again.pid, after, SECONDS, load=partial(asking, again.url))
    healthy = analyzed(after)
    assert healthy["verdict"]["kind"] == "healthy", healthy["verdict"]
    assert causes(healthy) == []


@contextlib.contextmanager
def fixed(old: Server, steps: list[dict[str, Any]], log: Path) -> Iterator[Server]:
    """Run the steps of a fix: those before the last must end well, the last one is the server."""
    *first, last = [step["command"] for step in steps]
    stopping = subprocess.Popen(["bash", "-c", " && ".join(first)])
    old.process.wait(60)  # our child: until we wait for it, it stays a zombie
    assert stopping.wait(60) == 0
    with log.open("wb") as output:
        shell = subprocess.Popen(
            ["bash", "-c", last], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield Server(shell, wait_for_url(shell, log), server_pid(shell.pid))
    finally:
        os.killpg(shell.pid, signal.SIGTERM)
        shell.wait(60)


def server_pid(shell: int) -> int:
    """The server that a shell started, or the shell itself if it became the server."""
    children = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
    return int(children[0]) if children else shell
