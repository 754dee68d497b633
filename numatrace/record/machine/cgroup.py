"""Reads a process's cgroups, version 1 and 2, and the cpuset, CPU and memory limits in force."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from numatrace.model.cpulist import CPU_LIMIT, NODE_LIMIT
from numatrace.model.process import CGROUP_COUNT, Cgroup
from numatrace.record.machine.files import read_cpulist, read_integer, read_text, to_integer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

V2 = ""
"""Name of cgroup version 2 among the hierarchies, as in /proc/PID/cgroup."""
MOUNTS_LIMIT = 4 << 20
PATH_LIMIT = 4096
NO_LIMIT = 1 << 62
"""Version 1 says "no limit" of memory as a huge number, rounded to pages."""

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where a cgroup hierarchy is mounted, and which of its folders is seen there."""

    point: Path
    top: str


def cgroup_paths(pid: int, proc: Path) -> dict[str, str]:
    """Return a process's cgroup paths by hierarchy: "" is version 2, else a controller's name."""
    paths: dict[str, str] = {}
    for line in (read_text(f"{proc}/{pid}/cgroup", 1 << 16) or "").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if to_integer(number) is None or not path.startswith("/"):
            continue
        for name in names.split(","):
            paths[name[:64]] = path[:PATH_LIMIT]
    return dict(list(paths.items())[:CGROUP_COUNT])


def hierarchies(root: Path) -> dict[str, Hierarchy]:
    """Return the mounted hierarchies by the names of `cgroup_paths`; see proc_pid_mountinfo(5)."""
    found: dict[str, Hierarchy] = {}
    text = read_text(root / "proc/self/mountinfo", MOUNTS_LIMIT) or ""
    for line in text.splitlines():
        head, _, tail = line.partition(" - ")
        fields, kinds = head.split(" "), tail.split(" ")
        if len(fields) < 6 or len(kinds) < 3 or kinds[0] not in ("cgroup", "cgroup2"):
            continue
        names = [V2] if kinds[0] == "cgroup2" else kinds[2].split(",")
        top, point = _plain(fields[3]), _plain(fields[4])
        for name in names:
            found.setdefault(name, Hierarchy(root / point.lstrip("/"), top))
    return found


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def read_cgroup(pid: int, root: Path) -> Cgroup:
    """Return a process's cgroups and the limits in force; empty where they cannot be read."""
    paths = cgroup_paths(pid, root / "proc")
    mounted = hierarchies(root)
    unified = list(_upward(mounted.get(V2), paths.get(V2)))
    cpuset = list(_upward(mounted.get("cpuset"), paths.get("cpuset")))
    cpu = list(_upward(mounted.get("cpu"), paths.get("cpu")))
    memory = list(_upward(mounted.get("memory"), paths.get("memory")))
    v1_cpus = ("cpuset.effective_cpus", "cpuset.cpus")
    v1_mems = ("cpuset.effective_mems", "cpuset.mems")
    return Cgroup(
        paths=paths,
        cpus=_nearest(cpuset, v1_cpus, CPU_LIMIT)
        or _nearest(unified, ("cpuset.cpus.effective",), CPU_LIMIT),
        mems=_nearest(cpuset, v1_mems, NODE_LIMIT)
        or _nearest(unified, ("cpuset.mems.effective",), NODE_LIMIT),
        quota_cpus=min([*_quotas_v2(unified), *_quotas_v1(cpu)], default=None),
        memory_max_bytes=min(_memory_limits(unified, memory), default=None),
    )


def _upward(hierarchy: Hierarchy | None, path: str | None) -> Iterator[Path]:
    """Folders of the cgroup and of those around it, up to what is mounted."""
    if hierarchy is None or path is None:
        return
    top = hierarchy.top.rstrip("/")
    if top and (path == top or path.startswith(f"{top}/")):
        path = path[len(top) :]
    names = [name for name in path.split("/") if name]
    # A cgroup outside of this process's namespace is shown as "/../x": nothing to be read there.
    if ".." in names:
        return
    for depth in range(len(names), -1, -1):
        yield hierarchy.point.joinpath(*names[:depth])


def _nearest(folders: Iterable[Path], names: tuple[str, ...], limit: int) -> tuple[int, ...]:
    # A cgroup without the cpuset controller has that of the nearest one around it.
    for folder in folders:
        for name in names:
            if found := read_cpulist(folder / name, limit):
                return found
    return ()


def _quotas_v2(folders: Iterable[Path]) -> Iterator[float]:
    for folder in folders:
        words = (read_text(folder / "cpu.max", 64) or "").split()
        quota_us, period_us = (to_integer(word) for word in (*words, "", "")[:2])
        if quota_us and period_us:
            yield quota_us / period_us


def _quotas_v1(folders: Iterable[Path]) -> Iterator[float]:
    for folder in folders:
        quota_us = read_integer(folder / "cpu.cfs_quota_us")  # -1, no number here, is no limit
        period_us = read_integer(folder / "cpu.cfs_period_us")
        if quota_us and period_us:
            yield quota_us / period_us


def _memory_limits(unified: Iterable[Path], memory: Iterable[Path]) -> Iterator[int]:
    files = [folder / "memory.max" for folder in unified]
    files += [folder / "memory.limit_in_bytes" for folder in memory]
    for limit in map(read_integer, files):
        if limit is not None and limit < NO_LIMIT:
            yield limit
