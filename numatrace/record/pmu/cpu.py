"""Which CPU this is, from /proc/cpuinfo and sysfs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from numatrace.model.cpulist import CPU_LIMIT
from numatrace.model.text import printable
from numatrace.record.machine.files import numbered, read_text
from numatrace.record.machine.sysfs import CPUS, ROOT, cpu_model

if TYPE_CHECKING:
    from pathlib import Path

CPUINFO_LIMIT = 1 << 22
"""Bytes of /proc/cpuinfo that are read: a thousand x86 CPUs, each with some 1.5 KB of flags."""
NAME_LIMIT = 80

_FIELD = re.compile(
    r"^(vendor_id|mvendorid|cpu family|model|stepping)[ \t]*:[ \t]*(\S{1,32})[ \t]*$", re.M
)
_ARM_FIELD = re.compile(r"^CPU (implementer|part)[ \t]*:[ \t]*(0x[0-9a-fA-F]{1,4})[ \t]*$", re.M)


@dataclass(frozen=True, slots=True)
class Cpu:
    """An x86 CPU (`vendor` as cpuinfo has it), or Arm cores, or another CPU with only a name.

    `parts`: implementer and part of each kind of Arm core, in the order of their first CPU.
    """

    vendor: str = ""
    family: int = -1
    model: int = -1
    stepping: int = -1
    parts: tuple[tuple[int, int], ...] = ()
    name: str = ""

    def __str__(self) -> str:
        """Return what tells it apart in the tables; its name where there is nothing of the kind."""
        if self.family >= 0:
            return f"{self.vendor} family {self.family} model {self.model}"
        if self.parts:
            kinds = (f"implementer {maker:#x} part {part:#x}" for maker, part in self.parts)
            return "Arm " + ", ".join(kinds)
        return self.name or "of an unknown kind"


def identify(root: Path = ROOT) -> Cpu:
    """Return the CPU of the machine whose `proc` and `sys` are below `root`. Never raises."""
    text = read_text(root / "proc/cpuinfo", CPUINFO_LIMIT) or ""
    name = printable(cpu_model(root), NAME_LIMIT)
    parts = _arm_parts(text) or _midr_parts(root)
    if parts:
        return Cpu(parts=parts, name=name)
    # All CPUs of a machine are of one model; their steppings may differ, the first one counts.
    fields: dict[str, str] = {}
    for key, value in _FIELD.findall(text):
        fields.setdefault(key, value)
    family, model, stepping = (
        _number(fields.get(key)) for key in ("cpu family", "model", "stepping")
    )
    vendor = printable(fields.get("vendor_id", ""), NAME_LIMIT)
    if not vendor or family < 0 or model < 0:
        maker = printable(fields.get("mvendorid", ""), NAME_LIMIT)  # RISC-V
        return Cpu(name=name or vendor or (f"RISC-V vendor {maker}" if maker else ""))
    return Cpu(vendor, family, model, stepping, name=name)


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) <= 4 else -1


def _arm_parts(text: str) -> tuple[tuple[int, int], ...]:
    found: dict[tuple[int, int], None] = {}
    implementer = None
    for key, value in _ARM_FIELD.findall(text):
        if key == "implementer":
            implementer = int(value, 16)
        elif implementer is not None:
            found[implementer, int(value, 16)] = None
    return tuple(found)


def _midr_parts(root: Path) -> tuple[tuple[int, int], ...]:
    """Parts from the main ID registers: implementer in bits 24 to 31, part in bits 4 to 15."""
    found: dict[tuple[int, int], None] = {}
    for cpu in numbered(root / CPUS, "cpu", CPU_LIMIT):
        text = read_text(root / CPUS / f"cpu{cpu}/regs/identification/midr_el1", 32)
        if text is None:
            return ()
        if re.fullmatch(r"0x[0-9a-fA-F]{1,16}", text):
            midr = int(text, 16)
            found[midr >> 24 & 0xFF, midr >> 4 & 0xFFF] = None
    return tuple(found)
