"""The kernel's type information: hand-made blobs, hostile ones, and the running kernel's."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numatrace.record.bpf.btf import HEADER, MAGIC, VMLINUX, Btf, thread_base_offset

if TYPE_CHECKING:
    from pathlib import Path

STRUCT, INT = 4, 1
Member = tuple[str, int]


class Maker:
    """Puts a blob together, as a compiler's back end does."""

    def __init__(self) -> None:
        self.strings = b"\0"
        self.types = b""

    def name(self, text: str) -> int:
        at = self.strings.find(b"\0" + text.encode() + b"\0")
        if at >= 0:
            return at + 1
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text) - 1

    def integer(self, name: str) -> None:
        self.types += struct.pack("<IIII", self.name(name), INT << 24, 8, 64)

    def structure(self, name: str, size: int, members: list[Member], *, bits: bool = False) -> None:
        info = STRUCT << 24 | len(members) | (1 << 31 if bits else 0)
        self.types += struct.pack("<III", self.name(name), info, size)
        for member, offset in members:
            self.types += struct.pack("<III", self.name(member), 1, offset)

    def blob(self) -> bytes:
        header = HEADER.pack(
            MAGIC, 1, 0, HEADER.size, 0, len(self.types), len(self.types), len(self.strings)
        )
        return header + self.types + self.strings


def a_kernel(*, bits: bool = False) -> Maker:
    maker = Maker()
    maker.integer("thread")  # the same name for something else
    maker.structure("task_struct", 9000, [("state", 64), ("thread", 3072 * 8)], bits=bits)
    maker.structure("thread_struct", 400, [("sp", 0), ("fsbase", 56 * 8), ("uw", 40 * 8)])
    return maker


@pytest.mark.parametrize("bits", [False, True])
@pytest.mark.parametrize(("machine", "offset"), [("x86_64", 3128), ("aarch64", 3112)])
def test_offsets_of_members_are_found(
    machine: str, offset: int, bits: bool, tmp_path: Path
) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(a_kernel(bits=bits).blob())
    assert thread_base_offset(machine, path) == offset
    assert thread_base_offset("s390x", path) is None


def test_what_is_not_plain_is_not_guessed() -> None:
    maker = a_kernel()
    maker.structure("twice", 16, [("a", 0)])
    maker.structure("twice", 16, [("a", 64)])
    maker.structure("bits", 8, [("flag", 1 << 24 | 3), ("odd", 4)], bits=True)
    maker.structure("beyond", 8, [("far", 8 * 64)])
    btf = Btf.parse(maker.blob())
    assert btf is not None
    for structure, member in (
        ("twice", "a"),
        ("bits", "flag"),
        ("bits", "odd"),
        ("beyond", "far"),
        ("task_struct", "missing"),
        ("missing", "thread"),
        ("thread", "thread"),
    ):
        assert btf.offset(structure, member) is None, (structure, member)


def test_missing_and_wrong_files_are_none(tmp_path: Path) -> None:
    assert thread_base_offset("x86_64", tmp_path / "none") is None
    whole = a_kernel().blob()
    for number, blob in enumerate((b"", b"\x9f\xeb", whole[:-1], whole[::-1])):
        path = tmp_path / f"bad{number}"
        path.write_bytes(blob)
        assert thread_base_offset("x86_64", path) is None


@given(st.data())
def test_hostile_bytes_never_raise(data: st.DataObject) -> None:
    blob = bytearray(a_kernel(bits=data.draw(st.booleans())).blob())
    for _ in range(data.draw(st.integers(1, 6))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    btf = Btf.parse(bytes(blob[: data.draw(st.integers(0, len(blob)))]))
    if btf is not None:
        offset = btf.offset("task_struct", "thread")
        assert offset is None or 0 <= offset < 1 << 16


@pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel has no BTF")
def test_the_running_kernels_own_is_plausible() -> None:
    """Its value is checked against the live register in tests/kernel/test_access.py."""
    offset = thread_base_offset("x86_64")
    assert offset is None or (offset % 8 == 0 and 1000 < offset < 1 << 16)
