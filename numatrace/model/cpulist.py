"""The kernel's lists of CPUs and nodes ("0-3,8") to and from tuples, bounded."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

CPU_LIMIT = 16384
"""CPU numbers are below this: twice the largest CONFIG_NR_CPUS (8192, x86 with MAXSMP)."""
NODE_LIMIT = 1024
"""Node numbers are below this: the kernel's largest CONFIG_NODES_SHIFT is 10."""
LIST_TEXT_LIMIT = 131_072
"""Characters in a list: every second one of CPU_LIMIT CPUs, written out, is shorter."""

_RANGE = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?")
_MASK = re.compile(r"[0-9a-fA-F]{1,8}(?:,[0-9a-fA-F]{8})*")


# All threads of a process have the same list as a rule: parse it once, share the tuple.
@lru_cache(maxsize=64)
def parse_cpulist(text: str, limit: int = CPU_LIMIT) -> tuple[int, ...]:
    """Return the numbers in a list such as "0-3,8", ascending and each once.

    Raises ValueError for anything the kernel would not print, and for a number not below `limit`.
    """
    if len(text) > LIST_TEXT_LIMIT:
        raise ValueError(f"a list of {len(text)} characters")
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        numbers.update(_range(part, limit))
    return tuple(sorted(numbers))


def _range(part: str, limit: int) -> range:
    match = _RANGE.fullmatch(part)
    if match is None:
        raise ValueError(f"not a range of numbers: {part[:40]!r}")
    first = int(match[1])
    last = int(match[2] or first)
    if last < first or last >= limit:
        raise ValueError(f"numbers out of order or not below {limit}: {part!r}")
    return range(first, last + 1)


def parse_cpumask(text: str, limit: int = CPU_LIMIT) -> tuple[int, ...]:
    """Return the numbers set in a mask of 32-bit words such as "00000000,0000000f".

    Raises ValueError for anything else, and for a bit not below `limit`.
    """
    words = text.strip()
    # 72 bits of text carry 32 bits of mask, so this also bounds the integer.
    if len(words) > limit or _MASK.fullmatch(words) is None:
        raise ValueError(f"not a mask of 32-bit words: {words[:40]!r}")
    mask = int(words.replace(",", ""), 16)
    if mask.bit_length() > limit:
        raise ValueError(f"bit {mask.bit_length() - 1} of a mask is not below {limit}")
    return tuple(bit for bit in range(mask.bit_length()) if mask >> bit & 1)


def format_cpulist(numbers: Iterable[int]) -> str:
    """Return the list as the kernel prints it: "0-3,8"; "" for no numbers."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
