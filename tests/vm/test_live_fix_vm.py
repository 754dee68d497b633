"""Fixes without a restart, run on a process that maps a file: its pages and threads are moved."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from numatrace.analyze.fixes import cgroup, common, live
from numatrace.analyze.fixes.script import script
from numatrace.analyze.plans.plan import Plan
from numatrace.model.process import Cgroup
from tests.unit.fix_world import as_process, report_of, situation_of
from tests.unit.test_analyze_world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.model.findings import Fix

pytestmark = pytest.mark.vm

FILE = Path("/mnt/disk/model with 'odd' name.gguf")
SIZE_MB = 32
GROUP = Path("/sys/fs/cgroup/odd 'name'")
NODE_1 = Plan("live", (1,), (2, 3), True, None)
HOLDER = f"""
import ctypes, mmap, time
ctypes.CDLL(None).prctl(15, b"llama-server")  # PR_SET_NAME
with open({str(FILE)!r}, "rb") as file:
    held = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
print(sum(held[::4096]), flush=True)
while True:
    time.sleep(1)
"""


@pytest.fixture
def holder() -> Iterator[int]:
    """A process named llama-server that maps a file whose page cache is on node 0."""
    FILE.write_bytes(os.urandom(1 << 20) * SIZE_MB)
    os.sync()
    subprocess.run(["dd", f"if={FILE}", "iflag=nocache", "count=0"], check=True)
    command = ["numactl", "--membind=0", sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert file_pages(process.pid)[0] > 0.99
        yield process.pid
        process.kill()


def file_pages(pid: int) -> dict[int, float]:
    """The share of the file's mapped pages on each node, by numa_maps."""
    lines = Path(f"/proc/{pid}/numa_maps").read_text().splitlines()
    pages: Counter[int] = Counter({0: 0, 1: 0})
    for line in lines:
        if "model" in line and "file=" in line:
            pages.update({int(n): int(count) for n, count in re.findall(r"\bN(\d+)=(\d+)", line)})
    total = sum(pages.values())
    assert total >= SIZE_MB * 200, lines
    return {node: count / total for node, count in pages.items()}


def run(found: Fix, folder: Path, *arguments: str) -> None:
    path = folder / "fix.sh"
    path.write_text(script(report_of(found)))
    subprocess.run(["bash", path, *arguments], check=True, cwd=folder)


def test_a_process_by_hand_is_moved(holder: int, tmp_path: Path) -> None:
    now = as_process(replace(situation_of(World()), threads_used=2), tgid=holder)
    run(live.render(replace(now, deployment="hand"), NODE_1, ()), tmp_path)
    assert file_pages(holder)[1] > 0.95
    assert os.sched_getaffinity(holder) == {2, 3}
    run(live.render(replace(now, deployment="hand"), NODE_1, ()), tmp_path, "--undo")
    assert os.sched_getaffinity(holder) == {0, 1, 2, 3}


def test_a_cpuset_moves_what_is_mapped(holder: int, tmp_path: Path) -> None:
    GROUP.mkdir()
    (GROUP / "cpuset.cpus").write_text("0-1")
    (GROUP / "cpuset.mems").write_text("0")
    (GROUP / "cgroup.procs").write_text(str(holder))
    now = as_process(
        situation_of(World()),
        tgid=holder,
        cgroup=Cgroup(
            paths={"": str(GROUP).removeprefix("/sys/fs/cgroup")}, cpus=(0, 1), mems=(0,)
        ),
    )
    found = cgroup.render(now, replace(NODE_1, kind="cpuset"), ())
    run(found, tmp_path)
    time.sleep(1)
    assert (GROUP / "cpuset.mems").read_text().strip() == "1"
    assert os.sched_getaffinity(holder) == {2, 3}
    assert file_pages(holder)[1] > 0.95
    run(found, tmp_path, "--undo")
    assert (GROUP / "cpuset.cpus").read_text().strip() == "0-1"
    assert (GROUP / "cpuset.mems").read_text().strip() == "0"


def test_a_file_is_evicted_once_nobody_maps_it(tmp_path: Path) -> None:
    FILE.write_bytes(os.urandom(1 << 20) * SIZE_MB)
    os.sync()
    assert FILE.read_bytes()
    assert cached_mb() > SIZE_MB * 0.9
    for step in common.evict_steps(replace(NODE_1, evict=(str(FILE),)), needs_root=False):
        subprocess.run(["bash", "-c", step.command], check=True, cwd=tmp_path)
    assert cached_mb() < SIZE_MB * 0.1


def cached_mb() -> float:
    """How much of the file is in the page cache, by fincore."""
    done = subprocess.run(
        ["fincore", "--bytes", "--noheadings", "--output", "RES", FILE],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout) / (1 << 20)
