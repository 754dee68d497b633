"""Batches of samples: caches, processes, the kernel's time, and whatever a hostile process does."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numatrace.model.access import FETCH, HOW, KERNEL, WRITE
from numatrace.record.operands import Operands, planner, plans, read_code
from numatrace.record.operands.kernel import CALLS, FAULT, INTERRUPT, NUMBERS, RECLAIM
from numatrace.trace.schema import ring_dtype
from tests.unit.operands_cpu import (
    CODE_AT,
    HOW_NAMES,
    Answer,
    operands_of,
    reader,
    record,
    resolve,
)

LOAD_RBX = bytes.fromhex("488b03")  # mov rax, [rbx]
LOAD_RSI = bytes.fromhex("488b06")  # mov rax, [rsi]
STORE_RDI = bytes.fromhex("488907")  # mov [rdi], rax
NOPS = b"\x90" * 40
REGS = [0x10_0000_0000 * (slot + 1) for slot in range(16)]
RBX, RSI, RDI = REGS[3], REGS[6], REGS[7]
PAGE = mmap.PAGESIZE


class Process:
    """Code that can be read, changed and counted: how often it was read."""

    def __init__(self, code: bytes) -> None:
        self.code = code
        self.reads = 0

    def read(self, tgid: int, addr: int, size: int) -> bytes:
        self.reads += 1
        return reader(self.code)(tgid, addr, size)


def test_a_batch_is_its_samples_one_by_one() -> None:
    code = LOAD_RBX + NOPS + STORE_RDI + NOPS + LOAD_RSI
    places = [0, 3, 43, 46, 86, 43, 0]
    made = [record(CODE_AT + at, REGS, code[at : at + 16]) for at in places]
    together = resolve(operands_of(code), *made)
    assert together == [resolve(operands_of(code), each)[0] for each in made]
    assert [each.addr for each in together] == [RBX, RBX, RDI, RDI, RSI, RDI, RBX]
    assert [each.access for each in together] == [0, 0, WRITE, WRITE, 0, WRITE, 0]


# libgomp's barrier: pause; add rax,1; cmp rax,rdx; je out; mov ecx,[rbp]; cmp ecx,ebx; je pause.
BARRIER = bytes.fromhex("f390 4883c001 4839d0 7407 8b4d00 39cb 74ee".replace(" ", ""))
# The same loop around a read and nothing that waits: nop for pause.
SEARCH = b"\x66\x90" + BARRIER[2:]


@pytest.mark.parametrize("at", [0, 2, 6, 9, 11, 14, 16])
def test_a_loop_that_pauses_waits_for_another_thread(at: int) -> None:
    assert in_loop(BARRIER, at).how == "spin"
    reads = in_loop(SEARCH, at)
    assert (reads.how in ("operand", "neighbour"), reads.addr) == (True, REGS[5])


def test_a_fault_in_such_a_loop_is_a_fault() -> None:
    assert in_loop(BARRIER, 11, access=KERNEL | FAULT).how == "kernel fault"


def in_loop(loop: bytes, at: int, **columns: int) -> Answer:
    code = NOPS + loop + NOPS
    at += len(NOPS)
    (answer,) = resolve(
        operands_of(code), record(CODE_AT + at, REGS, code[at : at + 16], **columns)
    )
    return answer


def test_the_registers_are_the_records_own() -> None:
    operands = operands_of(LOAD_RBX)
    made = [record(CODE_AT, [base + slot * 4096 for slot in range(16)], LOAD_RBX)
            for base in range(1 << 30, (1 << 30) + 5000)]  # fmt: skip
    assert [each.addr for each in resolve(operands, *made)] == [
        base + 3 * 4096 for base in range(1 << 30, (1 << 30) + 5000)
    ]


def test_an_instruction_is_decoded_once() -> None:
    process = Process(LOAD_RBX + NOPS)
    operands = Operands("x86_64", process.read)
    load = record(CODE_AT, REGS, process.code[:16])
    for _ in range(3):
        assert resolve(operands, load)[0].addr == RBX
    once = process.reads
    assert once <= 2
    resolve(operands, load, record(CODE_AT + 3, REGS, NOPS[:16]))
    assert process.reads == once, "neighbours share what was read"


def test_changed_code_is_decoded_anew() -> None:
    process = Process(LOAD_RBX + NOPS)
    operands = Operands("x86_64", process.read)
    at_nop = record(CODE_AT + 3, REGS, NOPS[:16])
    at_load = record(CODE_AT, REGS, process.code[:16])
    assert [each.addr for each in resolve(operands, at_load, at_nop)] == [RBX, RBX]
    process.code = LOAD_RSI + NOPS
    assert resolve(operands, record(CODE_AT, REGS, process.code[:16]))[0].addr == RSI
    assert resolve(operands, at_nop)[0].addr == RSI, "what was known of the code is gone"


def test_a_process_that_is_forgotten_is_read_anew() -> None:
    process = Process(LOAD_RBX + NOPS)
    operands = Operands("x86_64", process.read)
    unread = record(CODE_AT, REGS)  # BPF could not read the code
    assert resolve(operands, unread)[0].addr == RBX
    process.code = LOAD_RSI + NOPS
    assert resolve(operands, unread)[0].addr == RBX
    operands.forget(2)
    assert resolve(operands, unread)[0].addr == RBX
    operands.forget(1)
    assert resolve(operands, unread)[0].addr == RSI


def test_processes_have_code_of_their_own_at_one_address() -> None:
    code = {1: LOAD_RBX, 2: LOAD_RSI}
    operands = Operands("x86_64", lambda tgid, addr, size: reader(code[tgid])(tgid, addr, size))
    made = [record(CODE_AT, REGS, tgid=tgid) for tgid in (1, 2, 1)]
    assert [each.addr for each in resolve(operands, *made)] == [RBX, RSI, RBX]


@pytest.mark.parametrize("live", [b"", NOPS])
def test_the_records_own_bytes_do_where_the_process_has_no_or_other_code(live: bytes) -> None:
    operands = Operands("x86_64", Process(live).read)
    found = resolve(operands, record(CODE_AT, REGS, STORE_RDI + NOPS[:13]))[0]
    assert found == Answer(RDI, True, WRITE, "operand")


def test_code_that_nobody_could_read_is_unreadable() -> None:
    nothing = Operands("x86_64", Process(b"").read)
    assert resolve(nothing, record(CODE_AT, REGS))[0] == Answer(0, False, 0, "unreadable")
    undefined = bytes.fromhex("0f0b06060606")
    broken = Operands("x86_64", Process(undefined).read)
    assert resolve(broken, record(CODE_AT + 2, REGS, undefined[2:]))[0].how == "unreadable"


@pytest.mark.parametrize(
    ("value", "known"),
    [
        (0, False),
        (8, False),
        (4095, False),
        (4096, True),
        ((1 << 47) - 8, True),
        (1 << 47, False),
        (0xFFFF_8000_0000_0000, False),
        ((1 << 64) - 8, False),
    ],
)
def test_only_user_addresses_are_known(value: int, known: bool) -> None:
    found = resolve(operands_of(LOAD_RBX), record(CODE_AT, [value] * 16, LOAD_RBX))[0]
    assert (found.known, found.addr) == (known, value if known else 0)


@pytest.mark.parametrize("ip", [0, 1 << 47, (1 << 64) - 1])
def test_no_code_is_looked_for_outside_user_memory(ip: int) -> None:
    process = Process(LOAD_RBX)
    found = resolve(Operands("x86_64", process.read), record(ip, REGS, LOAD_RBX))[0]
    assert (found.known, found.how, process.reads) == (False, "unreadable", 0)


def in_kernel(flags: int = 0, syscall: int = -1) -> np.ndarray:
    return record(CODE_AT, REGS, LOAD_RBX, access=KERNEL | flags, syscall=syscall)


@pytest.mark.parametrize(
    ("flags", "syscall", "how"),
    [
        (FAULT, -1, "kernel fault"),
        (RECLAIM, -1, "kernel reclaim"),
        (FAULT | RECLAIM, -1, "kernel reclaim"),
        (INTERRUPT, -1, "kernel interrupt"),
        (INTERRUPT, 0, "kernel interrupt"),
        (FAULT, 0, "kernel fault"),
        (0, 0, "kernel copy"),
        (0, 202, "kernel wait"),
        (0, 9, "kernel map"),
        (0, 39, "kernel"),
        (0, 511, "kernel"),
        (0, 512, "kernel"),
        (0, 1 << 62, "kernel"),
        (0, -1, "kernel"),
        (0, -(1 << 63), "kernel"),
    ],
)
def test_time_in_the_kernel_is_told_apart(flags: int, syscall: int, how: str) -> None:
    found = resolve(operands_of(LOAD_RBX), in_kernel(flags, syscall))[0]
    faulted = how == "kernel fault"
    assert found == Answer(RBX if faulted else 0, faulted, KERNEL, how)


def test_a_fault_of_a_store_is_a_write() -> None:
    made = record(CODE_AT, REGS, STORE_RDI, access=KERNEL | FAULT)
    assert resolve(operands_of(STORE_RDI), made)[0] == Answer(
        RDI, True, KERNEL | WRITE, "kernel fault"
    )


def test_a_fault_and_a_tick_at_one_instruction_are_two_things() -> None:
    """A fault is of the instruction, a tick of the one before."""
    code = LOAD_RBX + STORE_RDI
    text = code[3:]
    tick, fault = record(CODE_AT + 3, REGS, text), record(CODE_AT + 3, REGS, text, access=12)
    for order in ((tick, fault), (fault, tick)):
        found = resolve(operands_of(code), *order)
        assert {(each.how, each.addr) for each in found} == {
            ("neighbour", RBX),
            ("kernel fault", RDI),
        }


def test_memory_of_the_resolver_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (planner, plans):
        monkeypatch.setattr(module, "MAX_PLANS", 64)
    monkeypatch.setattr(planner, "MAX_WINDOWS", 2)
    code = (LOAD_RBX + b"\x90" * 5) * 400
    operands = operands_of(code)
    for batch in range(0, 400, 40):
        made = [
            record(CODE_AT + 8 * at, REGS, code[8 * at : 8 * at + 16])
            for at in range(batch, batch + 40)
        ]
        assert [each.addr for each in resolve(operands, *made)] == [RBX] * 40
        assert operands._plans._used <= 64
        assert len(operands._plans._places) <= 64
        assert operands._planner is not None
        assert all(len(each) <= 2 for each in operands._planner._windows.values())
        for texts in (operands._plans._texts, operands._planner._texts):
            assert all(len(each) <= 64 for each in texts._known.values())


def test_a_batch_larger_than_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (planner, plans):
        monkeypatch.setattr(module, "MAX_PLANS", 16)
    code = (LOAD_RBX + b"\x90") * 50
    made = [record(CODE_AT + 4 * at, REGS, code[4 * at : 4 * at + 16]) for at in range(50)]
    assert [each.addr for each in resolve(operands_of(code), *made)] == [RBX] * 50


def test_no_records() -> None:
    found = operands_of(LOAD_RBX).resolve(np.zeros(0, ring_dtype("access")))
    assert [len(column) for column in (found.addr, found.known, found.access, found.how)] == [0] * 4


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 8), st.integers(0, 1 << 62), st.binary(max_size=400), st.booleans())
def test_nothing_in_a_record_upsets_it(count: int, seed: int, code: bytes, arm64: bool) -> None:
    """Any bytes in any member; half of the records point into the code, whatever that is."""
    made = np.zeros(count, ring_dtype("access"))
    raw = np.random.default_rng(seed).bytes(made.nbytes)
    made = np.frombuffer(raw, made.dtype).copy()
    made["ip"][::2] = CODE_AT + made["ip"][::2] % 420
    made["access"][::3] &= KERNEL - 1
    made["text"][1::2] = 0
    found = operands_of(code, "aarch64" if arm64 else "x86_64").resolve(made)
    assert (found.addr.dtype, found.known.dtype) == (np.uint64, np.bool_)
    assert ((found.addr != 0) == found.known).all()
    assert (found.addr < 1 << 48).all()
    assert ((found.access & ~np.uint8(WRITE | FETCH | KERNEL)) == 0).all()
    assert ((found.access & KERNEL) == (made["access"] & KERNEL)).all()
    assert (found.how < len(HOW)).all()
    kernel = [HOW_NAMES[how].startswith("kernel") for how in found.how]
    assert kernel == ((made["access"] & KERNEL) != 0).tolist()


@pytest.mark.parametrize(
    ("machine", "header"),
    [
        ("x86_64", "x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "asm-generic/unistd.h"),
    ],
)
def test_system_calls_have_the_kernels_numbers(machine: str, header: str) -> None:
    path = Path("/usr/include") / header
    if not path.exists():
        pytest.skip(f"the kernel's headers are not installed: {path}")
    defined = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", path.read_text())
    numbers = {name: int(number) for name, number in defined}
    ours = NUMBERS[machine]
    checked = {name: number for name, number in ours.items() if name in numbers}
    assert checked == {name: numbers[name] for name in checked}
    newer = {"futex_wake", "futex_wait", "futex_requeue"}  # 6.7
    assert ours.keys() - checked.keys() <= newer | {"pselect6", "set_mempolicy_home_node"}
    assert len(set(ours.values())) == len(ours)


@pytest.mark.parametrize("machine", sorted(NUMBERS))
def test_every_call_that_has_a_meaning_has_a_number_where_the_machine_has_it(machine: str) -> None:
    only_x86 = {"poll", "select", "pause", "epoll_wait"}
    missing = CALLS.keys() - NUMBERS[machine].keys()
    assert missing == (only_x86 if machine == "aarch64" else set())


def test_starting_up_does_not_load_the_disassembler() -> None:
    code = (
        "import sys; from numatrace.record.operands import Operands; "
        "from numatrace.record.operands.resolve import planner_for; "
        "Operands('x86_64', lambda *_: b''); assert 'capstone' not in sys.modules; "
        "planner_for('x86_64', lambda *_: b''); assert 'capstone' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.fixture
def pages() -> mmap.mmap:
    """Three pages of memory, of which the last was never touched."""
    made = mmap.mmap(-1, 3 * PAGE)
    made[: 2 * PAGE] = bytes(range(256)) * (2 * PAGE // 256)
    return made


def begin_of(pages: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(pages))


def test_code_is_read_from_a_live_process(pages: mmap.mmap) -> None:
    begin = begin_of(pages)
    assert read_code(os.getpid(), begin + 3, 20) == bytes(range(3, 23))
    across = read_code(os.getpid(), begin + PAGE - 8, 16)
    assert across == bytes([*range(248, 256), *range(8)])


def test_reading_stops_before_a_page_that_is_not_there(pages: mmap.mmap) -> None:
    """Touching it could wait for a file system that never answers."""
    begin = begin_of(pages)
    assert len(read_code(os.getpid(), begin + 2 * PAGE - 10, 100)) == 10
    assert read_code(os.getpid(), begin + 2 * PAGE, 16) == b""
    resident = Path(f"/proc/{os.getpid()}/smaps").read_text()
    here = resident[resident.index(f"{begin // PAGE * PAGE:08x}-") :]
    assert re.search(r"Rss:\s+(\d+) kB", here)[1] == str(2 * PAGE // 1024), "it was not touched"


def test_what_cannot_be_read_is_empty() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    here = os.getpid()
    begin = ctypes.addressof(ctypes.create_string_buffer(8))
    for tgid, addr, size in (
        (child.pid, begin, 8),
        (0, begin, 8),
        (-1, begin, 8),
        (here, 0, 8),
        (here, (1 << 64) - 8, 8),
        (here, 1 << 63, 8),
        (here, (1 << 47) - 8, 64),
        (here, -8, 8),
        (here, begin, 0),
        (here, begin, -1),
        (here, begin, 1 << 40),
    ):
        assert read_code(tgid, addr, size) == b""
