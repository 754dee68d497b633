"""Man pages: one for numatrace and one for each verb, in man(7); the same bytes every time."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from numatrace import __version__
from reference.verbs import verbs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reference.verbs import Verb

COMMENT = r".\" Generated from numatrace/cli by scripts/gen-reference: do not edit."
COLUMNS = 72
STATUS = "Exit status:"


def man_pages() -> dict[str, str]:
    """Return every page by the name of its file."""
    every = list(verbs())
    return {f"{_dashed(verb.name)}.1": "\n".join(_page(verb, every)) + "\n" for verb in every}


def _page(verb: Verb, every: list[Verb]) -> Iterator[str]:
    first = verb is every[0]
    yield COMMENT
    yield f'.TH {_dashed(verb.name).upper()} 1 "" "numatrace {__version__}" "numatrace"'
    yield from (".SH NAME", rf"{_text(_dashed(verb.name))} \- {_text(verb.about.rstrip('.'))}")
    yield from (".SH SYNOPSIS", *_synopsis(verb))
    yield ".SH DESCRIPTION"
    yield from _blocks(verb.help)
    yield ".SH OPTIONS"
    for spelling, meaning in verb.options:
        yield from (".TP", rf"\fB{_text(spelling)}\fR", *_lines(meaning))
    if first:
        yield ".SH COMMANDS"
        for each in every[1:]:
            yield from (".TP", rf"\fB{_text(each.name)}\fR", *_lines(each.about))
    yield from _epilog(verb.epilog)
    yield ".SH SEE ALSO"
    others = every[1:] if first else [every[0], *(each for each in every[1:] if each is not verb)]
    names = [rf"\fB{_text(_dashed(each.name))}\fR(1)" for each in others]
    yield ",\n".join(names)
    if first:
        yield from (".PP", *_lines("numatrace guide lists the pages of the guide."))


def _synopsis(verb: Verb) -> Iterator[str]:
    yield rf"\fB{_text(verb.name)}\fR {_text(verb.usage.removeprefix(verb.name).strip())}"


def _epilog(blocks: tuple[tuple[bool, str], ...]) -> Iterator[str]:
    """Sections for the exit status and the examples; other text below the one before it."""
    for kept, text in blocks:
        head, _, body = text.partition("\n")
        if kept and text.startswith(STATUS):
            yield from (".SH EXIT STATUS", *_lines(_upper(" ".join(text.split())[len(STATUS) :])))
        elif kept and head.endswith(":"):
            yield f".SH {_text(head.removesuffix(':').upper())}"
            yield from _as_it_is(body)
        else:
            yield from (".PP", *_blocks(((kept, text),)))


def _blocks(blocks: tuple[tuple[bool, str], ...]) -> Iterator[str]:
    for number, (kept, text) in enumerate(blocks):
        if number:
            yield ".PP"
        yield from _as_it_is(text) if kept else _lines(text)


def _as_it_is(text: str) -> Iterator[str]:
    yield from (".nf", *(_line(line) for line in text.split("\n") if line.strip()), ".fi")


def _dashed(name: str) -> str:
    return name.replace(" ", "-")


def _upper(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:]


def _lines(text: str) -> list[str]:
    """Return a paragraph in short lines."""
    rows = textwrap.wrap(text, COLUMNS, break_long_words=False, break_on_hyphens=False)
    return [_line(row) for row in rows]


def _line(text: str) -> str:
    """Return a line of text that is no request, whatever it begins with."""
    shown = _text(text)
    return rf"\&{shown}" if shown.startswith((".", "'")) else shown


def _text(text: str) -> str:
    r"""Escape text for roff: a plain - would become a hyphen, which no shell takes for one."""
    shown = text.rstrip().replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"(['`^~])", lambda found: ROFF[found[1]], shown)


ROFF = {"'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}
"""Characters that roff would print as their typographic relatives."""
