"""`numatrace doctor`: what works on this machine, and what to do about the rest."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from numatrace import __version__
from numatrace.cli.output import encodable
from numatrace.model.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.record.checks.capability import Capability

WIDTH = 79
INDENT = 7
"""Columns before the text that explains a check."""
TITLE_WIDTH = 22

MARKS = {"yes": "✓", "no": "✗", "degraded": "~"}
PLAIN_MARKS = {"yes": "yes", "no": "NO", "degraded": "part"}
COLOURS = {"yes": "green", "no": "red", "degraded": "yellow"}

EPILOG = """\b
Exit status: 0 when recording works here, 1 when it does not.

\b
Examples:
  sudo numatrace doctor            everything, each probe tried
  numatrace doctor                 what can be found out without root
  sudo numatrace doctor --json     the same for a program or a bug report
"""


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Say what works on this machine, and what to do about the rest.

    Looks for everything that a recording needs and fires at each probe with something whose
    outcome is known, such as 1,000 fresh pages. Mounts tracefs when it is not mounted. Takes three
    seconds.
    """
    from numatrace.record.capabilities import examine, recording_works

    found = examine()
    works = recording_works(found)
    found.append(check_plugins())
    color = False if os.environ.get("NO_COLOR") else None
    text = document(found, works) if as_json else "\n".join(lines(found, works))
    click.echo(encodable(text), color=color)
    ctx.exit(0 if works else 1)


def check_plugins() -> Capability:
    """Whether all causes and renderers of other packages can be used; imports them."""
    from numatrace.cli.plugins import described_plugins
    from numatrace.record.checks.capability import Capability, one_line

    known = list(described_plugins())
    good = [name for name, problem in known if not problem]
    bad = [f"{name}: {problem}" for name, problem in known if problem]
    value = one_line(f"{len(good)}: {', '.join(good)}" if good else "none" if not bad else "0")
    if not bad:
        return Capability("plugins", "plugins", "yes", value)
    return Capability(
        "plugins",
        "plugins",
        "degraded",
        value,
        lost="nothing of a recording; analysis goes without the causes and formats that fail",
        why=one_line("; ".join(bad), 100 * len(bad)),
        todo="Update or remove the packages named here",
    )


def document(found: list[Capability], works: bool) -> str:
    """Return what was found as JSON: `recording_works`, `verdict` and the `checks`.

    `todo` of a check is a command where `todo_is_command`, else a step in words; both are those of
    the `distribution`.
    """
    return json.dumps(
        {
            "numatrace": __version__,
            "distribution": _distribution(),
            "recording_works": works,
            "verdict": verdict(found, works),
            "checks": [asdict(one) | {"todo_is_command": one.todo_is_command} for one in found],
        },
        indent=2,
    )


def lines(found: list[Capability], works: bool) -> Iterator[str]:
    """Yield the report line by line: a line for each check, and the reasons below a no."""
    marks = MARKS if utf8_terminal() else PLAIN_MARKS
    yield from _wrapped(
        f"numatrace {__version__}: what works on this machine ({_distribution()})", WIDTH
    )
    yield ""
    shown: set[str] = set()
    for one in found:
        yield from _headline(one, marks)
        if one.state != "yes":
            yield from _reasons(one, repeated=one.todo in shown)
        shown.add(one.todo)
    yield ""
    yield from textwrap.wrap(verdict(found, works), WIDTH)


def _distribution() -> str:
    from numatrace.record.machine.distribution import read_distribution

    return read_distribution().name


def _headline(one: Capability, marks: dict[str, str]) -> Iterator[str]:
    mark = f"{marks[one.state]:<5}"
    title = f"{printable(one.title):<{TITLE_WIDTH}}"
    first, *rest = _wrapped(one.value, WIDTH - INDENT - TITLE_WIDTH - 1) or [""]
    yield f"  {click.style(mark, fg=COLOURS[one.state])}{title} {first}".rstrip()
    for line in rest:
        yield " " * (INDENT + TITLE_WIDTH + 1) + line


def _reasons(one: Capability, *, repeated: bool) -> Iterator[str]:
    """Yield what is lost, why and what to do; only why, where the same was to do above."""
    yield from _labelled("why", _wrapped(one.why, WIDTH - INDENT - 6))
    if repeated:
        return
    yield from _labelled("lost", _wrapped(one.lost, WIDTH - INDENT - 6))
    wrap = command_lines if one.todo_is_command else _wrapped
    yield from _labelled("do", wrap(one.todo, WIDTH - INDENT - 6))


def _labelled(label: str, rows: list[str]) -> Iterator[str]:
    for index, row in enumerate(rows):
        yield f"{'':<{INDENT}}{label + ':' if index == 0 else '':<6}{row}"


def _wrapped(text: str, width: int) -> list[str]:
    """Wrap at spaces only: a path or a word that is longer than the line stays whole."""
    return textwrap.wrap(printable(text), width, break_long_words=False, break_on_hyphens=False)


def command_lines(command: str, width: int) -> list[str]:
    r"""Wrap a shell command between its words, with backslashes, so that it can be pasted.

    A word longer than the line stays whole.
    """
    words = re.findall(r"""(?:[^\s'"\\]|'[^']*'|"(?:\\.|[^"\\])*"|\\.|['"\\])+""", command)
    rows = [""]
    for word in words:
        if rows[-1] and len(rows[-1]) + 1 + len(word) > width - 2:
            rows[-1] += " \\"
            rows.append("  " + word)
        else:
            rows[-1] += f" {word}" if rows[-1] else word
    return [printable(row) for row in rows]


def verdict(found: list[Capability], works: bool) -> str:
    """Return the one sentence to which it all comes down."""
    if not works:
        first = next(one for one in found if one.state == "no")
        return f"recording does not work here; first to mend: {first.title}"
    limits = [one.title for one in found if one.state == "degraded"]
    words = "recording works here"
    if limits:
        words += f"; limited: {', '.join(limits)}"
    one_node = any(one.id == "nodes" and one.value.startswith("1,") for one in found)
    return words + ("; one node, so nothing is remote" if one_node else "")


def utf8_terminal() -> bool:
    """Return whether output goes to a terminal that shows UTF-8.

    The locale is asked and not Python, which writes UTF-8 even in the C locale (PEP 538, 540).
    """
    names = [os.environ.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG")]
    if names[1] == "C.UTF-8" and not names[0]:
        names[1] = ""  # Python itself may have set it
    locale = next((name for name in names if name), "")
    return sys.stdout.isatty() and re.search(r"utf-?8", locale, re.IGNORECASE) is not None
