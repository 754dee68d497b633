"""Numbers as people read them: bytes, time, shares and counts."""

from __future__ import annotations

BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
TIME_UNITS = (("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1_000))
PAGE_BYTES = 4096
"""The smallest page of x86-64 and of most arm64 kernels; used for rounding only."""


def format_bytes(count: float) -> str:
    """Return bytes in the largest binary unit that leaves at least 1: `1.5 GiB`, `512 B`."""
    size, unit = float(count), 0
    while abs(size) >= 1024 and unit < len(BINARY_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{_digits(size) if unit else round(size)} {BINARY_UNITS[unit]}"


def format_ns(ns: float) -> str:
    """Return nanoseconds in the largest unit that leaves at least 1: `9.8 s`, `120 ms`."""
    for unit, length in TIME_UNITS:
        if abs(ns) >= length:
            return f"{_digits(ns / length)} {unit}"
    return f"{round(ns)} ns"


def format_share(share: float) -> str:
    """Return a share (0 to 1) in per cent: `48 %`; `0.4 %` and `< 0.1 %` where it is small."""
    percent = share * 100
    if 0 < percent < 0.1:
        return "< 0.1 %"
    return f"{percent:.1f} %" if 0 < percent < 1 else f"{percent:.0f} %"


def format_nodes(nodes: tuple[int, ...] | list[int]) -> str:
    """Return nodes as words: `node 0`, `nodes 0 and 2`, `nodes 0, 1 and 3`."""
    names = [str(node) for node in sorted(nodes)]
    if not names:
        return "no node"
    if len(names) == 1:
        return f"node {names[0]}"
    return f"nodes {', '.join(names[:-1])} and {names[-1]}"


def format_count(count: int, singular: str, plural: str | None = None) -> str:
    """Return a count with its noun: `1 thread`, `1,200 threads`."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def _digits(value: float) -> str:
    """Two significant digits below 10, whole numbers above."""
    return f"{value:.1f}" if abs(value) < 9.95 else f"{value:.0f}"
