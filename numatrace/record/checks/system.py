"""Checks of the machine itself: kernel, architecture, nodes, NUMA balancing, Python."""

from __future__ import annotations

import platform
import re
import shlex
import sys
from importlib import metadata

from numatrace.record.checks.capability import Capability, Host, one_line

ARCHITECTURES = {"x86_64": "x86-64", "aarch64": "arm64"}

PACKAGES = ("pyarrow", "numpy", "gguf", "capstone", "psutil")
"""Python packages that recording needs at run time."""


def check_kernel(host: Host) -> Capability:
    """Linux, and its release."""
    title = "Linux kernel"
    if platform.system() != "Linux":
        return Capability(
            "kernel",
            title,
            "no",
            one_line(platform.system()) or "unknown",
            lost="recording; `numatrace analyze` works on traces from elsewhere",
            why=f"this is {one_line(platform.system()) or 'not Linux'}, and BPF is Linux's",
            todo="Record on the Linux machine that runs the server, and copy the trace here",
        )
    release = host.read("proc/sys/kernel/osrelease") or platform.release()
    return Capability("kernel", title, "yes", f"Linux {one_line(release)}")


def check_architecture(_host: Host) -> Capability:
    """x86-64 and arm64 are supported; others are not tried."""
    name = platform.machine()
    if name in ARCHITECTURES:
        return Capability("architecture", "architecture", "yes", ARCHITECTURES[name])
    return Capability(
        "architecture",
        "architecture",
        "degraded",
        one_line(name) or "unknown",
        lost="nothing for certain: the checks below say what works",
        why=f"numatrace is tested on x86-64 and arm64, not on {one_line(name) or 'this'}",
        todo="Read the checks below; each one was really tried here",
    )


def check_nodes(host: Host) -> Capability:
    """How many NUMA nodes there are."""
    folder = host.sys / "devices/system/node"
    names = [path.name for path in folder.glob("node[0-9]*")] if folder.is_dir() else []
    nodes = sorted(int(name[4:]) for name in names if re.fullmatch(r"node\d{1,5}", name))
    if not nodes:
        return Capability(
            "nodes",
            "NUMA nodes",
            "degraded",
            "none listed",
            lost="memory placement: all memory counts as one node's",
            why=f"{folder} lists no node, so this kernel is built without CONFIG_NUMA",
            todo="Boot a kernel built with CONFIG_NUMA=y if the machine has several nodes",
        )
    if len(nodes) == 1:
        return Capability("nodes", "NUMA nodes", "yes", "1, so nothing is remote on this machine")
    shown = ", ".join(map(str, nodes[:16])) + (", ..." if len(nodes) > 16 else "")
    return Capability("nodes", "NUMA nodes", "yes", f"{len(nodes)} ({shown})")


BALANCING = {
    "0": "off",
    "1": "on",
    "2": "memory tiering only",
    "3": "on, with memory tiering",
}
"""kernel.numa_balancing, a bit mask since 5.18; see Documentation/admin-guide/sysctl/kernel.rst."""


def check_balancing(host: Host) -> Capability:
    """The value of kernel.numa_balancing, which decides what the kernel moves by itself."""
    value = host.read("proc/sys/kernel/numa_balancing", 64).strip()
    if not value:
        meaning = "not in this kernel, so it moves neither threads nor pages"
    else:
        meaning = f"kernel.numa_balancing = {one_line(value)} ({BALANCING.get(value, 'unknown')})"
    return Capability("balancing", "NUMA balancing", "yes", meaning)


def check_python(_host: Host) -> Capability:
    """The interpreter, and the packages that recording needs."""
    found, missing = [f"Python {platform.python_version()}"], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {one_line(metadata.version(name), 40)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if not missing:
        return Capability("python", "Python", "yes", ", ".join(found))
    return Capability(
        "python",
        "Python",
        "no",
        f"{', '.join(found)}; without {', '.join(missing)}",
        lost="recording: the trace is written with them",
        why=f"no package {' or '.join(missing)} is installed for this interpreter",
        todo=f"{shlex.quote(sys.executable)} -m pip install {' '.join(missing)}",
    )
