"""The page `numatrace guide commands`: every command with its options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference.verbs import verbs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reference.verbs import Verb


def commands_page() -> str:
    """Return the page, from the commands themselves."""
    lines = [
        "# Commands and options",
        "",
        "<!-- Generated from numatrace/cli by scripts/gen-reference: do not edit. -->",
        "",
        "What `--help` says of each command. The same is in the man pages, such as "
        "`man numatrace-record`.",
    ]
    every = list(verbs())
    lines += ["", "| command | what it does |", "|---|---|"]
    lines += [f"| `{verb.name}` | {_cell(verb.about)} |" for verb in every[1:]]
    for verb in every:
        lines += ["", *_section(verb)]
    return "\n".join(lines) + "\n"


def _section(verb: Verb) -> Iterator[str]:
    yield f"## {verb.name}"
    yield from ("", f"    {verb.usage}")
    yield from _texts(verb.help)
    yield from ("", "| option | meaning |", "|---|---|")
    for spelling, meaning in verb.options:
        yield f"| `{_cell(spelling)}` | {_cell(meaning)} |"
    yield from _texts(verb.epilog)


def _texts(blocks: tuple[tuple[bool, str], ...]) -> Iterator[str]:
    for kept, text in blocks:
        head, _, body = text.partition("\n")
        if kept and head.endswith(":"):
            yield from ("", head, "", *(f"    {line}".rstrip() for line in body.split("\n")))
        elif kept:
            yield from ("", " ".join(text.split()))
        else:
            yield from ("", text)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
