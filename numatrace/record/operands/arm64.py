"""arm64 instructions: capstone's view of the bytes to ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from numatrace.record.operands.instruction import (
    MASKS,
    NONE,
    OTHER,
    VECTORS,
    Flow,
    Instruction,
    Memory,
    words,
)
from numatrace.record.operands.linear import FULL, SIGN32, ZERO8, ZERO32, Linear, Term, register

if TYPE_CHECKING:
    from collections.abc import Iterator

SP: Final = 31
LINK: Final = 30
FLAGS: Final = OTHER
WORD: Final = 4
"""Bytes of every instruction."""

RELAXING: Final = words("yield wfe isb")
"""What spin loops of arm64 wait with."""

WRITE: Final = 2
"""capstone's flag of an operand that is only written (CS_AC_WRITE)."""

MODIFIES: Final = re.compile(r"(cas|swp|ld(add|clr|eor|set|smax|smin|umax|umin)|rcw)")
"""Atomics that read and write memory, and hand back the old value. Source: Arm ARM, C3.2.12."""

MODIFIES_ONLY: Final = re.compile(r"st(add|clr|eor|set|smax|smin|umax|umin)(l|b|h|lb|lh)?$")
"""The same without a value handed back."""

STATUS: Final = re.compile(r"st(l?xr[bh]?|l?xp|64bv0?)$")
"""Stores that write whether they succeeded to their first register."""

HINTS: Final = re.compile(r"(prf|st2?z?g|stgm|stzgm|ldgm|ldg|stgp)")
"""Prefetches, and instructions that move memory tags rather than data; stgp stores data too."""

KEEP_FIRST: Final = words(
    """cmp cmn tst ccmp ccmn fcmp fcmpe fccmp fccmpe cbz cbnz tbz tbnz br blr braa brab blraa blrab
    ret msr dc ic at tlbi sys hint setf8 setf16 rmif ptest wrffr ctermeq ctermne"""
)
"""Names whose first register is only read."""

FLAG_READERS: Final = words("ccmp ccmn fccmp fccmpe adc sbc adcs sbcs csel")
ENDS: Final = words("ret retaa retab eret br braa brab braaz brabz brk hlt udf")
CALLS: Final = words("bl blr blraa blrab blraaz blrabz")


class Reg(NamedTuple):
    """Slot of a register and bits of it that its name stands for."""

    slot: int
    bits: int


def _names() -> dict[str, Reg]:
    """Every register's name, as capstone spells it; the zero register is none."""
    names = {"sp": Reg(SP, 64), "wsp": Reg(SP, 32), "fp": Reg(29, 64), "lr": Reg(LINK, 64)}
    names["nzcv"] = Reg(FLAGS, 32)
    for slot in range(31):
        names |= {f"x{slot}": Reg(slot, 64), f"w{slot}": Reg(slot, 32)}
    for number in range(32):
        names |= {f"{kind}{number}": Reg(VECTORS + number, 128) for kind in "bhsdqvz"}
    return names | {f"p{number}": Reg(MASKS + number, 64) for number in range(16)}


class Arm64Decoder:
    """Decodes A64 code. Nothing here raises, whatever the bytes are."""

    stack = SP
    step = WORD
    after_slow = False
    """Whether samples fall behind the instruction that is waited for is not known here, and the
    difference is small: no instruction but a load or store has a memory operand."""

    def __init__(self) -> None:
        import capstone

        mode = capstone.CS_MODE_LITTLE_ENDIAN
        self._lite = capstone.Cs(capstone.CS_ARCH_ARM64, mode)
        self._full = capstone.Cs(capstone.CS_ARCH_ARM64, mode)
        self._full.detail = True
        self.const = capstone.arm64
        names = _names()
        self._regs = {
            number: names[name]
            for number in range(1, capstone.arm64.ARM64_REG_ENDING)
            if (name := self._full.reg_name(number)) in names
        }

    def sweep(self, code: bytes, ip: int) -> Iterator[tuple[int, int, int | None]]:
        """Address, length and direct target of every word; words that are none count as well."""
        for at in range(0, len(code) - WORD + 1, WORD):
            word = int.from_bytes(code[at : at + WORD], "little")
            offset = _branch_offset(word)
            yield ip + at, WORD, None if offset is None else ip + at + offset

    def decode(self, code: bytes) -> Instruction | None:
        """The instruction that the bytes begin with; None if there is none."""
        found = next(self._full.disasm(code[:WORD], 0, 1), None)
        return None if found is None else View(found, self._regs, self.const).instruction()


def _branch_offset(word: int) -> int | None:
    """Bytes from a direct jump or branch to its target (Arm ARM, C4.1)."""
    if word >> 26 == 0b000101:
        return _signed(word & 0x3FFFFFF, 26) * WORD
    if word >> 24 == 0b01010100 or word >> 25 & 0x3F == 0b011010:
        return _signed(word >> 5 & 0x7FFFF, 19) * WORD
    if word >> 25 & 0x3F == 0b011011:
        return _signed(word >> 5 & 0x3FFF, 14) * WORD
    return None


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 else value


class View:
    """One instruction of capstone's in our terms."""

    def __init__(self, insn: Any, regs: dict[int, Reg], const: Any) -> None:
        self.insn = insn
        self.const = const
        self.regs = regs
        self.name: str = insn.mnemonic
        self.operands: list[Any] = insn.operands
        self.places = [
            place
            for place, operand in enumerate(self.operands)
            if operand.type == const.ARM64_OP_MEM
        ]
        self.loads = self.name.startswith(("ld", "cas", "swp", "rcw"))
        self.stores = self.name.startswith("st")

    def instruction(self) -> Instruction:
        """The whole."""
        memory = tuple(self.memory())
        moves = self.moves()
        reads, writes = self.registers(memory)
        flow, target = self.flow()
        return Instruction(
            WORD,
            memory,
            frozenset(reads),
            frozenset(writes | moves.keys()),
            moves,
            flow,
            target,
            relaxes=self.name in RELAXING,
        )

    def reg(self, number: int) -> Reg:
        """A register by capstone's number; slot NONE for the zero register and unknown ones."""
        return self.regs.get(number, Reg(NONE, 64))

    def _operand(self, place: int) -> Reg | None:
        if place >= len(self.operands) or self.operands[place].type != self.const.ARM64_OP_REG:
            return None
        return self.reg(self.operands[place].reg)

    def _number(self, place: int) -> int | None:
        if place >= len(self.operands) or self.operands[place].type != self.const.ARM64_OP_IMM:
            return None
        operand = self.operands[place]
        shift = operand.shift.value if operand.shift.type else 0
        return int(operand.imm) << shift

    def memory(self) -> Iterator[Memory]:
        """Accesses: one at most."""
        if self.name == "dc":
            return
        if not (self.loads or self.stores) or (HINTS.match(self.name) and self.name != "stgp"):
            return
        reads, writes = self._access()
        if self.places:
            yield self._placed(self.operands[self.places[0]], reads, writes)
        elif self.loads and (literal := self._number(len(self.operands) - 1)) is not None:
            yield Memory(disp=literal, ip_relative=True)
        elif (base := self._vector_base()) is not None:
            yield Memory(base.slot, vector=True, reads=reads, writes=writes)

    def _access(self) -> tuple[bool, bool]:
        if MODIFIES.match(self.name) or MODIFIES_ONLY.match(self.name):
            return True, True
        return self.loads, self.stores

    def _vector_base(self) -> Reg | None:
        """The general register of a gather whose addresses lie in a vector, if it has one."""
        found = [self._operand(place) for place in range(len(self.operands))]
        general = [each for each in found if each is not None and each.slot <= SP]
        return next(reversed(general), Reg(NONE, 64)) if "1" in self.name else None

    def _placed(self, operand: Any, reads: bool, writes: bool) -> Memory:
        base, index = self.reg(operand.mem.base), self.reg(operand.mem.index)
        vector = VECTORS <= max(base.slot, index.slot) < MASKS
        # A multiple of the vector's length, which user space cannot tell for the thread: the
        # base is within a few hundred bytes.
        disp = 0 if "mul vl" in self.insn.op_str else operand.mem.disp
        return Memory(
            NONE if base.slot >= VECTORS else base.slot,
            index.slot,
            1 << operand.shift.value if operand.shift.type else 1,
            disp,
            self._extend(operand.ext, index),
            vector=vector,
            reads=reads,
            writes=writes,
        )

    def _extend(self, extend: int, index: Reg) -> int:
        if extend == self.const.ARM64_EXT_UXTB:
            return ZERO8
        if extend == self.const.ARM64_EXT_SXTW:
            return SIGN32
        return ZERO32 if extend == self.const.ARM64_EXT_UXTW or index.bits == 32 else FULL

    def registers(self, memory: tuple[Memory, ...]) -> tuple[set[int], set[int]]:
        """Slots read and written. Rather too many than too few."""
        reads = {self.regs[each].slot for each in self.insn.regs_read if each in self.regs}
        writes = {self.regs[each].slot for each in self.insn.regs_write if each in self.regs}
        for place in range(len(self.operands)):
            found = self._operand(place)
            if found is None or found.slot == NONE:
                continue
            if self._written(place):
                writes.add(found.slot)
            if self.operands[place].access != WRITE or self.stores:
                reads.add(found.slot)
        for place in self.places:
            mem = self.operands[place].mem
            used = {self.reg(each).slot for each in (mem.base, mem.index)} - {NONE}
            reads |= used
            writes |= {self.reg(mem.base).slot} if self.insn.writeback else set()
        if self.name in CALLS:
            writes.add(LINK)
        return self._flags(reads, writes | self._more_written())

    def _written(self, place: int) -> bool:
        if self.stores:
            return place == 0 and STATUS.match(self.name) is not None
        if self.loads:
            return not self.places or place < self.places[0]
        if self.name in KEEP_FIRST or self.name.startswith(("prf", "b.")):
            return False
        return place == 0

    def _more_written(self) -> set[int]:
        """Registers of ld64b (8 of them) and of wide compare-and-swap, beyond those named."""
        first = self._operand(0)
        if self.name != "ld64b":
            return set()
        return set(range(SP)) if first is None else set(range(first.slot, first.slot + 8))

    def _flags(self, reads: set[int], writes: set[int]) -> tuple[set[int], set[int]]:
        if self.name.startswith("b.") or self.name in FLAG_READERS:
            reads.add(FLAGS)
        if self.name in ("fcmp", "fcmpe", "cmp", "cmn", "tst", "ptest", "whilelo", "whilelt"):
            writes.add(FLAGS)
        return reads, writes

    def flow(self) -> tuple[Flow, int | None]:
        """Where control goes, and the target if it is direct."""
        word = int.from_bytes(self.insn.bytes, "little")
        offset = _branch_offset(word)
        if self.name in CALLS:
            return Flow.CALL, None
        if self.name in ENDS:
            return Flow.END, None
        if offset is None:
            return Flow.NEXT, None
        return (Flow.JUMP if self.name == "b" else Flow.BRANCH), offset

    def moves(self) -> dict[int, Linear]:
        """Registers whose new value is a known sum of old ones."""
        if self.places:
            return self._writeback()
        if self.name in MOVES:
            return MOVES[self.name](self)
        return {}

    def _writeback(self) -> dict[int, Linear]:
        """What pre- and post-index addressing makes of the base."""
        place = self.places[0]
        base = self.reg(self.operands[place].mem.base)
        if not self.insn.writeback or base.slot > SP or base.slot == NONE:
            return {}
        if not self.insn.post_index:
            return {base.slot: register(base.slot, self.operands[place].mem.disp)}
        step, by = self._number(place + 1), self._operand(place + 1)
        if step is not None:
            return {base.slot: register(base.slot, step)}
        if by is None or by.slot in (NONE, base.slot):
            return {}
        return {base.slot: Linear((Term(base.slot), Term(by.slot)))}

    def _target(self) -> Reg | None:
        first = self._operand(0)
        return first if first is not None and 0 <= first.slot <= SP else None

    def copy(self) -> dict[int, Linear]:
        """Mov of a general register or a number."""
        target, source = self._target(), self._operand(1)
        if target is None:
            return {}
        if (number := self._number(1)) is not None:
            return {target.slot: Linear((), number if target.bits == 64 else number & 0xFFFFFFFF)}
        if source is None or source.slot > SP:
            return {}
        if source.slot == NONE:
            return {target.slot: Linear()}
        extend = FULL if target.bits == 64 else ZERO32
        return {target.slot: Linear((Term(source.slot, 1, extend),))}

    def add(self) -> dict[int, Linear]:
        """Add and sub, of a number or of a register that may be extended and shifted."""
        sign = -1 if self.name.startswith("sub") else 1
        target, left = self._target(), self._operand(1)
        if target is None or left is None or left.slot > SP or left.slot == NONE:
            return {}
        if (number := self._number(2)) is not None:
            if target.bits == 64:
                return {target.slot: register(left.slot, sign * number)}
            return {target.slot: Linear((Term(left.slot, 1, ZERO32, sign * number),))}
        right = self._operand(2)
        if target.bits == 32 or right is None or right.slot > SP:
            return {}
        if right.slot in (NONE, left.slot):
            return {}
        term = self._shifted(2, right, sign)
        return {} if term is None else {target.slot: Linear((Term(left.slot), term))}

    def _shifted(self, place: int, source: Reg, sign: int) -> Term | None:
        """A register operand with its extension and shift, where both can be told."""
        operand, const = self.operands[place], self.const
        shift = operand.shift
        plain = (
            0,
            const.ARM64_EXT_UXTB,
            const.ARM64_EXT_UXTW,
            const.ARM64_EXT_SXTW,
            const.ARM64_EXT_UXTX,
            const.ARM64_EXT_SXTX,
        )
        if shift.type not in (0, const.ARM64_SFT_LSL) or operand.ext not in plain:
            return None
        factor = 1 << shift.value if shift.type else 1
        return Term(source.slot, sign * factor, self._extend(operand.ext, source))

    def sign_extend(self) -> dict[int, Linear]:
        """Sxtw."""
        target, source = self._target(), self._operand(1)
        if target is None or source is None or source.slot > SP or source.slot == NONE:
            return {}
        return {target.slot: Linear((Term(source.slot, 1, SIGN32),))}


MOVES: Final = {
    "mov": View.copy,
    **dict.fromkeys(("add", "adds", "sub", "subs"), View.add),
    "sxtw": View.sign_extend,
}
