"""x86-64 instructions as capstone leaves them in memory: its own objects copy all of it first."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
Array = np.ndarray[Any, Any]

LO = int.from_bytes(b"lo", "little")
"""As loop begins, loope, loopne: the jumps whose names do not begin with j."""


class RawInstruction:
    """What of capstone.CsInsn is asked for. Valid until capstone takes its memory back."""

    __slots__ = (
        "addr_size", "mnemonic", "opcode", "operands", "prefix", "regs_read", "regs_write", "rex",
        "size",
    )  # fmt: skip

    def __init__(self, found: Any) -> None:
        detail = found.detail.contents
        arch = detail.arch.x86
        self.size: int = found.size
        self.mnemonic: str = found.mnemonic.decode("ascii")
        self.prefix = arch.prefix
        self.opcode = arch.opcode
        self.rex: int = arch.rex
        self.addr_size: int = arch.addr_size
        self.operands = arch.operands[: arch.op_count]
        self.regs_read = detail.regs_read[: detail.regs_read_count]
        self.regs_write = detail.regs_write[: detail.regs_write_count]


class RawEngine:
    """An engine, used as capstone's binding (versions 5) uses it."""

    def __init__(self, engine: Any) -> None:
        import capstone

        self._engine = engine
        self._library: Any = capstone._cs
        self._insn: Any = capstone._cs_insn
        self._pointer: Any = ctypes.POINTER(self._insn)
        self._listed = _listed(self._insn)

    def first(self, code: bytes, use: Callable[[RawInstruction], T]) -> T | None:
        """What `use` makes of the instruction that the code begins with; None if it is none.

        The engine must give details.
        """
        return self._disassembled(code, 0, 1, lambda found, _: use(RawInstruction(found[0])))

    def lines(self, code: bytes, ip: int) -> Iterator[tuple[int, int, str]]:
        """Address, size, and text (of what may be a jump), of all up to the first that is none."""
        listed = self._disassembled(code, ip, 0, self._copied)
        if listed is None:
            return iter(())
        texts = [""] * len(listed)
        begins = listed["begins"]
        for place in np.flatnonzero((begins & 0xFF == ord("j")) | (begins == LO)).tolist():
            texts[place] = _text(listed[place])
        return zip(listed["address"].tolist(), listed["size"].tolist(), texts, strict=True)

    def _copied(self, found: Any, count: int) -> Array:
        """A copy of `count` of capstone's structs."""
        size = count * self._listed.itemsize
        raw = ctypes.string_at(ctypes.addressof(found.contents), size)
        return np.frombuffer(raw, self._listed)

    def _disassembled(
        self, code: bytes, ip: int, most: int, use: Callable[[Any, int], T]
    ) -> T | None:
        """What `use` makes of capstone's structs, up to `most` (0: all); None if there are none."""
        found = self._pointer()
        place = ctypes.byref(found)
        count = self._library.cs_disasm(self._engine.csh, code, len(code), ip, most, place)
        if not count:
            return None
        try:
            return use(found, count)
        finally:
            self._library.cs_free(found, count)


def _text(line: Any) -> str:
    # What stands behind a C string's end is whatever was there before.
    parts = [line[name].partition(b"\0")[0].decode("ascii") for name in ("mnemonic", "operands")]
    return " ".join(parts)


def _listed(insn: Any) -> np.dtype[np.void]:
    """What of capstone's structs a list needs."""
    name, operands = insn.mnemonic, insn.op_str
    members = {
        "address": ("<u8", insn.address.offset),
        "size": ("<u2", insn.size.offset),
        "begins": ("<u2", name.offset),
        "mnemonic": (f"S{name.size}", name.offset),
        "operands": (f"S{operands.size}", operands.offset),
    }
    return np.dtype(
        {
            "names": list(members),
            "formats": [kind for kind, _ in members.values()],
            "offsets": [offset for _, offset in members.values()],
            "itemsize": ctypes.sizeof(insn),
        }
    )
