"""Which memory a sampled thread was using: instructions and registers to data addresses."""

from __future__ import annotations

from numatrace.record.operands.code import read_code
from numatrace.record.operands.resolve import Operands, Resolved

__all__ = ("Operands", "Resolved", "read_code")
