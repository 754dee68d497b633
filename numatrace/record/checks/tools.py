"""Checks of what is beside BPF: page placement, perf, the PMU, and the tools that fixes use."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import re
import subprocess
from collections import Counter

from numatrace.record.checks.capability import Capability, Host, errno_text, one_line
from numatrace.record.machine.distribution import read_distribution

TOOL_TIMEOUT_S = 10.0
"""Longest that a program which we ask something may take."""

SYS_MOVE_PAGES = {"x86_64": 279, "aarch64": 239}
"""Number of move_pages(2) in the architecture's system call table."""

ASKED_PAGES = 16


def own_page_nodes(pages: int = ASKED_PAGES) -> list[int]:
    """Nodes of `pages` fresh pages of ours, by move_pages(2) in query mode. Raises OSError.

    A negative entry is an errno for that page.
    """
    number = SYS_MOVE_PAGES.get(platform.machine())
    if number is None:
        raise OSError(38, os.strerror(38))  # ENOSYS
    with mmap.mmap(-1, pages * mmap.PAGESIZE) as area:
        for page in range(pages):
            area[page * mmap.PAGESIZE] = 1
        anchor = ctypes.c_char.from_buffer(area)
        start = ctypes.addressof(anchor)
        addresses = (ctypes.c_void_p * pages)(
            *(start + page * mmap.PAGESIZE for page in range(pages))
        )
        status = (ctypes.c_int * pages)()
        libc = ctypes.CDLL(None, use_errno=True)
        result = libc.syscall(
            ctypes.c_long(number),
            ctypes.c_long(0),
            ctypes.c_ulong(pages),
            addresses,
            None,
            status,
            ctypes.c_long(0),
        )
        error = ctypes.get_errno()
        del anchor  # the area cannot be closed while it is exported
    if result < 0:
        raise OSError(error, os.strerror(error))
    return list(status)


def check_placement(_host: Host) -> Capability:
    """Whether the kernel says on which node a page is; asked about pages of our own."""
    title = "page placement"
    try:
        nodes = own_page_nodes()
    except OSError as error:
        return _no_placement(f"move_pages(2) answered {errno_text(error)}")
    lost = [node for node in nodes if node < 0]
    if lost:
        return _no_placement(
            f"move_pages(2) gave no node for {len(lost)} of {len(nodes)} pages: "
            f"{errno_text(-lost[0])}"
        )
    where = ", ".join(f"{count} on node {node}" for node, count in sorted(Counter(nodes).items()))
    return Capability("placement", title, "yes", f"move_pages found {where}")


def _no_placement(why: str) -> Capability:
    return Capability(
        "placement",
        "page placement",
        "degraded",
        "not available",
        lost="on which node memory is, so no report on remote accesses",
        why=why,
        todo="Run numatrace on the host: container sandboxes forbid move_pages, "
        "and a kernel without CONFIG_NUMA and CONFIG_MIGRATION lacks it",
    )


def _run(argv: list[str]) -> tuple[int, str]:
    """Exit status and output (both streams, bounded) of a short command; -1 if it did not run."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TOOL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return -1, str(error)
    return done.returncode, done.stdout[: 1 << 16].decode("utf-8", "replace")


def check_perf(host: Host) -> Capability:
    """Whether perf is installed and runs."""
    path = host.which("perf")
    if path is None:
        return _no_perf(host, "not found", "no program perf in PATH")
    status, output = _run([path, "--version"])
    match = re.search(r"perf version (\S+)", output)
    if status != 0 or match is None:
        # Ubuntu's perf is a script that looks for the running kernel's own perf.
        return _no_perf(host, "does not run", f"{path} --version says: {one_line(output)}")
    return Capability("perf", "perf", "yes", f"{one_line(match[1], 40)}, {path}")


def _no_perf(host: Host, value: str, why: str) -> Capability:
    return Capability(
        "perf",
        "perf",
        "degraded",
        value,
        lost="samples and counters of the CPU: memory accesses are sampled by its clocks instead",
        why=one_line(why),
        todo=read_distribution(host.root).install("perf", root=host.euid == 0),
    )


def check_fix_tools(host: Host) -> Capability:
    """Whether the programs that fixes and their verification use are installed."""
    title = "numactl, numastat"
    missing = [name for name in ("numactl", "numastat") if host.which(name) is None]
    if not missing:
        return Capability("fix_tools", title, "yes", "found")
    return Capability(
        "fix_tools",
        title,
        "degraded",
        f"without {' and '.join(missing)}",
        lost="nothing of a recording; fixes and their verification use them",
        why=f"no program {' or '.join(missing)} in PATH",
        todo=read_distribution(host.root).install("numactl", root=host.euid == 0),
    )
