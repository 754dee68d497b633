"""The bpf(2) system call, and what can be found out about the kernel by trying it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct

from numatrace.model.errors import CapabilityError

SYS_BPF = {"x86_64": 321, "aarch64": 280}
BPF_PROG_LOAD = 5
BPF_PROG_TYPE_PERF_EVENT = 7
GET_CURRENT_TASK_BTF = 158
TASK_PT_REGS = 175
"""include/uapi/linux/bpf.h."""

CALL, MOVE, SET, EXIT = 0x85, 0xBF, 0xB7, 0x95
"""Operation codes: call a helper, r = r, r = constant, return."""

_libc = ctypes.CDLL(None, use_errno=True)


class _LoadAttr(ctypes.Structure):
    """The head of union bpf_attr for BPF_PROG_LOAD."""

    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 6),
    )


def bpf(command: int, attr: ctypes.Structure) -> int:
    """Make the system call; returns its result, or the negative errno. Raises CapabilityError."""
    number = SYS_BPF.get(platform.machine())
    if number is None:
        raise CapabilityError(
            "cannot use BPF", f"unknown machine {platform.machine()}", "use x86-64 or arm64"
        )
    result = _libc.syscall(
        ctypes.c_long(number),
        ctypes.c_long(command),
        ctypes.byref(attr),
        ctypes.c_size_t(ctypes.sizeof(attr)),
    )
    return int(result) if result >= 0 else -ctypes.get_errno()


def has_task_pt_regs() -> bool:
    """Whether a perf event's program may ask for the registers saved at the kernel's entry.

    Tried with a program of five instructions. Takes kernel 5.15 with type information (BTF).
    """
    code = b"".join(
        struct.pack("=BBhi", *instruction)
        for instruction in (
            (CALL, 0, 0, GET_CURRENT_TASK_BTF),
            (MOVE, 1, 0, 0),  # r1 = r0
            (CALL, 0, 0, TASK_PT_REGS),
            (SET, 0, 0, 0),
            (EXIT, 0, 0, 0),
        )
    )
    text, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    attr = _LoadAttr(
        prog_type=BPF_PROG_TYPE_PERF_EVENT,
        insn_cnt=len(code) // 8,
        insns=ctypes.addressof(text),
        license=ctypes.addressof(licence),
    )
    with contextlib.suppress(CapabilityError):
        fd = bpf(BPF_PROG_LOAD, attr)
        if fd >= 0:
            os.close(fd)
            return True
    return False
