"""Shares as small bars of block characters: along a line, or one character for each of many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

EIGHTHS = " ▏▎▍▌▋▊▉█"
"""A character filled from the left, by eighths."""
LEVELS = "·▁▂▃▄▅▆▇█"
"""A character filled from below, by eighths; a dot for nothing."""
PLAIN = str.maketrans("▏▎▍▌▋▊▉█·▁▂▃▄▅▆▇…–→×µ±", "...#####.:-=+*o%~->xu~")
"""What stands for our own characters, one for one, where the output has ASCII only."""


class Heat(str):
    """A cell of a table that has a colour, or a bar of that colour before it if there is room."""

    __slots__ = ("share", "style")
    share: float | None
    """How full the bar is, 0 to 1; None for no bar."""
    style: str
    """One of layout.STYLES."""

    def __new__(cls, text: str, share: float | None = None, style: str = "bar") -> Self:
        """Take the text; a share is cut to its range."""
        cell = super().__new__(cls, text)
        cell.share = None if share is None else min(1.0, max(0.0, share))
        cell.style = style
        return cell


def bar(share: float, width: int) -> str:
    """Return a bar of at most `width` columns without spaces; what is not nothing is seen."""
    eighths = round(8 * width * share)
    if share > 0:
        eighths = max(1, eighths)
    full, part = divmod(eighths, 8)
    return EIGHTHS[8] * full + EIGHTHS[part].strip()


def strip(shares: Iterable[float]) -> str:
    """Return one character for each share, 0 to 1; the least that is not nothing is seen."""
    return "".join(LEVELS[max(round(8 * share), int(share > 0))] for share in shares)
