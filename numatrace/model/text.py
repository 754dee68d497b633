"""Text from elsewhere made safe to print: names, paths and command lines are hostile."""

from __future__ import annotations

import unicodedata

MAX_CHARS = 4096


def printable(text: str, limit: int = MAX_CHARS) -> str:
    """Text without control, format or surrogate characters, at most `limit` characters long.

    Terminals act on control characters, and format characters can reverse what is shown.
    """
    shown = "".join(c if _harmless(c) else "\N{REPLACEMENT CHARACTER}" for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _harmless(char: str) -> bool:
    return not unicodedata.category(char).startswith("C")
