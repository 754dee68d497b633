"""Memory of this process that lies on one node, which the kernel is asked to confirm."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform

import numpy as np
import numpy.typing as npt

from numatrace.model.errors import CapabilityError
from numatrace.record.memory.placement import PAGE_BYTES, query_nodes

MBIND = {"x86_64": 237, "aarch64": 235}
"""Number of mbind(2) by machine: arch/x86/entry/syscalls/syscall_64.tbl, asm-generic/unistd.h."""
MPOL_PREFERRED = 1
"""And not MPOL_BIND: where a node has too little memory, the kernel would end processes for it."""
WORD_BITS = 64
HUGE_BYTES = 2 << 20


class Area:
    """`size` bytes that are written, and so present, on `node`. Close it to give them back.

    Raises CapabilityError with the reason where the kernel does not put all of them there.
    """

    def __init__(self, size: int, node: int) -> None:
        self.size = size
        self.node = node
        # Room to begin at a multiple of a huge page: then every node's area has the same shape.
        self._map = mmap.mmap(-1, size + HUGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._anchor = ctypes.c_char.from_buffer(self._map)
        base = ctypes.addressof(self._anchor)
        self.begin = -(-base // HUGE_BYTES) * HUGE_BYTES
        """Address of the first byte."""
        try:
            self._place(base)
        except BaseException:
            self.close()
            raise

    def words(self, offset: int, size: int) -> npt.NDArray[np.uint64]:
        """Return a part as 64-bit words, which are valid until it is closed."""
        start = self.begin - ctypes.addressof(self._anchor) + offset
        return np.frombuffer(self._map, np.uint64, size // 8, start)

    def close(self) -> None:
        """Unmap it. There must be no arrays of its `words` any more."""
        del self._anchor
        self._map.close()

    def _place(self, base: int) -> None:
        # Pages of the usual size, whatever the system's default: the same for every pair.
        with contextlib.suppress(OSError):  # a kernel without huge pages
            self._map.madvise(mmap.MADV_NOHUGEPAGE)
        prefer(base, self.size + HUGE_BYTES, self.node)
        ctypes.memset(self.begin, 1, self.size)
        pages = np.arange(self.begin, self.begin + self.size, PAGE_BYTES, dtype=np.uint64)
        nodes = query_nodes(os.getpid(), pages)
        elsewhere = int((nodes != self.node).sum())
        if elsewhere:
            raise CapabilityError(
                f"cannot measure the memory of node {self.node}",
                f"{elsewhere} of {len(nodes)} pages lie elsewhere",
                "free some of its memory",
            )


def prefer(address: int, size: int, node: int) -> None:
    """Let the pages of a mapping come from one node while it has any. Raises CapabilityError."""
    number = MBIND.get(platform.machine())
    mask = (ctypes.c_ulong * (node // WORD_BITS + 1))()
    mask[node // WORD_BITS] = 1 << node % WORD_BITS
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (
        ctypes.c_long(number or 0),
        ctypes.c_void_p(address),
        ctypes.c_ulong(size),
        ctypes.c_int(MPOL_PREFERRED),
        mask,
        ctypes.c_ulong(WORD_BITS * len(mask) + 1),  # the kernel takes one bit fewer than it is told
        ctypes.c_uint(0),
    )
    if number is None or libc.syscall(*arguments) != 0:
        why = os.strerror(ctypes.get_errno()) if number else f"not known on {platform.machine()}"
        raise CapabilityError(
            f"cannot put memory on node {node}",
            f"mbind(2): {why}",
            "record as root and outside of a container",
        )
