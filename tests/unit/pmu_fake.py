"""A program in the place of `perf`: a double at the border of the process, for what is not here."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

EVLIST = (
    "{event}: type: 4, size: 128, config: 0x1cd, {{ sample_period, sample_freq }}: 199, "
    "sample_type: {bits}, read_format: ID, disabled: 1, inherit: 1, freq: 1, precise_ip: 3\n"
)
ALL_BITS = "IP|TID|TIME|ADDR|CPU|PERIOD|DATA_SRC|WEIGHT"
FIELDS = (
    "pid", "tid", "cpu", "time", "period", "event", "addr", "data_src", "weight", "ip",
)  # fmt: skip


def fake_perf(folder: Path, **verbs: str) -> str:
    """A shell script that runs the text of its first argument; `_` in a name stands for `-`.

    What it was called with is in `calls(path)`.
    """
    path = folder / "perf"
    log = shlex.quote(str(folder / "perf.log"))
    cases = "\n".join(f"{name.replace('_', '-')})\n{body}\n;;" for name, body in verbs.items())
    path.write_text(f'#!/bin/sh\necho "$@" >> {log}\ncase "$1" in\n{cases}\n*) exit 9;;\nesac\n')
    path.chmod(0o755)
    return str(path)


def calls(folder: Path) -> list[str]:
    """The arguments of every call."""
    log = folder / "perf.log"
    return log.read_text().splitlines() if log.exists() else []


def evlist(event: str = "cpu/mem-loads,ldlat=30/P", bits: str = ALL_BITS) -> str:
    """Body that prints what `perf evlist -v` would."""
    return f"printf %s {shlex.quote(EVLIST.format(event=event, bits=bits))}"


def show(content: bytes | str, folder: Path, name: str) -> str:
    """Body that prints these bytes."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return f"cat {shlex.quote(str(path))}"


def line(t_s: float, addr: int, data_src: int, pid: int = 7, weight: int = 300) -> str:
    """One sample as `perf script` prints it with FIELDS."""
    return (
        f"{pid}/{pid} [001] {t_s:.9f}:       2003   cpu/mem-loads,ldlat=30/P: {addr:16x} "
        f"{data_src:16x} |OP LOAD|LVL RAM hit|SNP None|TLB L1 or L2 hit|LCK No|BLK  N/A "
        f"{weight:16d} {0x7F00:16x}\n"
    )
