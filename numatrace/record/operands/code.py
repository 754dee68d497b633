"""Code bytes of a live process, without ever waiting for a page."""

from __future__ import annotations

import mmap
import os
from typing import Final

PRESENT: Final = 1 << 63
"""Bit of a page's word in /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst)."""

TOP: Final = 1 << 56
"""Above any user address, and within what an offset in a file can say."""

MAX_BYTES: Final = 1 << 16


def read_code(tgid: int, addr: int, size: int) -> bytes:
    """Up to `size` bytes of the process's memory from `addr` on; b"" where none can be read.

    Ends before the first page that is not in memory: reading it could wait for a file system that
    never answers.
    """
    if not 0 <= addr < TOP or not 0 < size <= MAX_BYTES:
        return b""
    try:
        readable = _present_bytes(tgid, addr, size)
        return _read(f"/proc/{tgid}/mem", readable, addr) if readable else b""
    except (OSError, OverflowError, ValueError):
        return b""


def _present_bytes(tgid: int, addr: int, size: int) -> int:
    """How many of the bytes lie on pages that are present, up to the first that is not."""
    page = mmap.PAGESIZE
    first, last = addr // page, (addr + size - 1) // page
    words = memoryview(_read(f"/proc/{tgid}/pagemap", 8 * (last - first + 1), 8 * first))
    end = addr
    for at, word in enumerate(words[: len(words) & ~7].cast("Q")):
        if not word & PRESENT:
            break
        end = (first + at + 1) * page
    return min(end - addr, size)


def _read(path: str, size: int, offset: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)
