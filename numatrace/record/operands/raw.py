"""One x86-64 instruction as capstone leaves it in memory: its own objects copy all of it first."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


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
    """An engine with details, used as capstone's binding (versions 5) uses it."""

    def __init__(self, engine: Any) -> None:
        import capstone

        self._engine = engine
        self._library: Any = capstone._cs
        self._pointer: Any = ctypes.POINTER(capstone._cs_insn)

    def first(self, code: bytes, use: Callable[[RawInstruction], T]) -> T | None:
        """What `use` makes of the instruction that the code begins with; None if it is none."""
        found = self._pointer()
        place = ctypes.byref(found)
        count = self._library.cs_disasm(self._engine.csh, code, len(code), 0, 1, place)
        if not count:
            return None
        try:
            return use(RawInstruction(found[0]))
        finally:
            self._library.cs_free(found, count)
