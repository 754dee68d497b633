"""Where members lie in the kernel's structures, from the type information that it carries itself.

Only what a BPF program is told as a number. Types are looked up by name in the raw bytes, because
to walk them all would take longer than the recorder's whole start.
Format: Documentation/bpf/btf.rst in the kernel's sources.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

VMLINUX = Path("/sys/kernel/btf/vmlinux")
MAX_BYTES = 64 << 20
MAGIC = 0xEB9F
HEADER = struct.Struct("<HBBIIIII")
"""magic, version, flags, header length; offset and length of the types, then of the strings."""
KIND_STRUCT = 4
NOT_NAMED = 0xFFFFFFFF
"""No place among the strings."""
MAX_OFFSET = 1 << 16
"""Bytes; task_struct has some 10,000."""

THREAD_BASE = {"x86_64": "fsbase", "aarch64": "uw"}
"""Member of thread_struct that holds the thread pointer, or begins with it (arm64: uw.tp_value)."""


@dataclass(frozen=True, slots=True)
class Btf:
    """A blob's types and strings."""

    types: Array
    """As 32-bit words, which all of it consists of."""
    strings: bytes

    @classmethod
    def parse(cls, blob: bytes) -> Btf | None:
        """Cut a blob into its parts; None for anything that is no little-endian BTF."""
        if len(blob) < HEADER.size:
            return None
        magic, _, _, header, type_at, type_bytes, string_at, string_bytes = HEADER.unpack_from(blob)
        if magic != MAGIC or header < HEADER.size:
            return None
        types = blob[header + type_at : header + type_at + type_bytes]
        strings = blob[header + string_at : header + string_at + string_bytes]
        if len(types) != type_bytes or len(strings) != string_bytes or strings[:1] != b"\0":
            return None
        return cls(np.frombuffer(types[: type_bytes // 4 * 4], "<u4"), strings)

    def offset(self, structure: str, member: str) -> int | None:
        """Byte offset of a structure's member; None where there is no such, or no one, structure.

        A bit-field has none either.
        """
        found = {
            offset
            for at in self._structures(structure)
            if (offset := self._member(at, member)) is not None
        }
        return found.pop() if len(found) == 1 else None

    def _name(self, name: str) -> int:
        """A name's place among the strings: so it is named in a type."""
        at = self.strings.find(b"\0" + name.encode() + b"\0")
        return at + 1 if at >= 0 else NOT_NAMED

    def _structures(self, name: str) -> list[int]:
        """Where what looks like a structure of this name begins: name, kind, size, members."""
        found = np.flatnonzero(self.types == self._name(name))
        return [
            at
            for at in found.tolist()
            if at + 3 <= len(self.types) and self.types[at + 1] >> 24 & 0x1F == KIND_STRUCT
        ]

    def _member(self, at: int, name: str) -> int | None:
        """Offset in bytes of a structure's member, each of which has name, type, offset in bits."""
        info, size = self.types[at + 1 : at + 3].tolist()
        members = self.types[at + 3 : at + 3 + 3 * (info & 0xFFFF)]
        named = members[: len(members) // 3 * 3].reshape(-1, 3)
        offsets = named[named[:, 0] == self._name(name), 2].tolist()
        if len(offsets) != 1:
            return None
        width, bits = (offsets[0] >> 24, offsets[0] & 0xFFFFFF) if info >> 31 else (0, offsets[0])
        whole = not width and bits % 8 == 0 and bits // 8 < min(size, MAX_OFFSET)
        return bits // 8 if whole else None


@cache
def thread_base_offset(machine: str, path: Path = VMLINUX) -> int | None:
    """Offset in task_struct of the thread pointer in memory; None where it is not to be found.

    Takes 10 ms the first time: some megabytes are read.
    """
    member = THREAD_BASE.get(machine)
    try:
        with path.open("rb") as file:
            blob = file.read(MAX_BYTES)
    except OSError:
        return None
    btf = Btf.parse(blob)
    if btf is None or member is None:
        return None
    thread = btf.offset("task_struct", "thread")
    base = btf.offset("thread_struct", member)
    return thread + base if thread is not None and base is not None else None
