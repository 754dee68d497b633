"""CPUs to check record/operands against: unicorn runs the code and tells every access it makes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import unicorn
from unicorn import arm64_const, x86_const

from numatrace.model.access import HOW
from numatrace.record.operands import Operands
from numatrace.record.operands.linear import extend_number
from numatrace.trace.schema import ring_dtype

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from numatrace.record.operands.instruction import Memory
    from numatrace.record.operands.linear import Linear

HOW_NAMES = list(HOW)
X86_NAMES = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *(f"r{number}" for number in range(8, 16)),
)
"""In the order of the ring record's regs."""

CODE_AT = 0x40_0000
PAGE = 0x1000
USER_END = 1 << 47
MASK = (1 << 64) - 1
POINTER = 0x1234_5670_0000
"""What fresh memory is full of: a pointer, so that what is loaded can be used as one."""


@dataclass
class Step:
    """One executed instruction: the registers before it, and its accesses."""

    ip: int
    regs: list[int]
    reads: list[int] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)

    @property
    def first(self) -> int | None:
        """Lowest address of what it waits for: what it reads, or else what it writes."""
        return min(self.reads or self.writes, default=None)


class Cpu:
    """A CPU whose memory appears where it is touched. Each run is a new one: no state is left."""

    machine: ClassVar[str]
    stack: ClassVar[int]
    slots: ClassVar[tuple[int, ...]]
    """unicorn's numbers of the registers in the order of the ring record's regs."""

    def make(self) -> unicorn.Uc:
        raise NotImplementedError

    def run(self, code: bytes, regs: Sequence[int], thread: int = 0, limit: int = 1) -> list[Step]:
        """What happened, and a last step with the registers after it.

        Empty where the first instruction raises an exception.
        """
        uc = self.make()
        uc.mem_map(CODE_AT, PAGE * 16)
        uc.mem_write(CODE_AT, code)
        for number, value in zip(self.slots, regs, strict=True):
            uc.reg_write(number, value)
        self.set_thread(uc, thread)
        steps: list[Step] = []
        uc.hook_add(unicorn.UC_HOOK_CODE, lambda _, at, *__: steps.append(self.step(uc, at)))
        uc.hook_add(unicorn.UC_HOOK_MEM_READ, lambda _, __, at, *___: steps[-1].reads.append(at))
        uc.hook_add(unicorn.UC_HOOK_MEM_WRITE, lambda _, __, at, *___: steps[-1].writes.append(at))
        uc.hook_add(unicorn.UC_HOOK_MEM_UNMAPPED, appear())
        try:
            uc.emu_start(CODE_AT, CODE_AT + len(code), count=limit)
        except unicorn.UcError:
            return steps[:-1]
        return [*steps, self.step(uc, 0)]

    def step(self, uc: unicorn.Uc, at: int) -> Step:
        return Step(at, [uc.reg_read(number) for number in self.slots])

    def set_thread(self, uc: unicorn.Uc, base: int) -> None:
        raise NotImplementedError

    def regs(self, random: random.Random) -> list[int]:
        """Pointers, small and 32-bit numbers, and negative ones; the stack pointer is a pointer."""
        kinds: tuple[Callable[[], int], ...] = (
            lambda: random.randrange(1 << 33, 1 << 45) & ~63,
            lambda: random.randrange(0, 1 << 31),
            lambda: random.randrange(0, 64),
            lambda: MASK + 1 - random.randrange(1, PAGE),
        )
        values = [random.choice(kinds)() for _ in self.slots]
        values[self.stack] = random.randrange(1 << 40, 1 << 44) & ~63
        return values


def appear() -> Callable[..., bool]:
    """A hook that maps memory where there is none, full of pointers."""
    fresh = itertools.count(POINTER, 0x4040)

    def hook(uc: unicorn.Uc, _: int, address: int, size: int, *__: Any) -> bool:
        for page in {address // PAGE, (address + size - 1) // PAGE}:
            if not 0 < page < USER_END // PAGE:
                return False
            try:
                uc.mem_map(page * PAGE, PAGE)
            except unicorn.UcError:  # one of the two was there
                continue
            content = b"".join(next(fresh).to_bytes(8, "little") for _ in range(PAGE // 8))
            uc.mem_write(page * PAGE, content)
        return True

    return hook


class X86(Cpu):
    """x86-64. No AVX: unicorn 2.1 is of QEMU 5, which had none."""

    machine = "x86_64"
    stack = 4
    slots = tuple(getattr(x86_const, f"UC_X86_REG_{name.upper()}") for name in X86_NAMES)

    def make(self) -> unicorn.Uc:
        return unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)

    def set_thread(self, uc: unicorn.Uc, base: int) -> None:
        uc.reg_write(x86_const.UC_X86_REG_EFLAGS, 0x202)
        uc.reg_write(x86_const.UC_X86_REG_FS_BASE, base)
        for number in range(8):  # as a mask: all of it
            uc.reg_write(x86_const.UC_X86_REG_XMM0 + number, (1 << 128) - 1)


class Arm64(Cpu):
    """arm64 with NEON and the large system extensions. No SVE: unicorn 2.1 does not run it."""

    machine = "aarch64"
    stack = 31
    slots = (
        *(getattr(arm64_const, f"UC_ARM64_REG_X{number}") for number in range(31)),
        arm64_const.UC_ARM64_REG_SP,
    )

    def make(self) -> unicorn.Uc:
        uc = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        uc.ctl_set_cpu_model(arm64_const.UC_CPU_ARM64_MAX)
        return uc

    def set_thread(self, uc: unicorn.Uc, base: int) -> None:
        enabled = uc.reg_read(arm64_const.UC_ARM64_REG_CPACR_EL1) | 3 << 20  # FPEN
        uc.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, enabled)


def value_of(linear: Linear, regs: Sequence[int]) -> int:
    """The sum that a Linear stands for, in plain numbers."""
    terms = (
        term.factor * extend_number(regs[term.slot] + term.inner, term.extend)
        for term in linear.terms
    )
    return (linear.disp + sum(terms)) & MASK


def address_of(memory: Memory, regs: Sequence[int], thread: int = 0) -> int:
    """The address of an operand of an instruction at CODE_AT."""
    value = value_of(memory.address(CODE_AT), regs)
    value &= 0xFFFFFFFF if memory.narrow else MASK
    return (value + (thread if memory.segment == "thread" else 0)) & MASK


def record(ip: int, regs: Sequence[int] = (), text: bytes = b"", **columns: int) -> np.ndarray:
    """One record of the access ring."""
    made = np.zeros(1, ring_dtype("access"))
    made["ip"], made["tgid"], made["syscall"] = ip, 1, -1
    made["regs"][0, : len(regs)] = regs
    made["text"][0, : len(text)] = list(text)
    for name, value in columns.items():
        made[name] = value
    return made


@dataclass
class Answer:
    """What one record resolved to."""

    addr: int
    known: bool
    access: int
    how: str


def resolve(operands: Operands, *records: np.ndarray) -> list[Answer]:
    """Each record's answer."""
    found = operands.resolve(np.concatenate(records))
    columns = (found.addr, found.known, found.access, found.how)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [Answer(addr, known, access, HOW_NAMES[how]) for addr, known, access, how in rows]


def reader(code: bytes, at: int = CODE_AT) -> Callable[[int, int, int], bytes]:
    """A read_code for a process that has nothing but this code."""

    def read(tgid: int, addr: int, size: int) -> bytes:
        begin = addr - at
        return code[begin : begin + size] if 0 <= begin < len(code) else b""

    return read


def operands_of(code: bytes, machine: str = "x86_64") -> Operands:
    """An Operands for a process that has nothing but this code."""
    return Operands(machine, reader(code))


def sample(
    code: bytes, at: int, regs: Sequence[int] = (), machine: str = "x86_64", **columns: int
) -> Answer:
    """What a sample of the instruction at this offset resolves to."""
    text = code[at : at + 16]
    made = record(CODE_AT + at, regs, text, **columns)
    return resolve(operands_of(code, machine), made)[0]
