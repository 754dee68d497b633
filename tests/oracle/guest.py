"""The guest's side of the yardstick: mark where counting begins and ends, see numa_oracle.c."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import struct
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OUTPUT = "NUMA_ORACLE"
"""Environment variable: what the plugin's output files begin with, in a folder shared by both."""
TRACK, SELECT, COUNT, STOP, FINE = range(5)
CODE = bytes.fromhex("0f1f806e756d61 c3")  # nopl 0x616d756e(%rax); ret
KINDS_STRUCT = 4
BTF_MAGIC = 0xEB9F


class OracleError(Exception):
    """There is no yardstick here, or it cannot be used; the text says why."""


class Oracle:
    """One guest's plugin. Several windows may be counted, one after the other."""

    def __init__(self) -> None:
        if OUTPUT not in os.environ:
            raise OracleError(f"{OUTPUT} is not set: not a guest with the plugin")
        self.output = os.environ[OUTPUT]
        self.windows = 0
        self._memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        self._memory.write(CODE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        protection = ctypes.c_int(mmap.PROT_READ | mmap.PROT_EXEC)
        size = ctypes.c_size_t(mmap.PAGESIZE)
        if ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), size, protection):
            raise OracleError("no memory can be made executable")
        self._mark = ctypes.CFUNCTYPE(None, *[ctypes.c_uint64] * 4)(address)

    @contextmanager
    def counting(self, tgids: Iterable[int], *, fine: bool = False) -> Iterator[Path]:
        """Count the accesses of these processes; the yielded path exists once this has ended.

        `fine`: one instruction per translation block, for samples taken in the guest meanwhile.
        """
        self.windows += 1
        path = Path(f"{self.output}.{self.windows}")
        if fine:
            self._mark(FINE, 0, 0, 0)
        self._mark(TRACK, switch_to(), *task_offsets())
        for tgid in tgids:
            self._mark(SELECT, tgid, 0, 0)
        visit_all_cpus()
        self._mark(COUNT, 0, 0, 0)
        try:
            yield path
        finally:
            self._mark(STOP, self.windows, 0, 0)
        if not path.exists():
            raise OracleError(f"{path} was not written: QEMU runs without the plugin")
        path.with_name(path.name + ".json").write_text(json.dumps(machine()))


def visit_all_cpus() -> None:
    """Makes every CPU switch threads, so that the plugin knows whom each one runs."""
    allowed = os.sched_getaffinity(0)
    for cpu in range(os.cpu_count() or 1):
        os.sched_setaffinity(0, {cpu})
    os.sched_setaffinity(0, allowed)


def switch_to() -> int:
    """Address of the kernel's __switch_to(previous, next). Needs root."""
    with Path("/proc/kallsyms").open() as lines:
        for line in lines:
            address, _, name = line.split()[:3]
            if name == "__switch_to" and int(address, 16):
                return int(address, 16)
    raise OracleError("/proc/kallsyms does not tell where __switch_to is; are you root?")


def task_offsets() -> tuple[int, int]:
    """Offsets of `pid` and `tgid` in the kernel's struct task_struct."""
    offsets = members(Path("/sys/kernel/btf/vmlinux").read_bytes(), "task_struct")
    return offsets["pid"], offsets["tgid"]


def members(btf: bytes, name: str) -> dict[str, int]:
    """Offset in bytes of each named member of the struct, from the kernel's type information.

    Format: Documentation/bpf/btf.rst. The type is looked for, not walked to: a walk over all types
    takes long under emulation.
    """
    magic, _, _, head, type_at, type_bytes, text_at, text_bytes = struct.unpack_from(
        "<HBBIIIII", btf
    )
    if magic != BTF_MAGIC:
        raise OracleError("the kernel's type information is not BTF")
    types = btf[head + type_at : head + type_at + type_bytes]
    texts = btf[head + text_at : head + text_at + text_bytes]
    wanted = struct.pack("<I", texts.index(f"\0{name}\0".encode()) + 1)
    at = -1
    while (at := types.find(wanted, at + 1)) >= 0:
        info = int.from_bytes(types[at + 4 : at + 8], "little")
        if at % 4 == 0 and info >> 24 & 0x1F == KINDS_STRUCT and info & 0xFFFF:
            return _members(types, texts, at + 12, info)
    raise OracleError(f"the kernel's type information has no struct {name}")


def _members(types: bytes, texts: bytes, at: int, info: int) -> dict[str, int]:
    found = {}
    for _ in range(info & 0xFFFF):
        name_at, _, bits = struct.unpack_from("<III", types, at)
        if info >> 31:  # then the upper byte is the size of a bit field
            bits &= 0xFFFFFF
        found[texts[name_at : texts.index(b"\0", name_at)].decode()] = bits // 8
        at += 12
    return found


def machine(root: Path = Path("/")) -> dict[str, object]:
    """The node of each CPU, and the page frames of each node: [first, end, node]."""
    cpus = {}
    for node in (root / "sys/devices/system/node").glob("node[0-9]*"):
        for part in (node / "cpulist").read_text().strip().split(","):
            first, _, last = part.partition("-")
            if first:
                cpus |= dict.fromkeys(range(int(first), int(last or first) + 1), int(node.name[4:]))
    return {"cpus": cpus, "frames": frame_ranges((root / "proc/zoneinfo").read_text())}


def frame_ranges(zoneinfo: str) -> list[tuple[int, int, int]]:
    """First frame, end and node of every zone that holds memory."""
    ranges, node, spanned = [], -1, 0
    for line in zoneinfo.splitlines():
        words = line.split()
        if words[0] == "Node":
            node, spanned = int(words[1].rstrip(",")), 0
        elif words[0] == "spanned":
            spanned = int(words[1])
        elif words[0] == "start_pfn:" and spanned:
            ranges.append((int(words[1]), int(words[1]) + spanned, node))
    return sorted(ranges)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(machine()) + "\n")
