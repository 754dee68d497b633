"""VEX and EVEX instructions that capstone does not know yet: AVX-VNNI, BF16, FP16, AMX and on.

Their layout is regular (Intel SDM volume 2, sections 2.3 and 2.7): prefix, opcode, ModRM, SIB,
displacement, and an immediate byte in opcode map 3. So length, address and registers can be told
without knowing the instruction. The exact unit of an EVEX 8-bit displacement depends on the
instruction: for those of a kind that is not known here it is taken to be the whole vector.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from numatrace.record.operands.instruction import (
    FLAGS,
    MASKS,
    NONE,
    VECTORS,
    Instruction,
    Memory,
)

if TYPE_CHECKING:
    from numatrace.record.operands.instruction import Segment

SEGMENTS: Final[dict[int, Segment]] = {
    0x64: "thread", 0x65: "other", 0x26: "", 0x2E: "", 0x36: "", 0x3E: "",
}  # fmt: skip
ADDRESS_SIZE: Final = 0x67

NO_PREFIX, P66, PF3, PF2 = range(4)
"""Values of the pp field."""

TILE_CONFIG: Final = 0x49
TILE_MEMORY: Final = 0x4B
"""Opcodes of map 2, VEX: ldtilecfg and sttilecfg; tileloadd, tileloaddt1 and tilestored."""

COMPARE_ADD: Final = range(0xE0, 0xF0)
"""Opcodes of map 2, VEX.66: cmpccxadd, which changes memory and a general register."""

HALF_STORES: Final = frozenset({(5, 0x11), (5, 0x7E)})
"""Map and opcode of the FP16 stores vmovsh and vmovw."""


@dataclass(slots=True)
class Prefix:
    """Fields of a VEX or EVEX prefix; the register extensions are not inverted any more."""

    length: int
    opcode_map: int
    pp: int
    wide: bool
    reg: int
    index: int
    base: int
    second: int
    vector_bytes: int
    broadcast: bool
    mask: int
    evex: bool


def decode(code: bytes) -> Instruction | None:
    """The instruction that the bytes begin with; None if it is not one of maps 2, 3, 5 and 6."""
    try:
        return _decode(code)
    except IndexError:
        return None


def _decode(code: bytes) -> Instruction | None:
    segment: Segment = ""
    at, narrow = 0, False
    while code[at] in SEGMENTS or code[at] == ADDRESS_SIZE:
        segment, narrow = SEGMENTS.get(code[at], segment), narrow or code[at] == ADDRESS_SIZE
        at += 1
    found = _vex(code[at:]) if code[at] == 0xC4 else _evex(code[at:]) if code[at] == 0x62 else None
    if found is None or found.opcode_map not in (2, 3, 5, 6):
        return None
    at += found.length
    opcode, modrm = code[at], code[at + 1]
    at += 2
    tail = 1 if found.opcode_map == 3 else 0
    prefix = replace(found, reg=found.reg | modrm >> 3 & 7)
    if modrm >> 6 == 3:
        memory, used = None, {prefix.base | modrm & 7}
    else:
        memory, at = _address(code, at, modrm, prefix)
        units = _unit(prefix, opcode) if modrm >> 6 == 1 and prefix.evex else 1
        disp = memory.disp * units + (at + tail if memory.ip_relative else 0)
        memory = replace(memory, disp=disp, segment=segment, narrow=narrow)
        memory, used = _accessed(memory, prefix, opcode), set()
    return _finish(at + tail, prefix, memory, used) if at + tail <= len(code) else None


def _vex(code: bytes) -> Prefix:
    first, second = code[1] ^ 0xE0, code[2]
    return Prefix(
        length=3,
        opcode_map=first & 31,
        pp=second & 3,
        wide=bool(second & 128),
        reg=first >> 4 & 8,
        index=first >> 3 & 8,
        base=first >> 2 & 8,
        second=(second >> 3 & 15) ^ 15,
        vector_bytes=32 if second & 4 else 16,
        broadcast=False,
        mask=0,
        evex=False,
    )


def _evex(code: bytes) -> Prefix | None:
    first, second, third = code[1] ^ 0xF0, code[2], code[3]
    if first & 8 or not second & 4:
        return None
    return Prefix(
        length=4,
        opcode_map=first & 7,
        pp=second & 3,
        wide=bool(second & 128),
        reg=(first >> 4 & 8) | (first & 16),
        index=first >> 3 & 8,
        base=first >> 2 & 8,
        second=((second >> 3 & 15) | (third << 1 & 16)) ^ 31,
        vector_bytes=16 << min(third >> 5 & 3, 2),
        broadcast=bool(third & 16),
        mask=third & 7,
        evex=True,
    )


def _address(code: bytes, at: int, modrm: int, prefix: Prefix) -> tuple[Memory, int]:
    """The memory operand and where the displacement ends (SDM volume 2, section 2.1.5)."""
    mode, low = modrm >> 6, modrm & 7
    index, scale = NONE, 1
    if low == 4:
        sib = code[at]
        at += 1
        low, scale = sib & 7, 1 << (sib >> 6)
        number = prefix.index | sib >> 3 & 7
        index = NONE if number == 4 else number
    without = mode == 0 and low == 5
    base, size = (NONE, 4) if without else (prefix.base | low, (0, 1, 4)[mode])
    if len(code) < at + size:
        raise IndexError
    disp = int.from_bytes(code[at : at + size], "little", signed=True)
    return Memory(base, index, scale, disp, ip_relative=modrm & 0xC7 == 5), at + size


def _unit(prefix: Prefix, opcode: int) -> int:
    """Bytes that an EVEX 8-bit displacement counts in (SDM volume 2, section 2.7.5)."""
    half_floats = prefix.opcode_map in (5, 6)
    if prefix.broadcast:
        return 8 if prefix.wide else 2 if half_floats else 4
    scalar = prefix.pp == PF3 or (prefix.pp == PF2 and opcode != 0x7A)
    if half_floats and (scalar or (prefix.opcode_map, opcode) in {(5, 0x6E), (5, 0x7E)}):
        return 2
    return prefix.vector_bytes


def _accessed(memory: Memory, prefix: Prefix, opcode: int) -> Memory:
    """The operand, with who reads and writes it."""
    special = not prefix.evex and prefix.opcode_map == 2
    kind = (opcode, prefix.pp)
    stored = (prefix.opcode_map, opcode) in HALF_STORES or (
        special and kind in {(TILE_CONFIG, P66), (TILE_MEMORY, PF3)}
    )
    changed = special and prefix.pp == P66 and opcode in COMPARE_ADD
    # The index of a tile is the stride of its rows: the first is where base + disp says.
    index = NONE if special and opcode == TILE_MEMORY else memory.index
    return replace(memory, index=index, reads=not stored, writes=stored or changed)


def _finish(length: int, prefix: Prefix, memory: Memory | None, used: set[int]) -> Instruction:
    """All registers are taken as read, and the first one, whatever its kind, as written."""
    writes = {VECTORS + prefix.reg, MASKS + (prefix.reg & 7)}
    if memory is None or memory.writes:
        # Vmovw and conversions to integers write a general register, cmpccxadd a second one.
        writes |= {slot & 15 for slot in (*used, prefix.reg)} | {FLAGS}
    reads = {VECTORS + number for number in (prefix.reg, prefix.second, *used)}
    if prefix.mask:
        reads.add(MASKS + prefix.mask)
    if memory is not None:
        reads |= {slot for slot in (memory.base, memory.index) if slot != NONE}
    return Instruction(length, (memory,) if memory else (), frozenset(reads), frozenset(writes))
