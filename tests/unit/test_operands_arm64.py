"""arm64 operands against an emulator, against an assembler's text where that knows no SVE."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numatrace.model.access import WRITE
from numatrace.record.operands.arm64 import Arm64Decoder
from numatrace.record.operands.instruction import Flow
from tests.unit.operands_cpu import (
    CODE_AT,
    PAGE,
    USER_END,
    Arm64,
    Step,
    address_of,
    sample,
    value_of,
)

if TYPE_CHECKING:
    from numatrace.record.operands.instruction import Instruction

FOLDER = Path(__file__).parent / "operands"
DECODER = Arm64Decoder()
CPU = Arm64()


def table(name: str, columns: int) -> list[tuple[str, ...]]:
    lines = (FOLDER / name).read_text().splitlines()
    return [tuple(line.split(" ", columns - 1)) for line in lines if not line.startswith("#")]


SCALAR = table("arm64.txt", 2)
SVE = table("sve.txt", 3)


def plausible(instruction: Instruction, regs: list[int]) -> bool:
    """Whether the address is one that user memory, and the emulator, can have."""
    addresses = [address_of(memory, regs) for memory in instruction.memory]
    return all(0x10000 <= address < USER_END - PAGE for address in addresses)


def run_plausibly(instruction: Instruction, code: bytes, seed: int) -> list[Step]:
    chance = random.Random(seed)
    for _ in range(200):
        regs = CPU.regs(chance)
        steps = plausible(instruction, regs) and CPU.run(code, regs)
        if steps:
            return steps
    raise AssertionError(f"{code.hex()} never ran")


def check(instruction: Instruction, before: Step, after: Step) -> None:
    """The access that is told was made and no other; what changed is told, with its value."""
    access = instruction.access
    if access is None:
        assert before.first is None
    else:
        assert before.first == address_of(access, before.regs)
        assert (bool(before.reads), bool(before.writes)) == (access.reads, access.writes)
    changed = {slot for slot in range(32) if before.regs[slot] != after.regs[slot]}
    assert changed <= instruction.writes
    for slot, made in instruction.moves.items():
        assert value_of(made, before.regs) == after.regs[slot]


@pytest.mark.parametrize(("code", "text"), SCALAR, ids=[text for _, text in SCALAR])
@pytest.mark.parametrize("seed", range(2))
def test_one_instruction_does_what_is_told(code: str, text: str, seed: int) -> None:
    raw = bytes.fromhex(code)
    instruction = DECODER.decode(raw)
    assert instruction is not None
    check(instruction, *run_plausibly(instruction, raw, seed))


@pytest.mark.parametrize(
    ("load", "store"),
    [
        ("297c5fc8", "207c03c8"),  # ldxr x9, [x1]; stxr w3, x0, [x1]
        ("29fc5f08", "20fc0308"),  # ldaxrb w9, [x1]; stlxrb w3, w0, [x1]
        ("29887fc8", "208823c8"),  # ldaxp x9, x2, [x1]; stlxp w3, x0, x2, [x1]
    ],
)
def test_a_store_exclusive_writes_where_the_load_reserved(load: str, store: str) -> None:
    """Alone it does nothing. Its first register is the outcome, which it writes."""
    raw = bytes.fromhex(store)
    instruction = DECODER.decode(raw)
    assert instruction is not None
    regs = [1 << 40] * 32
    reserved, stored, after = CPU.run(bytes.fromhex(load) + raw, regs, limit=2)
    assert stored.writes
    assert min(stored.writes) == min(reserved.reads) == 1 << 40
    assert after.regs[3] == 0
    assert 3 in instruction.writes
    found = sample(raw, 0, stored.regs, "aarch64")
    assert (found.known, found.addr, found.access) == (True, 1 << 40, WRITE)


@pytest.mark.parametrize(("code", "text"), SCALAR, ids=[text for _, text in SCALAR])
def test_a_sample_gets_the_address(code: str, text: str) -> None:
    raw = bytes.fromhex(code)
    instruction = DECODER.decode(raw)
    assert instruction is not None
    step = run_plausibly(instruction, raw, 11)[0]
    found = sample(raw, 0, step.regs, "aarch64")
    if step.first is None:
        assert (found.known, found.addr) == (False, 0)
        return
    assert (found.known, found.addr, found.how) == (True, step.first, "operand")
    assert bool(found.access & WRITE) == bool(step.writes)


def named_address(text: str, regs: list[int]) -> int:
    """What SVE's syntax says (Arm ARM, C1.2.6): a multiple of the vector's length counts as 0."""
    inside = re.search(r"\[(.*)\]", text)
    assert inside is not None
    base, *rest = inside[1].split(", ")
    total = regs[31 if base == "sp" else int(base[1:])]
    if "mul vl" in inside[1] or not rest or "z" in rest[0]:
        return total
    if rest[0].startswith("#"):
        return total + int(rest[0][1:])
    shift = int(rest[1].removeprefix("lsl #")) if len(rest) > 1 else 0
    return total + (regs[int(rest[0][1:])] << shift)


@pytest.mark.parametrize(("code", "access", "text"), SVE, ids=[row[2] for row in SVE])
def test_sve_has_the_address_that_the_text_says(code: str, access: str, text: str) -> None:
    raw = bytes.fromhex(code)
    chance = random.Random(text)
    regs = [chance.randrange(1 << 30, 1 << 40) & ~63 for _ in range(32)]
    found = sample(raw, 0, regs, "aarch64")
    assert bool(found.access & WRITE) == (access in ("write", "scatter"))
    if access == "none":
        assert (found.known, found.how) == (False, "none")
    elif "[z" in text:
        # All of the address lies in a vector register, which is not recorded.
        assert (found.known, found.how) == (False, "vector")
    else:
        how = "vector" if access in ("gather", "scatter") else "operand"
        assert (found.known, found.addr, found.how) == (True, named_address(text, regs), how)


def test_a_tag_in_the_top_byte_is_no_part_of_the_address() -> None:
    """Top byte ignore: Arm ARM D8.8; on for user space (Linux, arm64/tagged-pointers.rst)."""
    load = bytes.fromhex("200040f9")
    found = sample(load, 0, [0, 0x5A << 56 | 1 << 40], "aarch64")
    assert (found.known, found.addr) == (True, 1 << 40)


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=1, max_size=40))
def test_no_bytes_upset_the_decoder(code: bytes) -> None:
    instruction = DECODER.decode(code)
    assert instruction is None or instruction.length == 4
    lines = list(DECODER.sweep(code, CODE_AT))
    assert [line[0] for line in lines] == [CODE_AT + at for at in range(0, len(code) - 3, 4)]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, (1 << 32) - 1), st.booleans(), st.integers(0, 1 << 32))
def test_random_instructions_do_what_is_told(word: int, memory: bool, seed: int) -> None:
    """Whatever a random word means, the emulator agrees; half of them are loads and stores."""
    if memory:
        word = word & ~(1 << 25) | 1 << 27  # Arm ARM C4.1: op0 is x1x0
    code = word.to_bytes(4, "little")
    instruction = DECODER.decode(code)
    if instruction is None or instruction.flow is not Flow.NEXT:
        return
    regs = CPU.regs(random.Random(seed))
    access = instruction.access
    if access is not None and access.base >= 0:
        regs[access.base] = random.Random(seed).randrange(1 << 33, 1 << 45) & ~63
    if not plausible(instruction, regs) or any(each.vector for each in instruction.memory):
        return
    steps = CPU.run(code, regs)
    # A store-exclusive without a reservation, or a tag store without tag memory, does nothing.
    idle = access is not None and steps and steps[0].first is None and not access.reads
    if len(steps) == 2 and not idle:
        check(instruction, *steps)
