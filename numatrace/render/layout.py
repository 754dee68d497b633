"""Lines and lists of a text report, each within its columns, and the colours of rich."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from rich.color import ColorSystem
from rich.style import Style

from numatrace.render.bars import PLAIN
from numatrace.render.width import clean, columns, head

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numatrace.render.options import RenderOptions

INDENT = "  "
GLUE = "\0"
"""Stands for a space that must not become the end of a line; cleaned text has none."""
TOGETHER = re.compile(
    r"(?<=\d) (?=(?:%|[KMGTPE]?iB|B|s|ms|µs|ns)(?!\w))|(?<=\bnode) (?=\d)|(?<=<) (?=\d)"
)
STYLES = {
    "bold": "bold",
    "faint": "dim",
    "good": "bold green",
    "bad": "bold red",
    "command": "cyan",
    "bar": "cyan",
    "work": "blue",
    "loss": "red",
}
"""In the sixteen colours that every terminal has in a shade that suits its background."""


def paint(text: str, style: str, options: RenderOptions) -> str:
    """Return the text in one of STYLES, if colours are wanted."""
    if not options.colour or not text or not style:
        return text
    return _style(STYLES[style]).render(text, color_system=ColorSystem.STANDARD)


@lru_cache(maxsize=64)
def _style(definition: str) -> Style:
    return Style.parse(definition)


def heading(title: str, options: RenderOptions) -> str:
    """Return the first line of a section."""
    return paint(title.upper(), "bold", options)


def put_together(parts: list[list[str]], short: list[str], options: RenderOptions) -> str:
    """Return sections as one text; `short` ends one that is longer than the terminal is high."""
    if options.height is not None and sum(map(len, parts)) + len(parts) > options.height:
        parts = [*parts, short]
    text = "\n\n".join("\n".join(lines) for lines in parts) + "\n"
    return text.translate(PLAIN) if options.ascii else text


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


def faint(text: str, options: RenderOptions) -> list[str]:
    """Return the explanation of a picture or a table; nothing for no text."""
    return [paint(row, "faint", options) for row in paragraph(text, options)] if text else []


def bullets(texts: Iterable[str], options: RenderOptions, indent: str = INDENT) -> list[str]:
    """Return a list with a dash before each text."""
    return [row for text in texts for row in paragraph(text, options, f"{indent}- ")]


def _fold(word: str, width: int) -> Iterator[str]:
    while word:
        part = head(word, width) or word[0]
        yield part
        word = word[len(part) :]
