"""The walk to a neighbour's access, against an emulator that ran the same code."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numatrace.model.access import WRITE
from numatrace.record.operands.arm64 import Arm64Decoder
from numatrace.record.operands.resolve import TOP
from numatrace.record.operands.window import CachedDecoder, Window
from numatrace.record.operands.x86 import X86Decoder
from tests.unit.operands_cpu import (
    CODE_AT,
    X86,
    X86_NAMES,
    Answer,
    Arm64,
    Cpu,
    Step,
    operands_of,
    record,
    resolve,
    sample,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = Path(__file__).parent / "operands"
SLOT = {name: slot for slot, name in enumerate(X86_NAMES)}


def menu(name: str) -> list[bytes]:
    lines = (FOLDER / name).read_text().splitlines()
    return [bytes.fromhex(line.split()[0]) for line in lines if not line.startswith("#")]


X86_MENU = menu("x86_block.txt")
ARM64_MENU = menu("arm64_block.txt")
X86_NUMBERS = ("rcx", "rdx", "r10", "rax", "r11")
ARM64_NUMBERS = (0, 2, 5, 6, 10, 11)
NEAR = 4096
"""Constants that instructions add are smaller."""


def start(cpu: Cpu, seed: int) -> list[int]:
    """Registers for a block: pointers far from each other, and small numbers."""
    chance = random.Random(seed)
    regs = [(1 << 40) + (slot << 32) + chance.randrange(1 << 20) * 64 for slot in range(32)]
    for slot in numbers_of(cpu):
        regs[slot] = chance.randrange(64, 1 << 16) * 8
    return regs[: len(cpu.slots)]


def numbers_of(cpu: Cpu) -> Sequence[int]:
    """Slots of the registers that begin as small numbers."""
    return [SLOT[name] for name in X86_NUMBERS] if isinstance(cpu, X86) else ARM64_NUMBERS


def narrowed(cpu: Cpu, steps: Sequence[Step]) -> bool:
    """Whether a number that had outgrown 32 bits was cut to them, or one near it.

    What an instruction of 32 bits leaves is taken to have been no more before, as in loops that
    compilers make: an address of which the number was a part is wrong then.
    """
    return any(
        before.regs[source] >> 32
        and not after.regs[target] >> 32
        and (after.regs[target] - before.regs[source] + NEAR) % (1 << 32) <= 2 * NEAR
        for before, after in pairwise(steps)
        for source in numbers_of(cpu)
        for target in numbers_of(cpu)
    )


def samples(cpu: Cpu, code: bytes, steps: Sequence[Step]) -> list[Answer]:
    """A sample before each executed instruction but the end."""
    made = [record(step.ip, step.regs, code[step.ip - CODE_AT :][:16]) for step in steps[:-1]]
    return resolve(operands_of(code, cpu.machine), *made)


def accesses(*steps: Step) -> set[int]:
    return {address for step in steps for address in (*step.reads, *step.writes)}


def check_block(cpu: Cpu, code: bytes, steps: Sequence[Step]) -> tuple[int, int]:
    """Each address is one that the block really accessed; how many samples have one, and could."""
    anywhere = accesses(*steps)
    cut = narrowed(cpu, steps)
    known = 0
    for place, found in enumerate(samples(cpu, code, steps)):
        own = accesses(steps[place])
        before = accesses(steps[place - 1]) if place else set()
        if not found.known:
            # The emulator leaves out upper bits of an address that no CPU would access.
            top = TOP[cpu.machine]
            beyond = any(top <= value < (1 << 64) - top for value in steps[place].regs)
            assert not own or beyond, "an instruction's own operand is always known"
            continue
        known += 1
        if found.how != "operand" and cut:
            continue
        assert found.addr in (own if found.how == "operand" else anywhere)
        if cpu.machine == "x86_64" and before:
            # The one that was waited for, unless its address is lost; then the own one.
            assert found.addr in before or found.addr in (own or anywhere)
    return known, len(steps) - 1 if anywhere else 0


def make(chance: random.Random, choices: list[bytes]) -> list[bytes]:
    return [chance.choice(choices) for _ in range(chance.randrange(2, 24))]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 1 << 40))
@pytest.mark.parametrize(("cpu", "choices"), [(X86(), X86_MENU), (Arm64(), ARM64_MENU)])
def test_addresses_are_undone_and_foretold(cpu: Cpu, choices: list[bytes], seed: int) -> None:
    """Whatever a block does between an access and the sample, the address is the real one."""
    parts = make(random.Random(seed), choices)
    code = b"".join(parts)
    steps = cpu.run(code, start(cpu, seed), limit=len(parts))
    if len(steps) == len(parts) + 1:
        check_block(cpu, code, steps)


@pytest.mark.parametrize(("cpu", "choices"), [(X86(), X86_MENU), (Arm64(), ARM64_MENU)])
def test_few_addresses_are_lost(cpu: Cpu, choices: list[bytes]) -> None:
    """Of samples in random blocks, which overwrite registers far more often than compilers do."""
    known = possible = 0
    for seed in range(60):
        parts = make(random.Random(seed), choices)
        steps = cpu.run(b"".join(parts), start(cpu, seed), limit=len(parts))
        if len(steps) == len(parts) + 1:
            found, could = check_block(cpu, b"".join(parts), steps)
            known, possible = known + found, possible + could
    assert possible > 500
    assert known > 0.97 * possible


def run_loop(code: str, limit: int, **regs: int) -> tuple[list[Step], list[Answer]]:
    """A loop run for so many instructions, and what a sample before each would say."""
    raw = bytes.fromhex(code)
    values = [0] * 16
    values[SLOT["rsp"]] = 1 << 44
    for name, value in regs.items():
        values[SLOT[name]] = value
    steps = X86().run(raw, values, limit=limit)
    assert len(steps) == limit + 1
    return steps, samples(X86(), raw, steps)


A, B = 1 << 40, 1 << 41

# dot: movups xmm0, [rdi]; mulps xmm0, [rsi+4*rdx]; addps xmm1, xmm0; add rdi, 16; add rdx, 4;
#      dec ecx; jne dot
DOT = "0f10070f5904960f58c84883c7104883c204ffc975ea"


def test_a_sample_is_of_the_load_that_ended_just_before() -> None:
    steps, found = run_loop(DOT, 70, rdi=A, rsi=B, rcx=99)
    assert len(found) == 70
    for at in range(1, 70):
        before, own = accesses(steps[at - 1]), accesses(steps[at])
        assert found[at].known
        if before or own:
            assert found[at].addr in (before or own)
            assert found[at].how == ("neighbour" if before else "operand")


def test_other_instructions_of_a_loop_get_the_load_that_they_depend_on() -> None:
    """`add rdx, 4` and what follows have no load before them: the nearest one that ran is it."""
    steps, found = run_loop(DOT, 70, rdi=A, rsi=B, rcx=99)
    for at in range(4, 70):
        if not accesses(steps[at - 1], steps[at]):
            last = next(step for step in reversed(steps[:at]) if step.reads)
            assert found[at].addr == min(last.reads)


# chase: nop; mov rax, [rax]; add ecx, 1; mov r8, [rsp+8]; cmp ecx, 9; jb chase
CHASE = "90488b0083c1014c8b44240883f90972ef"


def test_a_list_element_stands_for_the_one_before() -> None:
    """The sample falls behind `mov rax, [rax]`, where its address is gone, but not the next one."""
    steps, found = run_loop(CHASE, 48, rax=A)
    behind = [at for at in range(1, 42) if steps[at].ip == CODE_AT + 4]
    assert len(behind) == 7
    for at in behind:
        following = next(step for step in steps[at:] if step.ip == CODE_AT + 1)
        assert (found[at].how, found[at].addr) == ("neighbour", min(following.reads))


def test_an_address_is_where_it_was_made_of_registers_that_are_left() -> None:
    """lea rax, [r11+rdx*8]; mov rax, [rax]; add rdi, rax: the load overwrites its own base."""
    code = b"\x90" * 16 + bytes.fromhex("498d04d3488b004801c7")
    regs = [1 << 30] * 16
    regs[SLOT["r11"]], regs[SLOT["rdx"]] = A, 5
    found = sample(code, 23, regs)
    assert (found.addr, found.how) == (A + 40, "neighbour")


def test_the_stack_is_not_what_a_loop_waits_for() -> None:
    """`cmp ecx, 9` and the branch have two loads near: one of the list and one of the stack."""
    steps, found = run_loop(CHASE, 48, rax=A)
    at_branch = [at for at in range(6, 42) if steps[at].ip == CODE_AT + 15]
    for at in at_branch:
        following = next(step for step in steps[at:] if step.ip == CODE_AT + 1)
        assert found[at].addr == min(following.reads)
    assert at_branch


@pytest.mark.parametrize(
    "code",
    [
        "f3908b470885c075f7",  # spin: pause; mov eax, [rdi+8]; test eax, eax; jne spin
        "8b470885c07404f390ebf5",  # spin: mov eax, [rdi+8]; test eax, eax; je +4; pause; jmp spin
        "837f0800f39075f8",  # spin: cmp dword ptr [rdi+8], 0; pause; jne spin
    ],
)
def test_a_spinning_thread_is_at_what_it_polls(code: str) -> None:
    _, found = run_loop(code, 30, rdi=A)
    assert {(each.addr, each.access) for each in found} == {(A + 8, 0)}


def test_at_a_loops_head_the_branch_back_came_before() -> None:
    """scan: add rsi, 8; cmp [rsi+rdx], rax; jne scan."""
    steps, found = run_loop("4883c6084839041675f6", 30, rsi=A, rdx=64)
    heads = [at for at in range(1, 30) if steps[at].ip == CODE_AT]
    assert len(heads) == 9
    assert [found[at].addr for at in heads] == [min(steps[at - 2].reads) for at in heads]


def test_code_that_may_be_jumped_over_costs_only_what_it_changes() -> None:
    """Loop: movss xmm0, [rdi]; add rdi, 4; ucomiss; jbe over (movaps; mov r9, rdi); inc edx; ..."""
    code = "f30f10074883c7040f2ec176060f28c84989f9ffc29039ca75e6"
    steps, found = run_loop(code, 50, rdi=A, rdx=1, rcx=1000)
    # Samples at nop, cmp and jne, all behind the join. The load is the one of this round.
    for at in (at for at in range(7, 50) if steps[at].ip - CODE_AT in (0x15, 0x16, 0x18)):
        last = next(step for step in reversed(steps[:at]) if step.reads)
        assert (found[at].known, found[at].addr) == (True, min(last.reads))


def test_in_a_long_loop_the_load_at_its_beginning_is_found() -> None:
    """Loop: movdqu xmm1, [rsi]; add rsi, 16; paddd xmm1, xmm2 120 times; dec rcx; jne."""
    body = "f30f6f0e" + "4883c610" + "660ffeca" * 120 + "48ffc9"
    back = -(len(body) // 2 + 6)
    code = body + "0f85" + back.to_bytes(4, "little", signed=True).hex()
    steps, found = run_loop(code, 300, rsi=A, rcx=9)
    for at in range(1, 300):
        last = next(step for step in reversed(steps[: at + 1]) if step.reads)
        assert found[at].addr in {min(last.reads), *(accesses(steps[at - 1]))}, at


def test_a_loop_without_loads_is_at_its_stores() -> None:
    """fill: mov [rdi], rax; add rdi, 8; cmp rdi, rdx; jne fill."""
    steps, found = run_loop("4889074883c7084839d775f4", 40, rdi=A, rdx=B)
    for at in range(1, 40):
        last = next((step for step in reversed(steps[:at]) if step.writes), None)
        assert last is not None
        assert found[at].access == WRITE
        assert found[at].addr in {min(last.writes), *accesses(steps[at])}


def test_nothing_before_a_call_is_known_behind_it() -> None:
    """mov rax, [rbx]; call; add ecx, 1; nop: the callee may have changed anything."""
    code = bytes.fromhex("488b03e80000000083c10190")
    regs = [A] * 16
    assert [sample(code, at, regs).known for at in (3, 8, 11)] == [True, False, False]


def test_a_copy_in_progress_is_at_what_it_reads_now() -> None:
    """Rep movsb is interrupted in its middle: mov rax, [rbx]; rep movsb."""
    code = bytes.fromhex("488b03f3a4")
    regs = [0] * 16
    regs[SLOT["rsi"]], regs[SLOT["rdi"]], regs[SLOT["rbx"]] = A + 77, B, 3 << 40
    found = sample(code, 3, regs)
    assert (found.addr, found.how, found.access) == (A + 77, "operand", 0)


def test_an_address_that_is_computed_is_waited_for_as_well() -> None:
    """mov rcx, [rbx]; mov rax, [rsi]; nop; nop; lea rdx, [rcx+rcx*2]: the sum waits for rcx."""
    code = b"\x90" * 16 + bytes.fromhex("488b0b488b069090488d1449")
    regs = [0] * 16
    regs[SLOT["rbx"]], regs[SLOT["rsi"]] = A, B
    assert [sample(code, at, regs).addr for at in (22, 23, 24)] == [B, B, A]


def test_on_arm64_an_instruction_comes_before_its_neighbours() -> None:
    """ldr x0, [x1]; ldr x2, [x3, #8]; add x5, x0, #1: the sum waits for x0."""
    code = bytes.fromhex("200040f9" + "620440f9" + "05040091")
    regs = [slot << 36 for slot in range(32)]
    found = [sample(code, at, regs, "aarch64") for at in (0, 4, 8)]
    assert [each.addr for each in found] == [1 << 36, (3 << 36) + 8, 1 << 36]
    assert [each.how for each in found] == ["operand", "operand", "neighbour"]


def test_a_fault_is_at_its_own_instruction() -> None:
    code = bytes.fromhex(DOT)
    regs = [0] * 16
    regs[SLOT["rdi"]], regs[SLOT["rsi"]], regs[SLOT["rdx"]] = A, B, 2
    kernel, fault = 4, 8
    assert sample(code, 3, regs).addr == A
    found = sample(code, 3, regs, access=kernel | fault)
    assert (found.addr, found.how, found.access) == (B + 8, "kernel fault", kernel)
    assert not sample(code, 10, regs, access=kernel | fault).known


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 40))
def test_code_falls_into_step(seed: int) -> None:
    """Cut anywhere, the instructions just before an address are found where they really begin."""
    chance = random.Random(seed)
    parts = [chance.choice(X86_MENU) for _ in range(60)]
    code = b"".join(parts)
    begins = [sum(map(len, parts[:place])) for place in range(len(parts))]
    before = 96
    ip = chance.choice([at for at in begins if at > before])
    cut = ip - before
    window = Window(CachedDecoder(X86Decoder()), code[cut:], CODE_AT + cut, CODE_AT + ip)
    near = {CODE_AT + at for at in begins if ip - before // 2 <= at < ip}
    found = {at for at in window.addresses if CODE_AT + ip - before // 2 <= at < CODE_AT + ip}
    assert found == near


@settings(max_examples=80, deadline=None)
@given(st.binary(min_size=1, max_size=300), st.integers(0, 299), st.booleans())
def test_no_code_upsets_the_walk(code: bytes, at: int, arm64: bool) -> None:
    at %= len(code)
    machine = "aarch64" if arm64 else "x86_64"
    window = Window(
        CachedDecoder(Arm64Decoder() if arm64 else X86Decoder()), code, CODE_AT, CODE_AT + at
    )
    assert window.addresses == sorted(set(window.addresses))
    found = sample(code, at, [A] * 32, machine)
    assert found.known or found.addr == 0
