"""The documents about the machine and its processes, from the readers of /sys and /proc."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from numatrace.model.cpulist import NODE_LIMIT, parse_cpulist
from numatrace.model.document import TEXT_LIMIT
from numatrace.model.process import (
    ARGV_BYTES,
    ARGV_COUNT,
    COMM_LIMIT,
    ENVIRON_COUNT,
    ENVIRON_VALUE_LIMIT,
    Process,
    Thread,
)
from numatrace.record.machine import procfs, sysfs
from numatrace.record.machine.cgroup import V2, read_cgroup
from numatrace.record.machine.containers import named
from numatrace.record.machine.deployment import deployment
from numatrace.record.machine.files import read_bytes, read_link, to_integer
from numatrace.record.machine.gpus import read_devices

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path("/")
ENVIRON_BYTES = 2 << 20
"""Bytes of an environment that are looked through: what execve(2) takes with an 8 MiB stack."""
WITHHELD = "(withheld)"
POLICIES_S = 0.1
"""How long a process's threads are asked for their policies: what is left over stays unknown."""

_WANTED = re.compile(r"(LLAMA_ARG|OLLAMA|OMP|GGML|GOMP)_[A-Z0-9_]{1,64}")
"""Variables that configure a server. The rest of an environment is nobody's business: secrets."""
_ESCAPED = re.compile(r"\\([n\\])")
"""What a status file escapes in a name: newlines and backslashes."""
_SECRET = re.compile(r"API_?KEY|TOKEN|SECRET|PASSW", re.IGNORECASE)
_SECRET_OPTION = re.compile(r"--?(api-key|hf-token|hft|token|secret|password)", re.IGNORECASE)


def machine_documents(root: Path = ROOT) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield name and value of the `system` rows topology, memory, sysctl, kernel and devices."""
    yield "topology", sysfs.read_topology(root).to_json()
    yield memory_document(root)
    yield "sysctl", sysfs.read_sysctl(root).to_json()
    yield "kernel", sysfs.read_kernel(root).to_json()
    yield "devices", read_devices(root).to_json()


def memory_document(root: Path = ROOT) -> tuple[str, dict[str, object]]:
    """Return name and value of the `system` row memory alone, for the intervals."""
    return "memory", sysfs.read_memory(root).to_json()


def process_document(pid: int, root: Path = ROOT) -> dict[str, object] | None:
    """Return the value of a `process` row; None if there is no such process any more."""
    process = read_process(pid, root)
    return process.to_json() if process else None


def thread_document(pid: int, tid: int, root: Path = ROOT) -> dict[str, object] | None:
    """Return the value of a `thread` row; None if there is no such thread any more."""
    thread = read_thread(pid, tid, root)
    return thread.to_json() if thread else None


def read_process(pid: int, root: Path = ROOT) -> Process | None:
    """Read all that a `process` row tells. What this user may not read stays empty.

    None if the process is gone.
    """
    proc = root / "proc"
    stat = procfs.stat(pid, proc)
    status = procfs.status(f"{proc}/{pid}/status")
    if stat is None or status is None:
        return None
    cgroup = read_cgroup(pid, root)
    return Process(
        tgid=pid,
        ppid=stat.ppid,
        comm=stat.comm[:COMM_LIMIT],
        argv=_argv(read_bytes(f"{proc}/{pid}/cmdline", ARGV_BYTES) or b""),
        exe=read_link(proc / str(pid) / "exe")[:TEXT_LIMIT],
        cwd=read_link(proc / str(pid) / "cwd")[:TEXT_LIMIT],
        uid=_effective_uid(status),
        start_ns=stat.start_ns,
        n_threads=stat.n_threads,
        cpus_allowed=_allowed(status, "Cpus_allowed_list"),
        mems_allowed=_allowed(status, "Mems_allowed_list", NODE_LIMIT),
        policy=procfs.policy(pid, pid, proc),
        cgroup=cgroup,
        deployment=named(deployment(_telling(cgroup.paths)), tuple(cgroup.paths.values()), root),
        environment=_environment(read_bytes(f"{proc}/{pid}/environ", ENVIRON_BYTES) or b""),
    )


def read_thread(
    pid: int, tid: int, root: Path = ROOT, *, with_policy: bool = True
) -> Thread | None:
    """Read all that a `thread` row tells; None if the thread is gone."""
    proc = root / "proc"
    status = procfs.status(f"{proc}/{pid}/task/{tid}/status")
    if status is None or "Name" not in status:
        return None
    return Thread(
        tid=tid,
        comm=_unescaped(status["Name"])[:COMM_LIMIT],
        cpus_allowed=_allowed(status, "Cpus_allowed_list"),
        mems_allowed=_allowed(status, "Mems_allowed_list", NODE_LIMIT),
        policy=procfs.policy(pid, tid, proc) if with_policy else "",
    )


def read_threads(pid: int, root: Path = ROOT) -> tuple[Thread, ...]:
    """Read all threads of a process that are there; none if it is gone."""
    started = time.monotonic()
    found: list[Thread] = []
    for tid in procfs.thread_ids(pid, root / "proc"):
        in_time = time.monotonic() - started < POLICIES_S
        thread = read_thread(pid, tid, root, with_policy=in_time)
        if thread is not None:
            found.append(thread)
    return tuple(found)


def _telling(paths: Mapping[str, str]) -> Sequence[str]:
    # Where both versions are mounted, systemd keeps its units in version 2 or in its own
    # hierarchy, and some runtimes only use the controllers of version 1.
    first = [paths[name] for name in (V2, "name=systemd") if name in paths]
    return [*first, *paths.values()]


def _argv(data: bytes) -> tuple[str, ...]:
    arguments = data.removesuffix(b"\0").split(b"\0")[:ARGV_COUNT] if data else []
    texts = [argument.decode("utf-8", "replace") for argument in arguments]
    for index, text in enumerate(texts):
        option, equals, _ = text.partition("=")
        if _SECRET_OPTION.fullmatch(option):
            if equals:
                texts[index] = f"{option}={WITHHELD}"
            elif index + 1 < len(texts):
                texts[index + 1] = WITHHELD
    return tuple(texts)


def _environment(data: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in data.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        text = name[:80].decode("ascii", "replace")
        if not equals or _WANTED.fullmatch(text) is None or len(found) >= ENVIRON_COUNT:
            continue
        shown = value[:ENVIRON_VALUE_LIMIT].decode("utf-8", "replace")
        found[text] = WITHHELD if _SECRET.search(text) else shown
    return found


def _effective_uid(status: Mapping[str, str]) -> int:
    words = status.get("Uid", "").split()
    return to_integer(words[1]) or 0 if len(words) == 4 else 0


def _allowed(status: Mapping[str, str], name: str, limit: int = 1 << 14) -> tuple[int, ...]:
    try:
        return parse_cpulist(status.get(name, ""), limit)
    except ValueError:
        return ()


def _unescaped(name: str) -> str:
    return _ESCAPED.sub(lambda match: "\n" if match[1] == "n" else "\\", name)
