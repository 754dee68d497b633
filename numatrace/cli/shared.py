"""Options that more than one command has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from numatrace.cli.output import LEAST_WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable

    Verb = TypeVar("Verb", bound=Callable[..., object])

pids = click.option(
    "-p",
    "--pid",
    "pids",
    type=click.IntRange(1),
    multiple=True,
    help="Process to follow; repeatable.",
)
no_follow = click.option("--no-follow", is_flag=True, help="Leave child processes alone.")
width = click.option(
    "--width",
    type=click.IntRange(LEAST_WIDTH, 1000),
    metavar="COLUMNS",
    help="Width of the text; by default the terminal's, 80 to 120.",
)


def trace_output(text: str) -> Callable[[Verb], Verb]:
    """Return -o for a trace that is written."""
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        default=Path("trace.arrow"),
        metavar="FILE",
        show_default=True,
        help=text,
    )


def output(text: str) -> Callable[[Verb], Verb]:
    """Return -o for what is printed otherwise."""
    path = click.Path(path_type=Path)
    return click.option("-o", "--output", type=path, metavar="FILE", help=text)


def max_overhead(percent: float, what: str) -> Callable[[Verb], Verb]:
    """Return --max-overhead with this default."""
    return click.option(
        "--max-overhead",
        "max_overhead_percent",
        type=click.FloatRange(0.1, 50),
        default=percent,
        metavar="PERCENT",
        show_default=True,
        help=f"What {what} may cost, of the CPU time that the server uses.",
    )
