"""Put a thread's saved registers in the order in which the instruction set numbers them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = np.ndarray[Any, Any]

SAVED = {
    "x86_64": "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs flags rsp",
    "aarch64": " ".join(f"x{n}" for n in range(31)) + " sp",
}
"""The words of struct pt_regs, as the kernel saves them at its entry and bpf/access.bpf.c sends
them: arch/x86/include/uapi/asm/ptrace.h, arch/arm64/include/asm/ptrace.h."""

NUMBERED = {
    "x86_64": "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15 flags",
    "aarch64": SAVED["aarch64"],
}
"""As instructions number them; on x86-64 the flags come after the registers."""


def in_order(records: Array, machine: str) -> Array:
    """The records of the ring `access` with `regs` in the order of NUMBERED, then zeros."""
    order = _places(SAVED[machine].split(), NUMBERED[machine].split())
    saved = records["regs"]
    regs = np.zeros_like(saved)
    regs[:, : len(order)] = saved[:, order]
    ordered = records.copy()
    ordered["regs"] = regs
    return ordered


def _places(saved: Sequence[str], wanted: Sequence[str]) -> list[int]:
    return [saved.index(name) for name in wanted]
