"""What a decoded instruction does to memory, registers and the flow of control; plain data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from numatrace.record.operands.linear import FULL, Linear, Term

if TYPE_CHECKING:
    from collections.abc import Mapping

REGISTERS: Final = 32
"""Slots 0 to 31 are those of the ring record's `regs`."""
FLAGS: Final = 16
"""Of x86-64, where regs[16] is rflags. On arm64 the flags are no register of the record."""
VECTORS: Final = 64
"""Vector registers, from here on; their values are not recorded."""
MASKS: Final = 96
"""Mask and predicate registers."""
OTHER: Final = 112
"""All else that carries data from one instruction to the next: x87, MMX, flags of arm64."""
NONE: Final = -1


def words(text: str) -> frozenset[str]:
    """The words of a text, for tables of names."""
    return frozenset(text.split())


Segment = Literal["", "thread", "other"]


@dataclass(slots=True)
class Memory:
    """One access: base + index × scale + disp, in registers as they are before the instruction.

    `segment`: what the address counts from, the thread's block (fs) or an unknown base (gs).
    `narrow`: cut to 32 bits. `vector`: the index is a vector, so that base + disp is where the
    lanes lie around. `ip_relative`: `disp` counts from where
    the instruction lies.
    """

    base: int = NONE
    index: int = NONE
    scale: int = 1
    disp: int = 0
    extend: int = FULL
    segment: Segment = ""
    narrow: bool = False
    vector: bool = False
    ip_relative: bool = False
    reads: bool = True
    writes: bool = False

    def address(self, ip: int) -> Linear:
        """The effective address at an instruction at `ip`, without segment, lanes, narrowing."""
        terms: tuple[Term, ...] = () if self.base == NONE else (Term(self.base),)
        if self.index != NONE and not self.vector:
            terms += (Term(self.index, self.scale, self.extend),)
        if len(terms) == 2 and terms[0].slot == terms[1].slot and self.extend == FULL:
            terms = (Term(self.base, 1 + self.scale),)
        return Linear(terms, self.disp + ip if self.ip_relative else self.disp)


class Flow(Enum):
    """Where control goes after an instruction."""

    NEXT = "to the next instruction"
    BRANCH = "to the next instruction or the target"
    JUMP = "to the target"
    CALL = "away, and back to the next instruction"
    END = "away"


class Instruction(NamedTuple):
    """One instruction, wherever it lies. `reads` and `writes` hold slots of registers of any kind.

    `moves`: registers whose new value is a known sum of old ones; they are in `writes` too.
    `target`: of a direct jump or branch, counted from the instruction. `repeats`: it may be
    interrupted and taken up again. `relaxes`: it tells the CPU that a loop only waits.
    """

    length: int
    memory: tuple[Memory, ...] = ()
    reads: frozenset[int] = frozenset()
    writes: frozenset[int] = frozenset()
    moves: Mapping[int, Linear] = MappingProxyType({})
    flow: Flow = Flow.NEXT
    target: int | None = None
    repeats: bool = False
    relaxes: bool = False

    @property
    def access(self) -> Memory | None:
        """The access to wait for: the first that reads, else the first that writes."""
        for memory in self.memory:
            if memory.reads:
                return memory
        return self.memory[0] if self.memory else None

    def leaves(self, slots: frozenset[int]) -> bool:
        """Whether it neither changes any of these registers nor makes others of them."""
        return self.writes.isdisjoint(slots) and (not self.moves or self.reads.isdisjoint(slots))
