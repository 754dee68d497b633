"""Lines, lists and tables of a text report, each within its columns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from numatrace.render.width import clean, clip, clip_middle, columns, head, pad

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numatrace.render.options import RenderOptions

INDENT = "  "
GAP = "  "
GLUE = "\0"
"""Stands for a space that must not become the end of a line; cleaned text has none."""
TOGETHER = re.compile(
    r"(?<=\d) (?=(?:%|[KMGTPE]?iB|B|s|ms|µs|ns)(?!\w))|(?<=\bnode) (?=\d)|(?<=<) (?=\d)"
)
STYLES = {"bold": "1", "faint": "2", "good": "1;32", "bad": "1;33", "command": "36"}


def paint(text: str, style: str, options: RenderOptions) -> str:
    """Return the text in one of STYLES, if colours are wanted."""
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if options.colour and text else text


def heading(title: str, options: RenderOptions) -> str:
    """Return the first line of a section."""
    return paint(title.upper(), "bold", options)


def wrap(text: str, width: int) -> list[str]:
    """Return text from anywhere as lines of at most `width` columns; a longer word is folded."""
    rows: list[str] = []
    for word in TOGETHER.sub(GLUE, clean(text)).split():
        for part in _fold(word, width):
            joined = f"{rows[-1]} {part}" if rows else part
            if rows and columns(joined) <= width:
                rows[-1] = joined
            else:
                rows.append(part)
    return [row.replace(GLUE, " ") for row in rows]


def paragraph(text: str, options: RenderOptions, first: str = INDENT) -> list[str]:
    """Return text behind `first` (an indent, a bullet, a number), further lines below its start."""
    start = columns(first)
    rows = wrap(text, options.columns - start) or [""]
    return [(first if index == 0 else " " * start) + row for index, row in enumerate(rows)]


def bullets(texts: Iterable[str], options: RenderOptions, indent: str = INDENT) -> list[str]:
    """Return a list with a dash before each text."""
    return [row for text in texts for row in paragraph(text, options, f"{indent}- ")]


class Column(NamedTuple):
    """A column of a table. One with a `least` width is cut to that when space is short."""

    title: str
    right: bool = True
    least: int = 0
    cut: Callable[[str, int], str] = clip_middle


def table(
    heads: Sequence[Column], rows: Sequence[Sequence[str]], options: RenderOptions
) -> list[str]:
    """Return a table with its head as lines; none for no rows. Cells may come from anywhere."""
    if not rows:
        return []
    lines = [[column.title for column in heads], *([clean(cell) for cell in row] for row in rows)]
    widths = [max(map(columns, cells)) for cells in zip(*lines, strict=True)]
    over = len(INDENT) + sum(widths) + len(GAP) * (len(widths) - 1) - options.columns
    for index, column in enumerate(heads):
        if over > 0 and 0 < column.least < widths[index]:
            cut = min(over, widths[index] - column.least)
            widths[index] -= cut
            over -= cut
    gap = GAP if over <= 0 else " "
    made = [_line(heads, cells, widths, gap, options) for cells in lines]
    return [paint(made[0], "faint", options), *made[1:]]


def _line(
    heads: Sequence[Column],
    cells: Sequence[str],
    widths: Sequence[int],
    gap: str,
    options: RenderOptions,
) -> str:
    shown = [
        pad(column.cut(cell, width), width, right=column.right)
        for column, cell, width in zip(heads, cells, widths, strict=True)
    ]
    return clip((INDENT + gap.join(shown)).rstrip(), options.columns)


def _fold(word: str, width: int) -> Iterator[str]:
    while word:
        part = head(word, width) or word[0]
        yield part
        word = word[len(part) :]
