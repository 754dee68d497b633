"""Drain a BPF ring buffer by mapping it: records are viewed in place, with no call per event.

Layout (kernel/bpf/ringbuf.c): the map's file descriptor maps a consumer page (writable), a
producer page (read-only), and then the data area twice in a row, so that a record that wraps is
still contiguous. A record is an 8-byte header (length with a busy and a discard bit, page
offset) and its data, padded to 8 bytes. All records of one of our rings have one size.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

BUSY = 1 << 31
DISCARD = 1 << 30
HEADER_BYTES = 8
LENGTH_BYTES = 4

Array = np.ndarray[Any, Any]


class Ring:
    """One ring buffer of fixed-size records."""

    def __init__(self, fd: int, pages: int, dtype: np.dtype[np.void]) -> None:
        page = mmap.PAGESIZE
        self.data_bytes = pages * page
        self.stride = HEADER_BYTES + dtype.itemsize
        self._dtype = dtype
        self._none = np.zeros(0, dtype)
        self._consumer_map = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer_map = mmap.mmap(
            fd, page + 2 * self.data_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
        )
        self._consumer = np.frombuffer(self._consumer_map, "<u8", 1)
        self._producer = np.frombuffer(self._producer_map, "<u8", 1)
        self._data = np.frombuffer(self._producer_map, "u1", 2 * self.data_bytes, page)

    @property
    def room(self) -> int:
        """Records that it holds when it is full."""
        return self.data_bytes // self.stride

    def drain(self) -> Array:
        """Take all finished records, as a copy in their order.

        Stops at a record that is still being written: the next call takes it.
        """
        start = int(self._consumer[0])
        ready = (int(self._producer[0]) - start) // self.stride
        if not ready:
            return self._none
        at = start % self.data_bytes
        # As bytes: numpy copies records of many fields one field at a time.
        slots = self._data[at : at + ready * self.stride].reshape(ready, self.stride)
        lengths = np.frombuffer(slots[:, :LENGTH_BYTES].tobytes(), "<u4")
        if (lengths & (BUSY | DISCARD)).any():
            busy = np.flatnonzero(lengths & BUSY)
            ready = int(busy[0]) if len(busy) else ready
            slots = slots[:ready][(lengths[:ready] & DISCARD) == 0]
        records = slots[:, HEADER_BYTES:].tobytes()
        self._consumer[0] = start + ready * self.stride
        return np.frombuffer(records, self._dtype)

    def used_bytes(self) -> int:
        """Bytes that wait to be drained."""
        return int(self._producer[0]) - int(self._consumer[0])

    def close(self) -> None:
        """Unmap."""
        del self._consumer, self._producer, self._data
        self._consumer_map.close()
        self._producer_map.close()
