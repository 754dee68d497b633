"""Quote what a trace says for a shell and for systemd; refuse what cannot be quoted."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LOST_BYTES = "\ufffd"
"""Stands where the recorder found bytes that are not text: the original is not known."""
SYSTEMD_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t"}


class RefusedError(ValueError):
    """A text that no quoting can carry unchanged; the message says why."""


def shell(text: str) -> str:
    """Return one word of a shell command that stands for exactly this text.

    Text with control or other invisible characters is written as `$'…'`, byte by byte where
    needed, so that what is seen is what runs; that form is bash's, ksh's and zsh's.
    """
    require_text(text)
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(_ansi_c(char) for char in text) + "'"


def shell_command(words: Sequence[str]) -> str:
    """Return a shell command of these words."""
    return " ".join(shell(word) for word in words)


def systemd_exec(words: Sequence[str]) -> str:
    """Return the value of an ExecStart= line of these words (systemd.service(5), "COMMAND LINES").

    `%` and `$` are doubled: systemd expands them.
    """
    return " ".join(_systemd_word(word) for word in words)


def systemd_variable(name: str, value: str) -> str:
    """Return the value of an Environment= line that sets one variable (systemd.exec(5)).

    `$` has no meaning there; `%` is expanded, so it is doubled.
    """
    require_text(value)
    if not value.isprintable():
        raise RefusedError("a variable holds control characters")
    if SYSTEMD_PLAIN.fullmatch(value):
        return f"{name}={value}".replace("%", "%%")
    escaped = value.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{name}={escaped}"'


def _systemd_word(word: str) -> str:
    require_text(word)
    if not word.isprintable():
        raise RefusedError("an argument holds control characters")
    doubled = word.replace("%", "%%").replace("$", "$$")
    if SYSTEMD_PLAIN.fullmatch(word):
        return doubled
    escaped = doubled.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _ansi_c(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode())


def require_text(text: str) -> None:
    """Raise RefusedError for what was not text, or is not whole."""
    if "\0" in text or LOST_BYTES in text:
        raise RefusedError("it holds bytes that are not text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RefusedError("it holds bytes that are not text") from None
