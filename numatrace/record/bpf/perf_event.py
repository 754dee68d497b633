"""Open a CPU's clock as a perf event that runs a BPF program at every tick."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform
import struct

from numatrace.model.errors import CapabilityError

PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
"""Number of perf_event_open(2): arch/x86/entry/syscalls, include/uapi/asm-generic/unistd.h."""

PERF_TYPE_SOFTWARE = 1
PERF_COUNT_SW_CPU_CLOCK = 0
DISABLED = 1 << 0
EXCLUDE_IDLE = 1 << 7
PERF_FLAG_FD_CLOEXEC = 8
PERF_EVENT_IOC_ENABLE = 0x2400
PERF_EVENT_IOC_PERIOD = 0x40082404
PERF_EVENT_IOC_SET_BPF = 0x40042408
"""include/uapi/linux/perf_event.h."""

_libc = ctypes.CDLL(None, use_errno=True)


class Attr(ctypes.Structure):
    """struct perf_event_attr up to PERF_ATTR_SIZE_VER1: all that we need."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_events", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("config1", ctypes.c_uint64),
        ("config2", ctypes.c_uint64),
    )


def open_event(attr: Attr, pid: int, cpu: int) -> int:
    """Open a perf event, see perf_event_open(2); fills in the size. Raises OSError.

    The caller has seen to it that PERF_EVENT_OPEN knows this machine.
    """
    attr.size = ctypes.sizeof(Attr)
    number = ctypes.c_long(PERF_EVENT_OPEN[platform.machine()])
    fd = _libc.syscall(
        number, ctypes.byref(attr), pid, cpu, -1, ctypes.c_ulong(PERF_FLAG_FD_CLOEXEC)
    )
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"perf_event_open(2): {os.strerror(code)}")
    return int(fd)


def run_program(fd: int, program: int) -> int:
    """Have a BPF program (its descriptor) run at each event from now on; returns the event.

    Raises OSError, with the event closed.
    """
    try:
        fcntl.ioctl(fd, PERF_EVENT_IOC_SET_BPF, program)
        enable(fd)
    except OSError:
        close(fd)
        raise
    return fd


def open_clock(cpu: int, period_ns: int, *, pid: int = -1) -> int:
    """Open a clock that ticks every `period_ns` while a CPU is not idle; returns it disabled.

    `cpu` -1 with `pid` 0: the caller's own thread's, wherever it runs. Raises OSError.
    """
    if platform.machine() not in PERF_EVENT_OPEN:
        raise CapabilityError(
            "cannot sample", f"unknown machine {platform.machine()}", "use x86-64 or arm64"
        )
    attr = Attr(
        type=PERF_TYPE_SOFTWARE,
        config=PERF_COUNT_SW_CPU_CLOCK,
        sample_period=period_ns,
        flags=DISABLED | EXCLUDE_IDLE,
    )
    return open_event(attr, pid, cpu)


def open_tick(cpu: int, period_ns: int, program: int) -> int:
    """Have a BPF program (its descriptor) run at each tick of a CPU's clock. Raises OSError."""
    return run_program(open_clock(cpu, period_ns), program)


def enable(fd: int) -> None:
    """Let the event happen."""
    fcntl.ioctl(fd, PERF_EVENT_IOC_ENABLE, 0)


def set_period(fd: int, period_ns: int) -> None:
    """Change the time between ticks, from now on. Raises OSError."""
    fcntl.ioctl(fd, PERF_EVENT_IOC_PERIOD, struct.pack("=Q", period_ns))


def close(fd: int) -> None:
    """Close an event: it happens no more."""
    with contextlib.suppress(OSError):
        os.close(fd)
