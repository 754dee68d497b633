"""Columns that text takes on a terminal, and text cut to a number of columns.

Not rich's: that measures by a version of Unicode that the environment may name, and some terminals
draw more. It is what the tests compare with.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from numatrace.model.text import MAX_CHARS, printable

ELLIPSIS = "…"
EMOJI_STYLE = "\N{VARIATION SELECTOR-16}"
"""Makes the character before it an emoji, which many terminals then draw one column wider."""
FLAG_LETTERS = range(0x1F1E6, 0x1F200)
"""Regional indicators: drawn as two columns each, or two of them as one flag."""
LATER_WIDE = ((0x2630, 0x2637), (0x268A, 0x268F), (0x4DC0, 0x4DFF), (0x1D300, 0x1D376))
"""Trigrams, hexagrams and the like: wide since Unicode 16, which Python 3.13 does not know."""
SEPARATORS = str.maketrans(dict.fromkeys("\u2028\u2029", "\N{REPLACEMENT CHARACTER}"))
MARKS_PER_COLUMN = 4
"""Characters that may share a column: more than any script needs, and no tower of accents."""


def clean(text: str) -> str:
    """Return hostile text as one line that a terminal shows and does not obey; bounded."""
    if len(text) <= MAX_CHARS and text.isprintable():
        return text
    return printable(text).translate(SEPARATORS)


def columns(text: str) -> int:
    """Return how many terminal columns a cleaned text takes, at most.

    Terminals disagree about emoji and flags; this is the widest that they draw.
    """
    return len(text) if text.isascii() else sum(map(_char_columns, text))


def head(text: str, width: int) -> str:
    """Return the longest beginning that fits, also in characters (MARKS_PER_COLUMN)."""
    used = 0
    for index, char in enumerate(text):
        used += _char_columns(char)
        if used > width or index >= MARKS_PER_COLUMN * width:
            return text[:index]
    return text


def tail(text: str, width: int) -> str:
    """Return the longest end that fits."""
    used = start = 0
    for start, char in enumerate(reversed(text)):
        used += _char_columns(char)
        if used > width or start >= MARKS_PER_COLUMN * width:
            return text[len(text) - start :]
    return text


def clip(text: str, width: int) -> str:
    """Return the text if it fits, else its beginning and an ellipsis."""
    return text if head(text, width) == text else head(text, width - 1) + ELLIPSIS


def clip_middle(text: str, width: int) -> str:
    """Return the text if it fits, else its two ends: of a path, the file name stays."""
    if head(text, width) == text:
        return text
    back = (width - 1) * 2 // 3
    return head(text, width - 1 - back) + ELLIPSIS + tail(text, back)


def pad(text: str, width: int, *, right: bool = False) -> str:
    """Return the text filled up with spaces to `width` columns."""
    fill = " " * (width - columns(text))
    return fill + text if right else text + fill


@lru_cache(maxsize=4096)
def _char_columns(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return int(char == EMOJI_STYLE)
    code = ord(char)
    wide = unicodedata.east_asian_width(char) in ("W", "F") or code in FLAG_LETTERS
    return 2 if wide or any(first <= code <= last for first, last in LATER_WIDE) else 1
