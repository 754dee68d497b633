"""`numatrace guide`: the pages that ship with the package."""

from __future__ import annotations

import sys
from importlib import resources

import click

from numatrace.model.errors import UsageError

EPILOG = """\b
Examples:
  numatrace guide            list the pages
  numatrace guide trace      the columns and rows of a trace file
"""


def complete_topic(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of pages that begin so, for the shell."""
    return [name for name in _pages() if name.startswith(incomplete)]


@click.command(epilog=EPILOG)
@click.argument("topic", required=False, shell_complete=complete_topic)
def guide(topic: str | None) -> None:
    """Show a page of the guide, or list the pages."""
    pages = _pages()
    if topic is None:
        for name, title in pages.items():
            click.echo(f"{name:<12} {title}")
        return
    if topic not in pages:
        raise UsageError(f"no page {topic!r}", f"there are: {', '.join(pages)}", "numatrace guide")
    text = resources.files("numatrace").joinpath("guide", f"{topic}.md").read_text("utf-8")
    show = click.echo_via_pager if sys.stdout.isatty() else click.echo
    show(text)


def _pages() -> dict[str, str]:
    """Name and first heading of every page."""
    folder = resources.files("numatrace").joinpath("guide")
    pages = sorted(page.name for page in folder.iterdir() if page.name.endswith(".md"))
    return {
        name.removesuffix(".md"): folder.joinpath(name)
        .read_text("utf-8")
        .split("\n", 1)[0]
        .lstrip("# ")
        for name in pages
    }
