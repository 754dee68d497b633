"""Read another process's memory: small pieces, all at once, and never more than asked for."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PIECES = 1024
"""IOV_MAX: what one call of process_vm_readv(2) takes."""

ADDRESS_LIMIT = 1 << 56
"""User addresses end below this on x86-64 (five-level page tables) and arm64 (52 bits)."""

_libc = ctypes.CDLL(None, use_errno=True)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


def read_memory(pid: int, addr: int, size: int) -> bytes:
    """Return `size` bytes at an address, fewer where the memory ends, none where it cannot be read.

    Takes what ptrace takes (root, or CAP_SYS_PTRACE). The process is not stopped.
    """
    if not 0 < addr < ADDRESS_LIMIT or size <= 0:
        return b""
    local = ctypes.create_string_buffer(size)
    done = _libc.process_vm_readv(
        pid,
        ctypes.byref(_Iovec(ctypes.addressof(local), size)),
        ctypes.c_ulong(1),
        ctypes.byref(_Iovec(addr, size)),
        ctypes.c_ulong(1),
        ctypes.c_ulong(0),
    )
    return local.raw[:done] if done > 0 else b""


def read_pieces(pid: int, addrs: Sequence[int], size: int) -> bytes:
    """Return `size` bytes at each of up to MAX_PIECES addresses, one after the other.

    Ends at the first that cannot be read: the result then has fewer than size * len(addrs) bytes.
    """
    if not addrs:
        return b""
    total = size * len(addrs)
    local = ctypes.create_string_buffer(total)
    pieces = (_Iovec * len(addrs))(*(_Iovec(addr, size) for addr in addrs))
    done = _libc.process_vm_readv(
        pid,
        ctypes.byref(_Iovec(ctypes.addressof(local), total)),
        ctypes.c_ulong(1),
        pieces,
        ctypes.c_ulong(len(addrs)),
        ctypes.c_ulong(0),
    )
    return local.raw[:done] if done > 0 else b""
