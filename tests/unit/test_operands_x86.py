"""x86-64 operands against an emulator, against an assembler's text where that knows no AVX."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import TYPE_CHECKING

import capstone
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numatrace.model.access import WRITE
from numatrace.record.operands import vex
from numatrace.record.operands.instruction import Flow, Memory
from numatrace.record.operands.x86 import MAX_BYTES, X86Decoder
from tests.unit.operands_cpu import (
    CODE_AT,
    USER_END,
    X86,
    X86_NAMES,
    Step,
    address_of,
    sample,
    value_of,
)

if TYPE_CHECKING:
    from numatrace.record.operands.instruction import Instruction

FOLDER = Path(__file__).parent / "operands"
DECODER = X86Decoder()
CPU = X86()
SLOT = {name: slot for slot, name in enumerate(X86_NAMES)}
SLOT |= {f"e{name[1:]}": slot for slot, name in enumerate(X86_NAMES[:8])}


def table(name: str, columns: int) -> list[tuple[str, ...]]:
    lines = (FOLDER / name).read_text().splitlines()
    return [tuple(line.split(" ", columns - 1)) for line in lines if not line.startswith("#")]


SCALAR = table("x86.txt", 2)
VECTOR = table("x86_vector.txt", 3)


def plausible(instruction: Instruction, regs: list[int], thread: int) -> bool:
    """Whether every address is one that user memory can have."""
    addresses = [address_of(memory, regs, thread) for memory in instruction.memory]
    return all(0x10000 <= address < USER_END - 64 for address in addresses)


def run_plausibly(instruction: Instruction, code: bytes, seed: int) -> tuple[list[Step], int]:
    """The instruction run with registers that give it addresses in user memory."""
    chance = random.Random(seed)
    for _ in range(200):
        regs, thread = CPU.regs(chance), chance.randrange(1 << 40, 1 << 44) & ~63
        if instruction.repeats:
            regs[SLOT["rcx"]] = chance.randrange(1, 9)
        steps = plausible(instruction, regs, thread) and CPU.run(code, regs, thread)
        if steps:
            return steps, thread
    raise AssertionError(f"{code.hex()} never ran")


def check_accesses(instruction: Instruction, step: Step, thread: int) -> None:
    """Each access that is told was made, and there was none of a kind that is not told."""
    for made, kind in ((step.reads, "reads"), (step.writes, "writes")):
        told = [each for each in instruction.memory if getattr(each, kind)]
        assert bool(told) == bool(made), kind
        for memory in told:
            assert address_of(memory, step.regs, thread) in made, kind


def check_registers(instruction: Instruction, before: Step, after: Step) -> None:
    """What changed is told, and what it became where that is told."""
    changed = {slot for slot in range(16) if before.regs[slot] != after.regs[slot]}
    assert changed <= instruction.writes
    for slot, made in instruction.moves.items():
        assert value_of(made, before.regs) == after.regs[slot]


@pytest.mark.parametrize(("code", "text"), SCALAR, ids=[text for _, text in SCALAR])
@pytest.mark.parametrize("seed", range(2))
def test_one_instruction_does_what_is_told(code: str, text: str, seed: int) -> None:
    raw = bytes.fromhex(code)
    instruction = DECODER.decode(raw)
    assert instruction is not None
    assert instruction.length == len(raw)
    (before, after), thread = run_plausibly(instruction, raw, seed)
    check_accesses(instruction, before, thread)
    check_registers(instruction, before, after)


@pytest.mark.parametrize(("code", "text"), SCALAR, ids=[text for _, text in SCALAR])
def test_a_sample_gets_the_address_that_is_read_or_else_written(code: str, text: str) -> None:
    raw = bytes.fromhex(code)
    instruction = DECODER.decode(raw)
    assert instruction is not None
    (before, _), thread = run_plausibly(instruction, raw, 7)
    found = sample(raw, 0, before.regs, thread_base=thread)
    if before.first is None:
        assert (found.known, found.addr) == (False, 0)
        return
    assert (found.known, found.how) == (True, "operand")
    assert found.addr in (before.reads or before.writes)
    # Pushing an operand, or calling through one, reads it and writes the stack: two accesses.
    elsewhere = text.startswith(("push", "call", "pop", "movs", "rep movs"))
    assert bool(found.access & WRITE) == (bool(before.writes) and not (before.reads and elsewhere))


def named_address(text: str, regs: list[int], length: int) -> int:
    """What an assembler's text of an operand says: [base + scale*index + disp]."""
    inside = re.search(r"\[(.*)\]", text)
    assert inside is not None
    total = 0
    for sign, part in re.findall(r"([+-]?) ?([^ +-]+)", inside[1]):
        scale, _, name = part.rpartition("*")
        if re.match(r"[xyz]mm", name):
            continue
        number = name.isdigit()
        value = int(name) if number else regs[SLOT[name]] if name != "rip" else CODE_AT + length
        total += (-1 if sign == "-" else 1) * value * int(scale or 1)
    return total & ((1 << 64) - 1) & (0xFFFFFFFF if "[eax" in inside[0] else -1)


@pytest.mark.parametrize(("code", "access", "text"), VECTOR, ids=[row[2] for row in VECTOR])
def test_vector_instructions_have_the_address_that_the_assembler_gave_them(
    code: str, access: str, text: str
) -> None:
    raw = bytes.fromhex(code)
    chance = random.Random(text)
    regs = [chance.randrange(1 << 33, 1 << 40) & ~63 for _ in range(16)]
    if "tile" in text:
        # The index of a tile is the stride of its rows (SDM, TILELOADD): the first row counts.
        text = text.replace(" + rdx", "")
    expected = named_address(text, regs, len(raw))
    found = sample(raw, 0, regs, thread_base=1 << 44)
    assert bool(found.access & WRITE) == (access in ("write", "scatter"))
    if "gs:" in text:
        assert (found.known, found.how) == (False, "segment")
        return
    expected += 1 << 44 if "fs:" in text else 0
    how = "vector" if access in ("gather", "scatter") else "operand"
    assert (found.known, found.addr, found.how) == (True, expected, how)


@pytest.mark.parametrize(("code", "text"), [(row[0], row[2]) for row in VECTOR])
def test_the_sweep_goes_over_every_vector_instruction(code: str, text: str) -> None:
    raw = bytes.fromhex(code)
    swept = list(DECODER.sweep(b"\x90" + raw + b"\xc3", CODE_AT))
    assert [line[0] - CODE_AT for line in swept] == [0, 1, 1 + len(raw)]


NEWER = """{vex} vdpbf16ps vcvtneps2bf16 vaddph vmulph vaddsh vmovsh vmovw vfmadd231ph tileloadd
tilestored ldtilecfg sttilecfg"""


def test_newer_encodings_are_those_that_capstone_refuses() -> None:
    """Otherwise the decoder of vex.py is not what the vectors above check."""
    refused = {text.split()[0] for code, _, text in VECTOR if vex_only(bytes.fromhex(code))}
    assert refused == set(NEWER.split())


def vex_only(code: bytes) -> bool:
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    known = next(engine.disasm_lite(code, 0, 1), None)
    return known is None and vex.decode(code) is not None


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=1, max_size=20))
def test_no_bytes_upset_the_decoder(code: bytes) -> None:
    instruction = DECODER.decode(code)
    for prefix in (b"", b"\xc4\xe2", b"\x62\xf2", b"\x62\xf5", b"\x64\xc4\xe3"):
        found = vex.decode(prefix + code)
        assert found is None or found.length <= len(prefix + code)
    lines = list(DECODER.sweep(code, CODE_AT))
    if instruction is None:
        assert lines == []
        return
    assert 1 <= instruction.length <= min(len(code), MAX_BYTES)
    assert lines[0][:2] == (CODE_AT, instruction.length)
    assert all(0 <= slot < 128 for slot in instruction.reads | instruction.writes)
    assert instruction.moves.keys() <= instruction.writes


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from(["", "48", "0f", "480f", "660f", "f3", "67", "64"]))
def test_random_instructions_do_what_is_told(seed: int, prefix: str) -> None:
    """Whatever random bytes mean, the emulator agrees: addresses, registers and their values."""
    chance = random.Random(seed)
    code = (bytes.fromhex(prefix) + chance.randbytes(15))[:MAX_BYTES]
    instruction = DECODER.decode(code)
    if instruction is None or instruction.flow is Flow.END or unlike(code[: instruction.length]):
        return
    regs, thread = CPU.regs(chance), 1 << 44
    if not plausible(instruction, regs, thread):
        return
    steps = CPU.run(code[: instruction.length], regs, thread)
    if len(steps) == 2 and instruction.flow is Flow.NEXT:
        exact = not any(each.vector or each.segment == "other" for each in instruction.memory)
        if exact:
            check_accesses(instruction, steps[0], thread)
        check_registers(instruction, *steps)


def unlike(code: bytes) -> bool:
    """Instructions in which the emulator differs from a CPU, or that are not for user code.

    AVX, MPX and VIA's own; 16-bit forms of enter and leave, nested enter; lahf with REX.
    """
    rest = code.lstrip(b"\x66\x67\x64\x65\x2e\x36\x3e\x26\xf0\xf2\xf3")
    rest = rest[1:] if rest[:1] and 0x40 <= rest[0] < 0x50 else rest
    special = rest[:2] in {b"\x0f" + bytes([each]) for each in (0x1A, 0x1B, 0xA6, 0xA7, 0xF7)}
    moves_control = rest[:1] == b"\x0f" and 0x20 <= rest[1] <= 0x23
    return special or moves_control or rest[:1] in (
        b"\xc4", b"\xc5", b"\x62", b"\xc8", b"\xc9", b"\x9f", b"\xcf", b"\x6c", b"\x6d", b"\x6e",
        b"\x6f", b"\xe4", b"\xe5", b"\xe6", b"\xe7", b"\xec", b"\xed", b"\xee", b"\xef",
    )  # fmt: skip


def test_the_direction_of_a_string_copy_is_told_by_two_accesses() -> None:
    instruction = DECODER.decode(bytes.fromhex("f3a4"))
    assert instruction is not None
    assert instruction.repeats
    assert [(each.reads, each.writes) for each in instruction.memory] == [
        (False, True),
        (True, False),
    ]
    assert instruction.access == Memory(SLOT["rsi"])


def test_a_bit_string_is_only_somewhere_around_its_operand() -> None:
    """Bt of memory with a register reaches as far as the register's value (SDM, BT)."""
    regs = [1 << 40] * 16
    assert sample(bytes.fromhex("480fa308"), 0, regs).how == "vector"
    assert sample(bytes.fromhex("480fba2005"), 0, regs).how == "operand"


def test_thread_local_addresses_need_the_base() -> None:
    code = bytes.fromhex("64488b042528000000")
    without = sample(code, 0, [1] * 16)
    assert (without.known, without.addr, without.how) == (False, 0, "segment")
    assert sample(code, 0, [1] * 16, thread_base=1 << 40).addr == (1 << 40) + 0x28
