"""Checks of the bpf system call and of ring buffers, each by a small try."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import re

from numatrace.record.checks.capability import Capability, Host, errno_text, one_line
from numatrace.record.checks.privileges import CAP_SYS_ADMIN, NEEDED, has_capability

SYS_BPF = {"x86_64": 321, "aarch64": 280}
"""Number of bpf(2) in the architecture's system call table."""

BPF_MAP_CREATE = 0
BPF_MAP_TYPE_ARRAY = 2
BPF_MAP_TYPE_RINGBUF = 27
"""include/uapi/linux/bpf.h."""


class _MapAttributes(ctypes.Structure):
    """The head of union bpf_attr for BPF_MAP_CREATE."""

    _fields_ = (
        ("map_type", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("unused", ctypes.c_uint32 * 11),
    )


def create_map(map_type: int, key_size: int, value_size: int, max_entries: int) -> None:
    """Create a BPF map and close it again. Raises OSError with the kernel's errno."""
    number = SYS_BPF.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    attributes = _MapAttributes(map_type, key_size, value_size, max_entries)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(
        ctypes.c_long(number),
        ctypes.c_long(BPF_MAP_CREATE),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    os.close(descriptor)


def lockdown(host: Host) -> str:
    """The kernel's lockdown mode: none, integrity or confidentiality."""
    match = re.search(r"\[(\w{1,32})\]", host.read("sys/kernel/security/lockdown", 256))
    return match[1] if match else "none"


def may_use_bpf(host: Host) -> bool:
    """Whether this process has the capabilities that loading BPF programs takes."""
    admin = has_capability(host, CAP_SYS_ADMIN)
    return admin or all(has_capability(host, bit) for bit, _ in NEEDED.values())


def check_bpf(host: Host) -> Capability:
    """Whether the kernel lets us use bpf(2) and read with it; tried with a small map."""
    title = "BPF"
    mode = lockdown(host)
    if mode == "confidentiality":
        return _no_bpf(
            title,
            "locked down",
            "/sys/kernel/security/lockdown says confidentiality, which refuses tracing with BPF",
            "Boot with `lockdown=integrity` on the kernel command line",
        )
    if not may_use_bpf(host):
        return not_tried("bpf", title, host)
    try:
        create_map(BPF_MAP_TYPE_ARRAY, 4, 8, 1)
    except OSError as error:
        return _refused(title, error)
    return Capability("bpf", title, "yes", f"bpf(2) works, lockdown mode {one_line(mode)}")


def _refused(title: str, error: OSError) -> Capability:
    why = f"bpf(2) answered {errno_text(error)}"
    if error.errno == errno.ENOSYS:
        return _no_bpf(
            title,
            "not in this kernel",
            why,
            "Boot a kernel that is built with CONFIG_BPF_SYSCALL=y",
        )
    return _no_bpf(
        title,
        "refused",
        f"{why}, in spite of our capabilities: a seccomp filter or a security module forbids it",
        "Run numatrace on the host and outside any sandbox",
    )


def _no_bpf(title: str, value: str, why: str, todo: str) -> Capability:
    return Capability("bpf", title, "no", value, lost="recording", why=why, todo=todo)


def check_ring_buffer(host: Host) -> Capability:
    """Whether BPF ring buffers exist (kernel 5.8, commit 457f44363a88); tried with one page."""
    title = "BPF ring buffer"
    if not may_use_bpf(host):
        return not_tried("ring_buffer", title, host)
    try:
        create_map(BPF_MAP_TYPE_RINGBUF, 0, 0, mmap.PAGESIZE)
    except OSError as error:
        release = one_line(host.read("proc/sys/kernel/osrelease")) or "unknown"
        return Capability(
            "ring_buffer",
            title,
            "no",
            "refused",
            lost="recording: events reach numatrace through ring buffers",
            why=f"creating one answered {errno_text(error)} on Linux {release}",
            todo="Boot a kernel of version 5.8 or newer",
        )
    return Capability("ring_buffer", title, "yes", "works")


def not_tried(id_: str, title: str, host: Host) -> Capability:
    """What a check says that has to wait for privileges."""
    return Capability(
        id_,
        title,
        "no",
        "not tried",
        lost="recording",
        why="it takes privileges to try; see privileges",
        todo=f"sudo {host.this_command()}" if host.euid else "Run numatrace on the host as root",
    )
