"""x86-64 instructions: capstone's view of the bytes to ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from numatrace.record.operands import vex
from numatrace.record.operands import x86_tables as tables
from numatrace.record.operands.instruction import (
    FLAGS,
    MASKS,
    NONE,
    OTHER,
    VECTORS,
    Instruction,
    Memory,
)
from numatrace.record.operands.raw import RawEngine
from numatrace.record.operands.x86_tables import RBX, RCX, RSP, Reg
from numatrace.record.operands.x86_view import View

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.record.operands.instruction import Segment

MAX_BYTES: Final = 15
"""Of one instruction (SDM volume 2, section 2.3.11)."""

RIP: Final = 200
"""A slot that only operands have while they are decoded."""

WRITE: Final = 2
"""capstone's access flag of an operand that is only written (CS_AC_WRITE)."""


def _names() -> dict[str, Reg]:
    """Every register's name, as capstone spells it."""
    names: dict[str, Reg] = {"rip": Reg(RIP, 64), "eip": Reg(RIP, 32), "rflags": Reg(FLAGS, 64)}
    for slot, stem in enumerate(("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")):
        names |= {f"r{stem}": Reg(slot, 64), f"e{stem}": Reg(slot, 32), stem: Reg(slot, 16)}
        names[f"{stem}l" if slot > RBX else f"{stem[0]}l"] = Reg(slot, 8)
        if slot <= RBX:
            names[f"{stem[0]}h"] = Reg(slot, 8, 8)
    for slot in range(8, 16):
        for suffix, bits in (("", 64), ("d", 32), ("w", 16), ("b", 8)):
            names[f"r{slot}{suffix}"] = Reg(slot, bits)
    for number in range(32):
        for letter, bits in (("x", 128), ("y", 256), ("z", 512)):
            names[f"{letter}mm{number}"] = Reg(VECTORS + number, bits)
    names |= {f"k{number}": Reg(MASKS + number, 64) for number in range(8)}
    names |= {f"st({number})": Reg(OTHER, 80) for number in range(8)}
    names |= {f"mm{number}": Reg(OTHER, 64) for number in range(8)}
    return names | {"fpsw": Reg(OTHER, 16)}


class X86Decoder:
    """Decodes 64-bit code. Nothing here raises, whatever the bytes are."""

    stack = RSP
    step = 1
    after_slow = True
    """An interrupt comes in once the oldest instruction is done, so that the sampled address is
    that of the next one. Measured with cpu-clock on an AMD EPYC of family 25: 97 to 99 % of the
    samples of a loop that waits on one load, store or atomic fall on the instruction behind it,
    whatever that is. Skylake does the same (T. Downs, "Where do interrupts happen?", 2019)."""

    def __init__(self) -> None:
        import capstone

        self._lite = RawEngine(capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64))
        self._full = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._full.detail = True
        self._raw = RawEngine(self._full)
        kinds = capstone.x86
        self._types = (kinds.X86_OP_REG, kinds.X86_OP_MEM, kinds.X86_OP_IMM)
        names = _names()
        self._regs = {
            number: names[name]
            for number in range(1, capstone.x86.X86_REG_ENDING)
            if (name := self._full.reg_name(number)) in names
        }
        self._segments: dict[int, Segment] = {
            capstone.x86.X86_REG_FS: "thread",
            capstone.x86.X86_REG_GS: "other",
        }

    def sweep(self, code: bytes, ip: int) -> Iterator[tuple[int, int, int | None]]:
        """Address, length and direct target of one instruction after the other.

        Ends before the first that is none, or is cut off.
        """
        at = 0
        while at < len(code):
            begin = at
            for address, size, text in self._lite.lines(code[at:], ip + at):
                at = address + size - ip
                yield address, size, _target(text) if text else None
            if at == begin:
                known = vex.decode(code[at : at + MAX_BYTES])
                if known is None:
                    return
                yield ip + at, known.length, None
                at += known.length

    def decode(self, code: bytes) -> Instruction | None:
        """The instruction that the bytes begin with; None if there is none."""
        code = code[:MAX_BYTES]
        found = self._raw.first(code, self._translate)
        return vex.decode(code) if found is None else found

    def _translate(self, insn: Any) -> Instruction:
        mnemonic = insn.mnemonic.rpartition(" ")[2]
        operands = [self._operand(each, insn, mnemonic) for each in insn.operands]
        reads, writes = self._registers(insn, mnemonic, operands)
        view = View(insn, mnemonic, operands)
        memory = (*view.explicit(), *view.implicit())
        addresses = [each for each in operands if isinstance(each, Memory)]
        for each in (*addresses, *memory):
            reads |= {slot for slot in (each.base, each.index) if slot != NONE}
        if view.string is not None and view.repeated:
            writes.add(RCX)
        moves = view.moves()
        flow, target = view.flow()
        return Instruction(
            insn.size,
            memory,
            frozenset(reads),
            frozenset(writes | moves.keys()),
            moves,
            flow,
            target,
            view.string is not None and view.repeated,
            mnemonic == "pause",
        )

    def _operand(self, operand: Any, insn: Any, mnemonic: str) -> Reg | Memory | int:
        """A register, memory (who reads or writes it is told later) or a number."""
        kind = operand.type
        if kind == self._types[0]:
            return self._regs.get(operand.reg, Reg(NONE, 0))
        if kind == self._types[1]:
            return self._memory(operand.mem, insn)
        return int(operand.imm) if kind == self._types[2] else 0

    def _memory(self, operand: Any, insn: Any) -> Memory:
        base = self._regs.get(operand.base, Reg(NONE, 64))
        index = self._regs.get(operand.index, Reg(NONE, 64))
        ip_relative = base.slot == RIP
        return Memory(
            base=NONE if ip_relative else base.slot,
            index=index.slot,
            scale=operand.scale,
            disp=operand.disp + (insn.size if ip_relative else 0),
            segment=self._segments.get(operand.segment, ""),
            narrow=insn.addr_size == 4,
            vector=index.slot >= VECTORS,
            ip_relative=ip_relative,
        )

    def _registers(
        self, insn: Any, mnemonic: str, operands: list[Reg | Memory | int]
    ) -> tuple[set[int], set[int]]:
        """Slots read and written, other than those of addresses. Rather too many than too few."""
        reads = {self._regs[each].slot for each in insn.regs_read if each in self._regs}
        writes = {self._regs[each].slot for each in insn.regs_write if each in self._regs}
        for place, operand in enumerate(operands):
            if not isinstance(operand, Reg) or operand.slot == NONE:
                continue
            access = insn.operands[place].access
            first = place == 0 and mnemonic not in tables.KEEP_FIRST
            if first or access & WRITE or (place == 1 and mnemonic in tables.WRITE_SECOND):
                writes.add(operand.slot)
            if access != WRITE or operand.bits < 32:
                reads.add(operand.slot)
        writes |= tables.MORE_WRITTEN.get(mnemonic, frozenset())
        registers = [each for each in operands if isinstance(each, Reg)]
        if mnemonic in tables.ZERO_IDIOMS and len(registers) == len(operands) >= 2:
            reads -= {registers[-1].slot} if registers[-1] == registers[-2] else set()
        return reads - {RIP}, writes - {RIP}


def _target(text: str) -> int | None:
    """Where a direct jump or branch goes, from capstone's text of it."""
    mnemonic, _, operands = text.partition(" ")
    if not operands.startswith("0x"):
        return None
    return int(operands, 16) if mnemonic[0] == "j" or mnemonic.startswith("loop") else None
