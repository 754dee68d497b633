"""One x86-64 instruction: its accesses, what it makes of registers, and where it leads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from numatrace.record.operands import x86_tables as tables
from numatrace.record.operands.instruction import FLAGS, Flow, Memory
from numatrace.record.operands.linear import (
    FULL,
    SIGN32,
    ZERO8,
    ZERO32,
    Linear,
    Term,
    register,
)
from numatrace.record.operands.x86_tables import RAX, RBP, RBX, RDI, RSI, RSP, Reg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.record.operands.instruction import Segment

OPERAND_SIZE: Final = 0x66
"""Prefix of 16-bit operands."""


class View:
    """One instruction of capstone's with its operands in our terms."""

    def __init__(self, insn: Any, mnemonic: str, operands: list[Reg | Memory | int]) -> None:
        self.insn = insn
        self.mnemonic = mnemonic
        self.operands = operands
        prefix = insn.prefix
        self.repeated = prefix[0] in (0xF2, 0xF3)
        opcode = insn.opcode
        plain = opcode[1] == 0 and (0xA4 <= opcode[0] <= 0xA7 or 0xAA <= opcode[0] <= 0xAF)
        self.string = tables.STRINGS.get(mnemonic) if plain else None
        half = prefix[2] == OPERAND_SIZE and not insn.rex & 8
        self.stack_bytes = 2 if half and mnemonic not in ("call", "ret") else 8

    def explicit(self) -> Iterator[Memory]:
        """Memory operands that the instruction names."""
        if self.mnemonic in tables.NO_ACCESS:
            return
        for place, operand in enumerate(self.operands):
            if isinstance(operand, Memory):
                operand.reads, operand.writes = self._access(place)
                operand.vector = self._vector(operand)
                yield operand

    def _access(self, place: int) -> tuple[bool, bool]:
        if self.mnemonic in tables.MODIFY_FIRST and (
            place == 0 or self.mnemonic in tables.WRITE_SECOND
        ):
            return True, True
        reads = place > 0 or self.mnemonic in tables.READ_FIRST
        return reads, not reads

    def _vector(self, operand: Memory) -> bool:
        """Whether what lies around the operand is accessed: lanes, or bits of a long string."""
        bits = self.mnemonic in ("bt", "bts", "btr", "btc") and isinstance(self.operands[-1], Reg)
        return operand.vector or bits

    def implicit(self) -> Iterator[Memory]:
        """Accesses that the instruction makes without naming them."""
        name = self.mnemonic
        if name in tables.PUSHES:
            yield Memory(RSP, disp=-self.stack_bytes, reads=False, writes=True)
        elif name in tables.POPS:
            yield Memory(RSP)
        elif name == "leave":
            yield Memory(RBP)
        elif name == "enter":
            yield Memory(RSP, disp=-8, reads=False, writes=True)
        elif name == "xlatb":
            yield Memory(RBX, RAX, extend=ZERO8, segment=self._segment(), narrow=self._narrow())
        elif name in ("maskmovq", "maskmovdqu", "vmaskmovdqu"):
            segment, narrow = self._segment(), self._narrow()
            yield Memory(RDI, segment=segment, narrow=narrow, reads=False, writes=True)
        elif name == "movdir64b" and isinstance(target := self.operands[0], Reg):
            yield Memory(target.slot, narrow=self._narrow(), reads=False, writes=True)

    def _segment(self) -> Segment:
        override: dict[int, Segment] = {0x64: "thread", 0x65: "other"}
        return override.get(self.insn.prefix[1], "")

    def _narrow(self) -> bool:
        return bool(self.insn.addr_size == 4)

    def flow(self) -> tuple[Flow, int | None]:
        """Where control goes, and the target if it is direct."""
        name = self.mnemonic
        first = self.operands[0] if self.operands else None
        target = first if isinstance(first, int) else None
        if name in ("call", "lcall"):
            return Flow.CALL, target
        if name in ("jmp", "ljmp"):
            return (Flow.END, None) if target is None else (Flow.JUMP, target)
        if name == "ret" or name in tables.ENDS:
            return Flow.END, None
        if (name[0] == "j" or name.startswith("loop")) and target is not None:
            return Flow.BRANCH, target
        return Flow.NEXT, None

    def moves(self) -> dict[int, Linear]:
        """Registers whose new value is a known sum of old ones."""
        if self.string is not None:
            return {} if self.repeated or self._narrow() else self._string_moves(self.string)
        if self.mnemonic in MOVES:
            return MOVES[self.mnemonic](self)
        return {}

    def _string_moves(self, string: tuple[int, bool, bool]) -> dict[int, Linear]:
        # The direction flag is clear wherever the ABI is kept to.
        size, source, target = string
        moved = ((RSI, source), (RDI, target))
        return {slot: register(slot, size) for slot, moves in moved if moves}

    def _pair(self) -> tuple[Reg, Reg | Memory | int] | None:
        """Destination register of 32 or 64 bits, and source."""
        if len(self.operands) != 2 or not isinstance(first := self.operands[0], Reg):
            return None
        return (first, self.operands[1]) if first.bits >= 32 and first.slot < FLAGS else None

    def copy(self) -> dict[int, Linear]:
        """Mov of a register or a number."""
        if (pair := self._pair()) is None:
            return {}
        target, source = pair
        if isinstance(source, int):
            return {target.slot: Linear((), source if target.bits == 64 else source & 0xFFFFFFFF)}
        if not isinstance(source, Reg) or not RAX <= source.slot < FLAGS:
            return {}
        extend = FULL if target.bits == 64 else ZERO32
        return {target.slot: Linear((Term(source.slot, 1, extend),))}

    def sign_extend(self) -> dict[int, Linear]:
        """Movsxd, and cdqe, which is one of eax."""
        if self.mnemonic == "cdqe":
            return {RAX: Linear((Term(RAX, 1, SIGN32),))}
        pair = self._pair()
        if pair is None or pair[0].bits != 64 or not isinstance(pair[1], Reg):
            return {}
        return {pair[0].slot: Linear((Term(pair[1].slot, 1, SIGN32),))}

    def add(self) -> dict[int, Linear]:
        """Add and sub of a number or a register; inc and dec."""
        sign = -1 if self.mnemonic in ("sub", "dec") else 1
        if self.mnemonic in ("inc", "dec"):
            self.operands = [*self.operands, 1]
        if (pair := self._pair()) is None:
            return {}
        target, source = pair
        if isinstance(source, int):
            return {target.slot: _cut(register(target.slot, sign * source), target.bits)}
        if isinstance(source, Reg) and target.bits == 64 and source.slot != target.slot:
            return {target.slot: Linear((Term(target.slot), Term(source.slot, sign)))}
        return {target.slot: Linear()} if sign < 0 and source == target else {}

    def address(self) -> dict[int, Linear]:
        """Lea."""
        pair = self._pair()
        if pair is None or not isinstance(pair[1], Memory) or pair[1].ip_relative:
            return {}
        value = pair[1].address(0)
        bits = 32 if pair[1].narrow else pair[0].bits
        if bits == 32 and (len(value.terms) != 1 or value.terms[0].factor != 1):
            return {}
        return {pair[0].slot: _cut(value, bits)}

    def clear(self) -> dict[int, Linear]:
        """Xor of a register with itself."""
        pair = self._pair()
        return {pair[0].slot: Linear()} if pair is not None and pair[0] == pair[1] else {}

    def swap(self) -> dict[int, Linear]:
        """Xchg of two 64-bit registers."""
        pair = self._pair()
        if pair is None or pair[0].bits != 64 or not isinstance(pair[1], Reg):
            return {}
        first, second = pair[0].slot, pair[1].slot
        return {first: register(second), second: register(first)}

    def stack(self) -> dict[int, Linear]:
        """Push, pop and the like: what becomes of rsp."""
        if self.mnemonic == "leave":
            return {RSP: register(RBP, self.stack_bytes)}
        first = self.operands[0] if self.operands else None
        if self.mnemonic == "pop" and isinstance(first, Reg) and first.slot == RSP:
            return {}
        down = self.mnemonic in tables.PUSHES
        return {RSP: register(RSP, -self.stack_bytes if down else self.stack_bytes)}


def _cut(value: Linear, bits: int) -> Linear:
    """The value as a 32-bit destination keeps it."""
    if bits == 64 or not value.terms:
        return value if bits == 64 else Linear((), value.disp & 0xFFFFFFFF)
    return Linear((Term(value.terms[0].slot, 1, ZERO32, value.disp),))


MOVES: Final = {
    **dict.fromkeys(("mov", "movabs"), View.copy),
    **dict.fromkeys(("movsxd", "cdqe"), View.sign_extend),
    **dict.fromkeys(("add", "sub", "inc", "dec"), View.add),
    **dict.fromkeys((*tables.PUSHES, *tables.POPS, "leave"), View.stack),
    "lea": View.address,
    "xor": View.clear,
    "xchg": View.swap,
}
