"""What click knows of every command, as plain text for the page and the man pages."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from numatrace.cli.main import COMMANDS, cli

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Verb:
    """A command. Blocks of `help` and `epilog` are (whether to keep the lines, text)."""

    name: str
    """All words that call it."""
    about: str
    """Its one line in the list of commands."""
    usage: str
    help: tuple[tuple[bool, str], ...]
    options: tuple[tuple[str, str], ...]
    """Spelling with its value, and meaning."""
    epilog: tuple[tuple[bool, str], ...]


def verbs() -> Iterator[Verb]:
    """Yield numatrace itself, then every verb in the order of its help."""
    context = click.Context(cli, info_name="numatrace")
    yield _verb(cli, context, (cli.help or "").strip().splitlines()[0])
    for name, about in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None, name
        yield _verb(command, click.Context(command, context, info_name=name), about)


def _verb(command: click.Command, context: click.Context, about: str) -> Verb:
    pieces = command.collect_usage_pieces(context)
    options = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    records = [record for each in options if (record := each.get_help_record(context))]
    return Verb(
        name=context.command_path,
        about=about,
        usage=" ".join([context.command_path, *pieces]),
        help=_blocks(command.help),
        options=tuple((spelling, " ".join(meaning.split())) for spelling, meaning in records),
        epilog=_blocks(command.epilog),
    )


def _blocks(text: str | None) -> tuple[tuple[bool, str], ...]:
    r"""Split help into its paragraphs; one that click must not wrap begins with \b on a line."""
    blocks = []
    for block in inspect.cleandoc(text or "").split("\n\n"):
        kept = block.startswith("\b\n")
        body = block.removeprefix("\b\n") if kept else " ".join(block.split())
        head, _, rest = body.partition("\n")
        if kept and head.endswith(":"):
            body = f"{head}\n{textwrap.dedent(rest)}"
        if body:
            blocks.append((kept, body))
    return tuple(blocks)
