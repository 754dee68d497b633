"""Reads processes and threads from /proc: numbers, names, times, policies and who started whom.

Every function takes the `proc` folder, so that a captured tree works as the live machine does.
Processes vanish at any moment: what can no longer be read is None or empty, nothing raises.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from numatrace.model.process import PID_LIMIT
from numatrace.record.machine.files import (
    numbered,
    read_bytes,
    read_link,
    read_once,
    read_text,
    to_integer,
)

PROC = Path("/proc")
PF_KTHREAD = 0x0020_0000
"""Flag of a thread that the kernel made for itself (linux/sched.h)."""
INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO, 0xEFFFFFFC (linux/proc_ns.h)."""
POLICY_WALK_LIMIT = 2 << 30
"""Bytes of a first mapping up to which numa_maps is asked: it walks all pages there, in 30 ms."""

_STATUS = re.compile(r"^(\w+):[ \t]*(.*)$", re.MULTILINE)
# mpol_to_str() of mm/mempolicy.c; two of its names hold a space.
_POLICY = re.compile(
    r"[0-9a-f]+ ((?:weighted interleave|prefer \(many\)|[a-z]+)(?:=[a-z|]+)?(?::[0-9,-]+)?)[ \n]"
)


@dataclass(frozen=True, slots=True)
class Stat:
    """Fields of a process's or thread's stat file; see proc_pid_stat(5).

    For a process, faults and times are of all its threads, living and dead. Times are in ns, in
    steps of a clock tick; `start_ns` is after boot.
    """

    pid: int
    comm: str
    state: str
    ppid: int
    flags: int
    minflt: int
    majflt: int
    utime_ns: int
    stime_ns: int
    n_threads: int
    start_ns: int
    cpu: int


@dataclass(frozen=True, slots=True)
class Schedstat:
    """A thread's time on CPU, time waiting for one, and number of times it was put on one."""

    oncpu_ns: int
    wait_ns: int
    slices: int


def parse_stat(data: bytes, ticks_per_s: int = 100) -> Stat | None:
    """Take a stat file apart, or return None if it is not one.

    The comm stands in parentheses and may hold spaces and parentheses itself, so its end is the
    last one in the line.
    """
    head, _, tail = data.partition(b"(")
    comm, closing, rest = tail.rpartition(b")")
    words = rest.decode("ascii", "replace").split()
    if not closing or len(words) < 37:
        return None
    # Field N of proc_pid_stat(5) is numbers[N - 4]; fields 1 to 3 are pid, comm and state.
    numbers = [to_integer(word) for word in words[1:]]
    wanted = [to_integer(head.decode("ascii", "replace").strip())]
    wanted += [numbers[field - 4] for field in (4, 9, 10, 12, 14, 15, 20, 22, 39)]
    found = [number for number in wanted if number is not None]
    if len(found) != len(wanted):
        return None
    pid, ppid, flags, minflt, majflt, utime, stime, n_threads, start, cpu = found
    tick_ns = 1_000_000_000 // ticks_per_s
    times = (utime * tick_ns, stime * tick_ns, n_threads, start * tick_ns, cpu)
    name = comm.decode("utf-8", "replace")
    return Stat(pid, name, words[0], ppid, flags, minflt, majflt, *times)


def stat(pid: int, proc: Path = PROC, tid: int | None = None) -> Stat | None:
    """Return the stat of a process, or of one of its threads; None if it is gone."""
    task = f"/task/{tid}" if tid is not None else ""
    data = read_bytes(f"{proc}/{pid}{task}/stat", 4096)
    return None if data is None else parse_stat(data, os.sysconf("SC_CLK_TCK"))


def cpu_s(pid: int, proc: Path = PROC) -> float:
    """CPU seconds of a process so far; 0 once it was waited for, and they are its parent's."""
    found = stat(pid, proc)
    return 0.0 if found is None else (found.utime_ns + found.stime_ns) / 1e9


def schedstat(pid: int, tid: int, proc: Path = PROC) -> Schedstat | None:
    """Return a thread's scheduling times; None if it is gone or the kernel keeps none."""
    words = (read_text(f"{proc}/{pid}/task/{tid}/schedstat", 128) or "").split()
    numbers = [number for number in map(to_integer, words) if number is not None]
    return Schedstat(*numbers) if len(numbers) == len(words) == 3 else None


def status(path: str) -> dict[str, str] | None:
    """Return the fields of a status file, by name; None if the thread is gone."""
    text = read_text(path, 1 << 16)
    return None if text is None else dict(_STATUS.findall(text))


def is_alive(pid: int, proc: Path = PROC) -> bool:
    """Whether there is such a process, or thread, and it has not ended.

    A process whose first thread has ended shows as a zombie, and lives on in the others.
    """
    found = stat(pid, proc)
    return found is not None and (found.state not in {"Z", "X", "x"} or found.n_threads > 1)


def is_kernel_thread(pid: int, proc: Path = PROC) -> bool:
    """Whether the pid is one of the kernel's own threads."""
    found = stat(pid, proc)
    return found is not None and bool(found.flags & PF_KTHREAD)


def comm(pid: int, proc: Path = PROC) -> str:
    """Return the name of a process, or thread, as it is: "" if it is gone."""
    found = stat(pid, proc)
    return found.comm if found else ""


def tgid_of(pid: int, proc: Path = PROC) -> int | None:
    """Return the process that a pid belongs to: itself, unless it is a thread's."""
    found = status(f"{proc}/{pid}/status")
    return to_integer(found.get("Tgid")) if found else None


def thread_ids(pid: int, proc: Path = PROC) -> tuple[int, ...]:
    """Return the threads of a process, ascending; none if it is gone."""
    return numbered(f"{proc}/{pid}/task", "", PID_LIMIT)


def children(pid: int, proc: Path = PROC) -> tuple[int, ...]:
    """Return the processes that a process has started and that still live, ascending.

    The kernel lists them per thread that forked (CONFIG_PROC_CHILDREN); without that, every
    process is asked for its parent.
    """
    tids = thread_ids(pid, proc)
    lists = [read_text(f"{proc}/{pid}/task/{tid}/children", 1 << 20) for tid in tids]
    if tids and all(text is None for text in lists):
        return _children_by_parent(pid, proc)
    words = " ".join(text for text in lists if text).split()
    return tuple(sorted({number for number in map(to_integer, words) if number}))


def _children_by_parent(pid: int, proc: Path) -> tuple[int, ...]:
    stats = (stat(each, proc) for each in numbered(proc, "", PID_LIMIT))
    return tuple(each.pid for each in stats if each is not None and each.ppid == pid)


def process_tree(pids: list[int], proc: Path = PROC) -> tuple[int, ...]:
    """Return the processes and everything below them, parents before children, each once."""
    found: dict[int, None] = {}
    waiting = list(reversed(pids))
    while waiting:
        pid = waiting.pop()
        if pid not in found and stat(pid, proc) is not None:
            found[pid] = None
            waiting.extend(reversed(children(pid, proc)))
    return tuple(found)


def ancestors(pid: int, proc: Path = PROC) -> tuple[int, ...]:
    """Return the processes above a process, nearest first, without process 1."""
    found: list[int] = []
    current = stat(pid, proc)
    while current is not None and current.ppid > 1 and current.ppid not in {pid, *found}:
        found.append(current.ppid)
        current = stat(current.ppid, proc)
    return tuple(found)


def policy(pid: int, tid: int, proc: Path = PROC) -> str:
    """Return a thread's memory policy as numa_maps writes it, or "" if it cannot be told.

    There is no other file that tells another task's policy. A line of numa_maps shows the policy
    of its mapping, which is the task's unless mbind(2) set another: the first mapping is the
    program itself, where nobody does. Formatting a line walks all pages of its mapping, and the
    kernel formats lines until the read is satisfied, so the read is smaller than a line and is
    not done where the first mapping is large.
    """
    if not 0 < first_mapping_bytes(pid, proc) <= POLICY_WALK_LIMIT:
        return ""
    path = f"{proc}/{pid}/task/{tid}/numa_maps"
    match = _POLICY.match(read_once(path, 64)) or _POLICY.match(read_once(path, 1024))
    return match[1] if match else ""


def first_mapping_bytes(pid: int, proc: Path = PROC) -> int:
    """Return the size of the process's lowest mapping; 0 if it has none or cannot be read."""
    match = re.match(r"([0-9a-f]{1,16})-([0-9a-f]{1,16}) ", read_once(f"{proc}/{pid}/maps", 64))
    return int(match[2], 16) - int(match[1], 16) if match else 0


def in_initial_pid_namespace(proc: Path = PROC) -> bool:
    """Whether pids seen here are those that the kernel's events carry: not so in a container.

    Without the link (a kernel without pid namespaces) they are.
    """
    return read_link(proc / "self/ns/pid") in {"", INITIAL_PID_NAMESPACE}


def peak_bytes(proc: Path = PROC) -> int:
    """Return the largest resident memory of this process; 0 where it is not told.

    Not getrusage(2): its maximum is that of the program before the exec where that was larger.
    """
    found = status(f"{proc}/self/status") or {}
    kib = to_integer(found.get("VmHWM", "").removesuffix(" kB"))
    return (kib or 0) << 10


def fault_counters(pid: int, proc: Path = PROC) -> dict[str, int]:
    """Return the kernel's own count of a process's page faults; empty when it is gone."""
    found = stat(pid, proc)
    return {} if found is None else {"minflt": found.minflt, "majflt": found.majflt}
