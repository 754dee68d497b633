"""Two loops in machine code, so that memory is measured at its own speed without a compiler.

`chase(start, steps)` follows a chain of pointers: every load waits for the one before.
`stream(begin, size, passes)` reads memory from one end to the other, some loads at a time, and
returns the sum of its 64-bit words over all passes, modulo 2^64.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform

from numatrace.model.errors import CapabilityError

# Each line is one instruction; the System V calling conventions of x86-64 and AArch64.
CHASE = {
    "x86_64": """
        48 8b 3f          1: mov    rdi, [rdi]
        48 ff ce             dec    rsi
        75 f8                jnz    1b
        48 89 f8             mov    rax, rdi
        c3                   ret
    """,
    "aarch64": """
        00 00 40 f9       1: ldr    x0, [x0]
        21 04 00 f1          subs   x1, x1, 1
        c1 ff ff 54          b.ne   1b
        c0 03 5f d6          ret
    """,
}
STREAM = {
    "x86_64": """
        66 0f ef c0          pxor   xmm0, xmm0
        66 0f ef c9          pxor   xmm1, xmm1
        66 0f ef d2          pxor   xmm2, xmm2
        66 0f ef db          pxor   xmm3, xmm3
        48 89 f9          1: mov    rcx, rdi
        49 89 f0             mov    r8, rsi
        66 0f d4 01       2: paddq  xmm0, [rcx]
        66 0f d4 49 10       paddq  xmm1, [rcx + 16]
        66 0f d4 51 20       paddq  xmm2, [rcx + 32]
        66 0f d4 59 30       paddq  xmm3, [rcx + 48]
        48 83 c1 40          add    rcx, 64
        49 83 e8 40          sub    r8, 64
        75 e3                jnz    2b
        48 ff ca             dec    rdx
        75 d8                jnz    1b
        66 0f d4 c1          paddq  xmm0, xmm1
        66 0f d4 d3          paddq  xmm2, xmm3
        66 0f d4 c2          paddq  xmm0, xmm2
        0f 12 c8             movhlps xmm1, xmm0
        66 0f d4 c1          paddq  xmm0, xmm1
        66 48 0f 7e c0       movq   rax, xmm0
        c3                   ret
    """,
    "aarch64": """
        10 e4 00 6f          movi   v16.2d, 0
        11 e4 00 6f          movi   v17.2d, 0
        12 e4 00 6f          movi   v18.2d, 0
        13 e4 00 6f          movi   v19.2d, 0
        e3 03 00 aa       1: mov    x3, x0
        e4 03 01 aa          mov    x4, x1
        60 04 40 ad       2: ldp    q0, q1, [x3]
        62 0c 41 ad          ldp    q2, q3, [x3, 32]
        10 86 e0 4e          add    v16.2d, v16.2d, v0.2d
        31 86 e1 4e          add    v17.2d, v17.2d, v1.2d
        52 86 e2 4e          add    v18.2d, v18.2d, v2.2d
        73 86 e3 4e          add    v19.2d, v19.2d, v3.2d
        63 00 01 91          add    x3, x3, 64
        84 00 01 f1          subs   x4, x4, 64
        01 ff ff 54          b.ne   2b
        42 04 00 f1          subs   x2, x2, 1
        81 fe ff 54          b.ne   1b
        10 86 f1 4e          add    v16.2d, v16.2d, v17.2d
        52 86 f3 4e          add    v18.2d, v18.2d, v19.2d
        10 86 f2 4e          add    v16.2d, v16.2d, v18.2d
        00 ba f1 5e          addp   d0, v16.2d
        00 00 66 9e          fmov   x0, d0
        c0 03 5f d6          ret
    """,
}
OPCODES_WIDTH = 18
"""Columns of the listings above that hold the bytes of an instruction."""
ALIGNMENT = 64


def code_of(listing: str) -> bytes:
    """Return the bytes of a listing."""
    lines = [line.strip()[: OPCODES_WIDTH - 1] for line in listing.splitlines()]
    return b"".join(bytes.fromhex(line) for line in lines)


class Loops:
    """The two loops as functions that other threads may run beside: ctypes lets go of the GIL.

    Raises CapabilityError on a CPU that there is no code for, and where the system refuses memory
    that can be executed. Close it only when no thread runs a loop.
    """

    def __init__(self, machine: str = "") -> None:
        machine = machine or platform.machine()
        if machine not in CHASE:
            raise CapabilityError(
                "cannot measure the latency of memory",
                f"there is no code for {machine} here",
                "go without; the firmware's figures are used where there are any",
            )
        chase, stream = code_of(CHASE[machine]), code_of(STREAM[machine])
        at = -(-len(chase) // ALIGNMENT) * ALIGNMENT
        self._area = _executable(chase.ljust(at, b"\0") + stream)
        self._anchor = ctypes.c_char.from_buffer(self._area)
        base = ctypes.addressof(self._anchor)
        word, pointer = ctypes.c_uint64, ctypes.c_void_p
        self._chase = ctypes.CFUNCTYPE(word, pointer, word)(base)
        self._stream = ctypes.CFUNCTYPE(word, pointer, word, word)(base + at)

    def chase(self, start: int, steps: int) -> int:
        """Follow the pointers from the address `start`; returns the address after `steps` loads.

        `steps` is at least 1. Every pointer on the way must be valid.
        """
        if steps < 1:
            raise ValueError(f"{steps} steps")
        return int(self._chase(start, steps))

    def stream(self, begin: int, size: int, passes: int = 1) -> int:
        """Read `size` bytes from the address `begin`, `passes` times; both multiples of 64."""
        if size < 1 or size % 64 or begin % 64 or passes < 1:
            raise ValueError(f"{size} bytes from {begin:#x}, {passes} times")
        return int(self._stream(begin, size, passes))

    def close(self) -> None:
        """Unmap the code."""
        del self._chase, self._stream, self._anchor
        self._area.close()


def _executable(code: bytes) -> mmap.mmap:
    # Never writable and executable at once: hardened systems refuse that, and some even this.
    area = mmap.mmap(-1, mmap.PAGESIZE)
    area.write(code)
    anchor = ctypes.c_char.from_buffer(area)
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.c_void_p(ctypes.addressof(anchor))
    failed = libc.mprotect(address, ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ | mmap.PROT_EXEC)
    error = ctypes.get_errno()
    del anchor
    if failed:
        area.close()
        raise CapabilityError(
            "cannot measure the latency of memory",
            f"memory that can be executed is refused (mprotect: {os.strerror(error)}), "
            "as SELinux does for confined programs",
            "record from an unconfined root shell, or go without",
        )
    return area
