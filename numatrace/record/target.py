"""Whether the processes that the user named can be recorded."""

from __future__ import annotations

from pathlib import Path

from numatrace.model.errors import UsageError
from numatrace.record.machine import procfs


def check_targets(pids: list[int], proc: Path = Path("/proc")) -> None:
    """Raise UsageError for a pid that does not exist, is a thread's, or is the kernel's own."""
    for pid in pids:
        what = f"cannot record process {pid}"
        todo = "list candidates with: pgrep -a 'ollama|llama-server'"
        if not procfs.is_alive(pid, proc):
            raise UsageError(what, "there is no process with this pid", todo)
        if procfs.is_kernel_thread(pid, proc):
            raise UsageError(what, f"it is a kernel thread ({procfs.comm(pid, proc)})", todo)
        leader = procfs.tgid_of(pid, proc)
        if leader not in (None, pid):
            raise UsageError(what, f"it is a thread of process {leader}", f"use -p {leader}")
