"""The live view's page of help."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from numatrace.render.layout import wrap

if TYPE_CHECKING:
    from collections.abc import Sequence

KEYS = (
    ("s, arrows", "sort by the next or previous column"),
    ("p, space", "hold the display; counting goes on"),
    ("r", "begin or end writing a trace for `numatrace analyze`"),
    ("q, Ctrl-C", "quit; a trace that is being written is completed"),
)
MEANINGS = (
    ("RAN ON", "node numbers: where the thread ran in the last interval"),
    ("REMOTE", "part of its time in memory that went to other nodes, from samples of the"
     " last 10 s; `few`: too few to say; `-`: none"),
    ("slot", "a place in a pool whose threads are made anew"),
    ("MEMORY", "pages of the followed processes on the node"),
    ("lost", "events that were counted and could not be kept"),
)  # fmt: skip
LABEL = 11


def help_lines(notes: Sequence[str], width: int) -> list[Text]:
    """Return the help, and what is not seen on this machine."""
    lines = [Text("numatrace watch: h goes back", "bold"), Text()]
    for label, text in KEYS:
        lines += _entry(label, text, width)
    lines.append(Text())
    for label, text in MEANINGS:
        lines += _entry(label, text, width)
    if notes:
        lines += [Text(), Text("Not seen here", "bold")]
        lines += [Text(part) for note in notes for part in wrap(note, width)]
    return lines


def _entry(label: str, text: str, width: int) -> list[Text]:
    parts = wrap(text, width - LABEL)
    names = [label, *[""] * (len(parts) - 1)]
    return [
        Text.assemble((f"{name:<{LABEL}}", "bold"), part)
        for name, part in zip(names, parts, strict=True)
    ]
