"""What is done to a machine before a server starts, or beside it: full nodes, cgroups, others."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from scenarios.workload import end

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CGROUP = Path("/sys/fs/cgroup/numatrace-server")
CHUNK = 4 << 20

HOG = """
import ctypes, mmap, sys
memory = mmap.mmap(-1, int(sys.argv[1]))
for at in range(0, len(memory), 4096):
    memory[at] = 1
libc = ctypes.CDLL(None, use_errno=True)
if libc.mlockall(1):
    sys.exit(f"mlockall: errno {ctypes.get_errno()}")
print("full", flush=True)
sys.stdin.read()
"""

NEIGHBOUR = """
import os, sys, time
cpu, turn = int(sys.argv[1]), int(sys.argv[2])
os.sched_setaffinity(0, {cpu})
while True:
    while int(time.monotonic() / 0.5) % 2 == turn:
        pass
    time.sleep(0.02)
"""


def free_bytes(node: int) -> int:
    """Free memory of a node, as its meminfo says."""
    text = Path(f"/sys/devices/system/node/node{node}/meminfo").read_text()
    line = next(line for line in text.splitlines() if "MemFree:" in line)
    return int(line.split()[-2]) * 1024


@contextlib.contextmanager
def filled(left_bytes: Mapping[int, int]) -> Iterator[None]:
    """Leave only so much free memory on each of these nodes, until the block ends."""
    with contextlib.ExitStack() as stack:
        for node, left in left_bytes.items():
            size = free_bytes(node) - left
            if size > CHUNK:
                stack.enter_context(_hog(node, size))
        yield


@contextlib.contextmanager
def _hog(node: int, size: int) -> Iterator[None]:
    command = ["numactl", f"--membind={node}", sys.executable, "-c", HOG, str(size)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout
        if process.stdout.readline() != b"full\n":
            raise RuntimeError(f"node {node} cannot be filled with {size} bytes")
        yield
    finally:
        end(process)


@contextlib.contextmanager
def neighbours(cpus_by_turn: Sequence[Sequence[int]]) -> Iterator[None]:
    """A process on each CPU that works half a second, when it is its turn, and sleeps the next.

    So the scheduler has to move other threads all the time to where there is room.
    """
    processes = [
        subprocess.Popen([sys.executable, "-c", NEIGHBOUR, str(cpu), str(turn)])
        for turn, cpus in enumerate(cpus_by_turn)
        for cpu in cpus
    ]
    try:
        yield
    finally:
        for process in processes:
            end(process)


@contextlib.contextmanager
def cgroup(cpus: str, mems: str) -> Iterator[tuple[str, ...]]:
    """A cgroup with this cpuset; gives what to put before a command that is to run in it."""
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+cpuset\n")
    CGROUP.mkdir(exist_ok=True)
    try:
        (CGROUP / "cpuset.cpus").write_text(f"{cpus}\n")
        (CGROUP / "cpuset.mems").write_text(f"{mems}\n")
        yield ("sh", "-c", f'echo $$ > {CGROUP}/cgroup.procs && exec "$@"', "sh")
    finally:
        remove_cgroup()


def remove_cgroup() -> None:
    """Remove the cgroup, once its last process has gone."""
    for _ in range(50):
        try:
            CGROUP.rmdir()
            return
        except OSError:
            time.sleep(0.1)


def read_by(model: Path, parts: Sequence[tuple[int, float]]) -> None:
    """Have one node after the other read its part of a file, so that its page cache lies there."""
    size, begin = model.stat().st_size, 0
    for node, part in parts:
        count = round(part * size)
        command = ["numactl", f"--membind={node}", sys.executable, "-c", READER]
        subprocess.run([*command, str(model), str(begin), str(count)], check=True)
        begin += count


READER = """
import os, sys
name, begin, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
file = os.open(name, os.O_RDONLY)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)  # no reading ahead into another node's part
while count > 0 and (data := os.pread(file, min(count, 1 << 20), begin)):
    begin, count = begin + len(data), count - len(data)
"""


def running(needle: str) -> list[int]:
    """Processes with this text in their command line, the newest first."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                if needle.encode() in (folder / "cmdline").read_bytes():
                    began = int((folder / "stat").read_text().rpartition(")")[2].split()[19])
                    found.append((began, int(folder.name)))
    return [pid for _, pid in sorted(found, reverse=True)]
