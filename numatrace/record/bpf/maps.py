"""Read and write BPF maps in whole numpy arrays, by bpf(2) batch calls."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import numpy as np

from numatrace.record.bpf.call import bpf

BPF_MAP_LOOKUP_ELEM = 1
BPF_MAP_UPDATE_ELEM = 2
BPF_MAP_DELETE_ELEM = 3
BPF_MAP_LOOKUP_BATCH = 24

Array = np.ndarray[Any, Any]


class _ElemAttr(ctypes.Structure):
    _fields_ = (
        ("map_fd", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class _BatchAttr(ctypes.Structure):
    _fields_ = (
        ("in_batch", ctypes.c_uint64),
        ("out_batch", ctypes.c_uint64),
        ("keys", ctypes.c_uint64),
        ("values", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("map_fd", ctypes.c_uint32),
        ("elem_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


def online_possible_cpus() -> int:
    """Number of possible CPUs: per-CPU map values come in one copy for each."""
    return os.sysconf("SC_NPROCESSORS_CONF")


class BpfMap:
    """One map of fixed-size keys and values, addressed as numpy structured arrays."""

    def __init__(self, fd: int, key: Any, value: Any, max_entries: int) -> None:
        self.fd = fd
        self.key = np.dtype(key)
        self.value = np.dtype(value)
        self.max_entries = max_entries

    def put(self, key: Array, value: Array) -> bool:
        """Insert or replace one entry; False when the map is full."""
        return self._elem(BPF_MAP_UPDATE_ELEM, key, value) == 0

    def get(self, key: Array, copies: int = 1) -> Array | None:
        """The value of a key (`copies` of it, 8-byte aligned, for a per-CPU map), or None."""
        value = np.zeros(copies, self.value)
        return value if self._elem(BPF_MAP_LOOKUP_ELEM, key, value) == 0 else None

    def delete(self, key: Array) -> bool:
        """Remove one entry; False when it was not there."""
        return self._elem(BPF_MAP_DELETE_ELEM, key, None) == 0

    def items(self) -> tuple[Array, Array]:
        """All keys and values of a hash map, as two arrays of equal length."""
        keys = np.zeros(self.max_entries, self.key)
        values = np.zeros(self.max_entries, self.value)
        position = np.zeros(8, np.uint64)  # opaque: the kernel's place in the map
        done, first = 0, True
        while True:
            attr = self._batch(keys[done:], values[done:], position, first=first)
            result = bpf(BPF_MAP_LOOKUP_BATCH, attr)
            if result not in (0, -2):  # -ENOENT: that was the last batch
                raise OSError(-result, os.strerror(-result))
            done, first = done + attr.count, False
            if result or done >= self.max_entries:
                return keys[:done], values[:done]

    def _batch(self, keys: Array, values: Array, position: Array, *, first: bool) -> _BatchAttr:
        return _BatchAttr(
            in_batch=0 if first else position.ctypes.data,
            out_batch=position.ctypes.data,
            keys=keys.ctypes.data,
            values=values.ctypes.data,
            count=len(keys),
            map_fd=self.fd,
        )

    def _elem(self, command: int, key: Array, value: Array | None) -> int:
        attr = _ElemAttr(
            map_fd=self.fd,
            key=key.ctypes.data,
            value=0 if value is None else value.ctypes.data,
        )
        return bpf(command, attr)
