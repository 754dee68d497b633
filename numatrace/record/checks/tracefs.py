"""Checks of tracefs: mounted (or mountable), and the tracepoints in it."""

from __future__ import annotations

import ctypes
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from numatrace.record.bpf.plan import OPTIONAL_TRACEPOINTS, REQUIRED_TRACEPOINTS, Plan
from numatrace.record.checks.bpf import may_use_bpf, not_tried
from numatrace.record.checks.capability import Capability, Host, errno_text
from numatrace.record.checks.privileges import CAP_SYS_ADMIN, has_capability

if TYPE_CHECKING:
    from pathlib import Path

TRACEFS = "sys/kernel/tracing"
TRACEFS_OLD = "sys/kernel/debug/tracing"
"""Where tracefs is mounted; the second by debugfs itself, when that is mounted."""

RECLAIM = "telling time in which a thread frees memory"

LOST_WITHOUT: dict[str, str] = {
    "exceptions/page_fault_user": "page faults",
    "exceptions/page_fault_kernel": "page faults taken inside system calls",
    "sched/sched_switch": "time on CPU, and moves between nodes",
    "task/task_newtask": "threads and processes that begin",
    "sched/sched_process_exec": "programs that are replaced",
    "sched/sched_process_exit": "threads that end",
    "sched/sched_move_numa": "moves of threads by NUMA balancing",
    "sched/sched_swap_numa": "swaps of threads by NUMA balancing",
    "sched/sched_stick_numa": "failed moves of threads by NUMA balancing",
    "vmscan/mm_vmscan_direct_reclaim_begin": RECLAIM,
    "vmscan/mm_vmscan_direct_reclaim_end": RECLAIM,
    "vmscan/mm_vmscan_memcg_reclaim_begin": f"{RECLAIM} of its cgroup",
    "vmscan/mm_vmscan_memcg_reclaim_end": f"{RECLAIM} of its cgroup",
    "vmscan/mm_vmscan_node_reclaim_begin": f"{RECLAIM} of its node",
    "vmscan/mm_vmscan_node_reclaim_end": f"{RECLAIM} of its node",
}
"""What is lost without each tracepoint of `plan`."""


def tracefs_folder(host: Host) -> Path | None:
    """Where tracefs is mounted by /proc/self/mounts, or None."""
    mounted = {
        fields[1]
        for line in host.read("proc/self/mounts", 1 << 20).splitlines()
        if len(fields := line.split(" ")) > 2 and fields[2] == "tracefs"
    }
    places = (TRACEFS, TRACEFS_OLD)
    return next((host.root / place for place in places if f"/{place}" in mounted), None)


def mount_tracefs(host: Host) -> None:
    """Mount tracefs where it belongs. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    place = os.fsencode(host.root / TRACEFS)
    if libc.mount(b"tracefs", place, b"tracefs", ctypes.c_ulong(0), None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(host.root / TRACEFS))


def check_tracefs(host: Host) -> Capability:
    """Whether tracefs is mounted; mounts it when it is not and we may.

    A fresh system without systemd has it unmounted, and then bcc cannot build a program.
    """
    folder = tracefs_folder(host)
    if folder is not None:
        return Capability("tracefs", "tracefs", "yes", f"mounted at {folder}")
    if not has_capability(host, CAP_SYS_ADMIN):
        return _no_tracefs(host, "it is not mounted, and mounting it takes root")
    try:
        mount_tracefs(host)
    except OSError as error:
        why = f"it is not mounted, and mounting it failed: {errno_text(error)}"
        return _no_tracefs(host, why)
    return Capability("tracefs", "tracefs", "yes", f"numatrace has just mounted it at /{TRACEFS}")


def _no_tracefs(host: Host, why: str) -> Capability:
    return Capability(
        "tracefs",
        "tracefs",
        "no",
        "not mounted",
        lost="recording: bcc reads the layout of every tracepoint there",
        why=why,
        todo=host.as_root(f"mount -t tracefs tracefs /{TRACEFS}"),
    )


def check_tracepoints(host: Host) -> Capability:
    """Whether the kernel has each tracepoint that we attach to."""
    title = "tracepoints"
    if not may_use_bpf(host):
        return not_tried("tracepoints", title, host)
    folder = tracefs_folder(host)
    if folder is None:
        return replace(check_tracefs(host), id="tracepoints", title=title, value="not tried")
    plan = Plan(tracefs=folder)
    missing = plan.missing()
    total = len(REQUIRED_TRACEPOINTS + OPTIONAL_TRACEPOINTS)
    if not missing:
        return Capability("tracepoints", title, "yes", f"{total} of {total}")
    needed = [name for name in missing if name in REQUIRED_TRACEPOINTS]
    return Capability(
        "tracepoints",
        title,
        "no" if needed else "degraded",
        f"{total - len(missing)} of {total}",
        lost=("recording: " if needed else "")
        + ", ".join(dict.fromkeys(LOST_WITHOUT[n] for n in missing)),
        why=f"{folder / 'events'} has no {', '.join(missing)}",
        todo=_kernel_with(needed),
    )


def _kernel_with(needed: list[str]) -> str:
    if not needed:
        return (
            "Boot a kernel built with CONFIG_NUMA_BALANCING=y and CONFIG_MEMCG=y if these matter "
            "to you"
        )
    if any(name.startswith("exceptions/") for name in needed):
        return "Record on x86-64: other kernels have no tracepoint for page faults"
    return "Boot a kernel built with CONFIG_FTRACE=y and CONFIG_TRACEPOINTS=y"
