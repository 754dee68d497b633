"""Run a BPF program whenever a function of a file is called, in whatever process maps the file."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform

from numatrace.model.errors import CapabilityError
from numatrace.record.bpf.perf_event import (
    PERF_EVENT_IOC_ENABLE,
    PERF_EVENT_IOC_SET_BPF,
    PERF_EVENT_OPEN,
    PERF_FLAG_FD_CLOEXEC,
)
from numatrace.record.machine.files import read_integer

UPROBE_TYPE = "/sys/bus/event_source/devices/uprobe/type"

_libc = ctypes.CDLL(None, use_errno=True)


class _Attr(ctypes.Structure):
    """struct perf_event_attr up to PERF_ATTR_SIZE_VER1: config1 is the path, config2 the offset."""

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
        ("path", ctypes.c_char_p),
        ("offset", ctypes.c_uint64),
    )


def attach_uprobe(file: int, offset: int, program: int) -> int:
    """Attach a BPF program (its descriptor) to the code at `offset` of an open file.

    Returns a descriptor: the program stays attached until it is closed. Not by way of bcc, which
    would look the path up once more and read the file with a parser that trusts it.
    Raises CapabilityError where the kernel has no uprobes, OSError where it refuses.
    """
    number, kind = PERF_EVENT_OPEN.get(platform.machine()), read_integer(UPROBE_TYPE)
    if number is None or kind is None:
        why = f"there is no {UPROBE_TYPE}" if number else f"unknown machine {platform.machine()}"
        raise CapabilityError("cannot trace functions", why, "use a kernel with CONFIG_UPROBES")
    path = f"/proc/self/fd/{file}".encode()
    attr = _Attr(type=kind, size=ctypes.sizeof(_Attr), path=path, offset=offset)
    # Any CPU will do: the program hangs on the probe, which is the same on all of them.
    fd = _libc.syscall(
        ctypes.c_long(number), ctypes.byref(attr), -1, 0, -1, ctypes.c_ulong(PERF_FLAG_FD_CLOEXEC)
    )
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"perf_event_open(2): {os.strerror(code)}")
    try:
        fcntl.ioctl(fd, PERF_EVENT_IOC_SET_BPF, program)
        fcntl.ioctl(fd, PERF_EVENT_IOC_ENABLE, 0)
    except OSError:
        with contextlib.suppress(OSError):
            os.close(fd)
        raise
    return int(fd)
