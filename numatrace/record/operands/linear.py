"""Sums of registers that stay exact while they are carried across instructions.

An address at one instruction, told in the registers at another: `forward` replaces a register by
what an earlier instruction made of others, `undo` by what a later one left behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FULL: Final = 0
ZERO32: Final = 1
SIGN32: Final = 2
ZERO8: Final = 3
"""How many low bits of a register count, and how they are extended to 64."""

MAX_TERMS: Final = 3
MAX_WAYS: Final = 4
"""Ways to say one address that are kept while undoing; a copied register gives a second one."""


class Term(NamedTuple):
    """`factor` × extend(register + `inner`), modulo 2**64; `inner` is 0 where `extend` is FULL."""

    slot: int
    factor: int = 1
    extend: int = FULL
    inner: int = 0


class Linear(NamedTuple):
    """The sum of the terms and `disp`, modulo 2**64."""

    terms: tuple[Term, ...] = ()
    disp: int = 0

    @property
    def slots(self) -> frozenset[int]:
        """Registers that it depends on."""
        return frozenset(term.slot for term in self.terms)


def register(slot: int, disp: int = 0) -> Linear:
    """The register's value plus `disp`."""
    return Linear((Term(slot),), disp)


def extend_number(value: int, extend: int) -> int:
    """A number cut to its low bits and extended; see FULL, ZERO32, SIGN32 and ZERO8."""
    if extend == FULL:
        return value
    if extend == ZERO8:
        return value & 0xFF
    value &= 0xFFFFFFFF
    return value - (1 << 32) if extend == SIGN32 and value >> 31 else value


def substitute(expression: Linear, values: Mapping[int, Linear | None]) -> Linear | None:
    """The expression with registers replaced; None where a value is unknown or it gets too long."""
    total = Linear((), expression.disp)
    for term in expression.terms:
        if term.slot not in values:
            total = _add(total, Linear((term,)))
            continue
        value = values[term.slot]
        part = None if value is None else _apply(term, value)
        if part is None:
            return None
        total = _add(total, part)
    return total if len(total.terms) <= MAX_TERMS else None


def _apply(term: Term, value: Linear) -> Linear | None:
    """The term, with `value` in the place of its register."""
    if term.extend == FULL:
        terms = tuple(each._replace(factor=each.factor * term.factor) for each in value.terms)
        return Linear(terms, term.factor * value.disp)
    inner = term.inner + value.disp
    if not value.terms:
        return Linear((), term.factor * extend_number(inner, term.extend))
    first = value.terms[0]
    if len(value.terms) > 1 or first.factor != 1:
        return None
    if first.extend == ZERO8 and term.extend != ZERO8:
        return None
    # Only low bits count, and these an inner extension leaves as they are.
    return Linear((term._replace(slot=first.slot, inner=first.inner + inner),))


def _add(left: Linear, right: Linear) -> Linear:
    factors: dict[tuple[int, int, int], int] = {}
    for term in (*left.terms, *right.terms):
        key = (term.slot, term.extend, term.inner)
        factors[key] = factors.get(key, 0) + term.factor
    terms = tuple(
        Term(slot, factor, extend, inner)
        for (slot, extend, inner), factor in factors.items()
        if factor
    )
    return Linear(terms, left.disp + right.disp)


def forward(
    expression: Linear, moves: Mapping[int, Linear], written: frozenset[int]
) -> Linear | None:
    """An expression in registers after an instruction, told in the registers before it.

    `moves`: what the instruction makes of which registers; `written`: all that it changes.
    """
    hit = expression.slots & written
    return substitute(expression, {slot: moves.get(slot) for slot in hit})


def undo(
    ways: tuple[Linear, ...], moves: Mapping[int, Linear], written: frozenset[int]
) -> tuple[Linear, ...]:
    """Expressions in registers before an instruction, told in the registers after it.

    All `ways` stand for one value. Empty where the instruction overwrote what they need.
    """
    if not moves:
        return tuple(way for way in ways if not way.slots & written)
    found: dict[Linear, None] = {}
    for way in ways:
        if not way.slots & written:
            found[way] = None
        for slot in way.slots:
            for value in _inverses(slot, moves, written):
                told = _undone(way, slot, value, written)
                if told is not None:
                    found[told] = None
    return tuple(found)[:MAX_WAYS]


def _undone(way: Linear, slot: int, value: Linear, written: frozenset[int]) -> Linear | None:
    if (way.slots - {slot}) & written:
        return None
    return substitute(way, {slot: value})


def _inverses(slot: int, moves: Mapping[int, Linear], written: frozenset[int]) -> Iterator[Linear]:
    """What the register held before, told in registers after."""
    for target, made in moves.items():
        own = [term for term in made.terms if term.slot == slot]
        others = tuple(term for term in made.terms if term.slot != slot)
        if len(own) != 1 or any(term.slot in written for term in others):
            continue
        term = own[0]
        if term.extend == FULL and term.factor in (1, -1):
            rest = tuple(each._replace(factor=-each.factor * term.factor) for each in others)
            yield Linear((Term(target, term.factor), *rest), -made.disp * term.factor)
        elif target == slot and not others and term.factor == 1 and term.extend in (ZERO32, SIGN32):
            # A 32-bit result clears the upper half: what was there before counts as clear too.
            yield Linear((Term(slot, 1, ZERO32, -term.inner - made.disp),))
