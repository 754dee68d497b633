"""Text from elsewhere made safe to print: names, paths and command lines are hostile."""

from __future__ import annotations

MAX_CHARS = 4096


def printable(text: str, limit: int = MAX_CHARS) -> str:
    """Text in which only characters that show themselves are left, at most `limit` of them.

    Terminals act on control characters, format characters can reverse what is shown, and some
    spaces end the line. str.isprintable knows them all, the plain space excepted.
    """
    shown = "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: limit + 1]
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
