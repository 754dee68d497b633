"""Situations set up live: the right cause and no other, and a fix that works when it is run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from scenarios.table import SCENARIOS, run  # noqa: E402 (found only once its folder is on the path)
from scenarios.workload import (  # noqa: E402
    Server,
    asking,
    numatrace,
    record,
    server_command,
    serving,
    wait_for_url,
)

NODES = len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))
DISK = Path("/mnt/disk")
SECONDS = 8.0

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


def analyzed(trace: Path) -> dict[str, Any]:
    done = numatrace("analyze", str(trace), "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def causes(report: dict[str, Any]) -> list[str]:
    return [finding["cause"] for finding in report["findings"]]


def test_s10_bound_and_healthy(model: Path, tmp_path: Path) -> None:
    trace = tmp_path / "s10.arrow"
    run(SCENARIOS["S10"], model, trace, SECONDS)
    report = analyzed(trace)
    assert report["verdict"]["kind"] == "healthy", report["verdict"]
    assert causes(report) == []
    assert report["layers"]


def test_s1_is_named_and_its_fix_makes_it_healthy(model: Path, tmp_path: Path) -> None:
    """The emitted commands are run as they stand, and the second recording is healthy."""
    scenario = SCENARIOS["S1"]
    scenario.prepare()
    before, after = tmp_path / "before.arrow", tmp_path / "after.arrow"
    command = [*scenario.wrapper, *server_command(model, *scenario.options)]
    with serving(command, tmp_path / "before.log") as server:
        with asking(server.url):
            record(server.pid, before, SECONDS)
        report = analyzed(before)
        assert report["verdict"]["kind"] == "fix", report["verdict"]
        assert causes(report) == ["C1"]
        fix = report["findings"][0]["fixes"][0]
        with fixed(server, fix["steps"], tmp_path / "after.log") as again, asking(again.url):
            record(again.pid, after, SECONDS)
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
