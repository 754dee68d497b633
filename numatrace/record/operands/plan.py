"""How to get an address from registers, once per distinct instruction, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from numatrace.model.access import WRITE
from numatrace.record.operands.kernel import CODE
from numatrace.record.operands.linear import (
    FULL,
    MAX_TERMS,
    SIGN32,
    ZERO8,
    ZERO32,
    Term,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numatrace.record.operands.block import Found

Array = np.ndarray[Any, Any]

PAGE: Final = 4096
"""Below it nothing is ever mapped: an address there is a null pointer and an offset."""

MASK64: Final = (1 << 64) - 1
EXTENDED: Final = np.array(
    [MASK64 if extend == FULL else 0xFF if extend == ZERO8 else 0xFFFFFFFF
     for extend in sorted((FULL, ZERO32, SIGN32, ZERO8))], np.uint64
)  # fmt: skip
SIGN_BIT: Final = np.array(
    [1 << 31 if extend == SIGN32 else 0 for extend in sorted((FULL, ZERO32, SIGN32, ZERO8))],
    np.uint64,
)
"""value = ((value & EXTENDED) ^ SIGN_BIT) - SIGN_BIT, by a term's `extend`."""


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """Address = sum of factor × extend(register + inner), + disp, + the thread's base.

    `narrow`: cut to 32 bits, but for the thread's base. `known` is False where there is nothing to
    compute; `how`: place in HOW; `access`: bits of the `access` column.
    """

    terms: tuple[Term, ...] = ()
    disp: int = 0
    narrow: bool = False
    thread: bool = False
    known: bool = False
    access: int = 0
    how: int = CODE["none"]


UNREADABLE: Final = AddressPlan(how=CODE["unreadable"])
NOTHING: Final = AddressPlan()


def plan_of(found: Found) -> AddressPlan:
    """The plan for an access."""
    memory, address = found.memory, found.address
    how = "operand" if found.own else "neighbour"
    if memory.vector:
        how = "vector"
    if memory.segment == "other":
        how = "segment"
    return AddressPlan(
        address.terms,
        address.disp,
        memory.narrow,
        memory.segment == "thread",
        memory.segment != "other",
        WRITE if memory.writes else 0,
        CODE[how],
    )


ROW: Final = np.dtype(
    [
        ("slot", "i1", (MAX_TERMS,)),
        ("extend", "u1", (MAX_TERMS,)),
        ("factor", "<u8", (MAX_TERMS,)),
        ("inner", "<u8", (MAX_TERMS,)),
        ("disp", "<u8"),
        ("narrow", "?"),
        ("thread", "?"),
        ("known", "?"),
        ("access", "u1"),
        ("how", "u1"),
    ]
)


def rows_of(plans: Sequence[AddressPlan]) -> Array:
    """Plans as records of ROW."""
    rows = np.zeros(len(plans), ROW)
    for place, plan in enumerate(plans):
        rows[place] = _row_of(plan)
    return rows


def _row_of(plan: AddressPlan) -> tuple[object, ...]:
    terms = [*plan.terms, *[Term(0, 0)] * (MAX_TERMS - len(plan.terms))]
    return (
        [term.slot for term in terms],
        [term.extend for term in terms],
        [term.factor & MASK64 for term in terms],
        [term.inner & MASK64 for term in terms],
        plan.disp & MASK64,
        plan.narrow,
        plan.thread,
        plan.known,
        plan.access,
        plan.how,
    )


def addresses(plans: Array, regs: Array, thread_base: Array) -> Array:
    """Effective addresses, one for each plan and the registers beside it; modulo 2**64."""
    terms = regs[np.arange(len(regs))[:, np.newaxis], plans["slot"]]
    extend = plans["extend"]
    sign = SIGN_BIT[extend]
    terms = ((terms + plans["inner"]) & EXTENDED[extend] ^ sign) - sign
    total = (terms * plans["factor"]).sum(axis=1, dtype=np.uint64) + plans["disp"]
    total = np.where(plans["narrow"], total & np.uint64(0xFFFFFFFF), total)
    return np.asarray(total + np.where(plans["thread"], thread_base, np.uint64(0)))


def plausible(address: Array, top: int) -> Array:
    """Whether user memory can be there: neither the first page, nor from `top` on."""
    return np.asarray((address >= PAGE) & (address < np.uint64(top)))
