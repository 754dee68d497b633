"""Figures of the live view as short texts, and bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.model.units import format_share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numatrace.watch.snapshot import Remote

UNKNOWN = "-"
TOO_FEW = "few"
"""Instead of a share of too few samples."""
NODE_MARKS = "0123456789abcdefghijklmnopqrstuvwxyz"
NODE_STYLES = ("cyan", "magenta", "yellow", "blue", "green", "red")
SOME_REMOTE, MUCH_REMOTE = 0.05, 0.30
"""Remote shares from which on they are painted."""


def rate(per_s: float) -> str:
    """Return events per second in at most six characters: `0`, `0.3`, `1,234`, `56k`, `1.2M`."""
    if per_s < 9.95:
        return f"{per_s:.1f}" if round(per_s, 1) else "0"
    if per_s < 9_999.5:
        return f"{per_s:,.0f}"
    for unit, size in (("k", 1e3), ("M", 1e6), ("G", 1e9)):
        if per_s / size < 999.5:
            return f"{per_s / size:.0f}{unit}"
    return "many"


def clock(seconds: float) -> str:
    """Return a time as `1:23` or `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def remote_text(remote: Remote) -> str:
    """Return a remote share; that there are too few samples for one; or that there are none."""
    if remote.share is None:
        return TOO_FEW if remote.samples else UNKNOWN
    return format_share(remote.share)


def remote_style(remote: Remote) -> str:
    """Return how a remote share is painted."""
    if remote.share is None:
        return "dim"
    if remote.share < SOME_REMOTE:
        return "green"
    return "bold red" if remote.share >= MUCH_REMOTE else "bold yellow"


def node_mark(node: int) -> str:
    """Return the one character that stands for a node in a bar."""
    return NODE_MARKS[node] if 0 <= node < len(NODE_MARKS) else "#"


def node_style(node: int) -> str:
    """Return the colour of a node."""
    return NODE_STYLES[node % len(NODE_STYLES)]


def node_cells(shares: Mapping[int, float], width: int) -> list[tuple[int, int]]:
    """Divide `width` cells among nodes by their shares (largest remainders): (node, cells).

    No cells for what adds up to nothing.
    """
    whole = sum(shares.values())
    if whole <= 0:
        return []
    parts = {node: share / whole * width for node, share in sorted(shares.items())}
    cells = {node: int(part) for node, part in parts.items()}
    order = sorted(parts, key=lambda node: cells[node] - parts[node])
    for node in order[: width - sum(cells.values())]:
        cells[node] += 1
    return [(node, count) for node, count in cells.items() if count]


def bar(share: float, width: int) -> str:
    """Return a bar of `width` cells that is filled up to a share."""
    filled = round(min(1.0, max(0.0, share)) * width)
    return "█" * filled + "░" * (width - filled)
