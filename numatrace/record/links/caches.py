"""How large the CPUs' last caches are, from sysfs: memory is measured over more than they hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from numatrace.model.cpulist import CPU_LIMIT
from numatrace.record.machine.files import numbered, read_cpulist, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

UNKNOWN_BYTES = 32 << 20
"""Assumed for a CPU whose caches sysfs does not show, as in some virtual machines."""
CACHE_LIMIT_BYTES = 1 << 36

_SIZE = re.compile(r"([0-9]{1,10})([KM]?)")
_UNITS = {"": 0, "K": 10, "M": 20}


def last_cache(cpu: int, root: Path) -> tuple[int, tuple[int, ...]]:
    """Return the bytes of a CPU's largest cache, and the CPUs that share it."""
    folder = root / f"sys/devices/system/cpu/cpu{cpu}/cache"
    largest: tuple[int, tuple[int, ...]] = (0, (cpu,))
    for index in numbered(folder, "index", 16):
        match = _SIZE.fullmatch(read_text(folder / f"index{index}/size", 32) or "")
        size = int(match[1]) << _UNITS[match[2]] if match else 0
        shared = read_cpulist(folder / f"index{index}/shared_cpu_list", CPU_LIMIT) or (cpu,)
        largest = max(largest, (min(size, CACHE_LIMIT_BYTES), shared))
    return largest if largest[0] else (UNKNOWN_BYTES, (cpu,))


def caches_of(cpus: Iterable[int], root: Path) -> int:
    """Return the bytes of all the last caches of some CPUs together, each counted once."""
    found = {shared: size for size, shared in (last_cache(cpu, root) for cpu in cpus)}
    return sum(found.values())
