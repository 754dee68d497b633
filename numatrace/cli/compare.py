"""`numatrace compare`: two recordings, and whether the second is better; needs no privileges."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from numatrace.cli import shared
from numatrace.cli.analyze import read_report
from numatrace.cli.output import (
    check_output,
    encodable,
    look,
    write_output,
    wrote,
)
from numatrace.model.text import printable

if TYPE_CHECKING:
    from numatrace.model.comparison import Comparison, Outcome

WORSE, CANNOT_TELL = 3, 4
STATUS: dict[Outcome, int] = {
    "as-predicted": 0,
    "better": 0,
    "same": 0,
    "not-as-predicted": WORSE,
    "worse": WORSE,
    "above-limit": WORSE,
    "cannot-tell": CANNOT_TELL,
}
"""Exit status of every outcome."""

EPILOG = """\b
Exit status:
  0  as the report of BEFORE predicted of its fix, or better, or no
     difference where no fix was to make one
  1  failed: a trace cannot be read, the output cannot be written
  2  a wrong call
  3  worse; or the fix that BEFORE's report gives made no difference; or the
     remote share of AFTER is above --max-remote
  4  cannot tell: a report without a verdict, or recordings of two machines
     or of two models

\b
Examples:
  numatrace compare before.arrow after.arrow
  numatrace compare before.arrow after.arrow --json | jq .outcome
  numatrace compare before.arrow after.arrow --max-remote 0.05 || undo-it
  numatrace compare before.arrow after.arrow -o comparison.txt

How changes are worked out, the fields of --json: numatrace guide compare
"""


@click.command(epilog=EPILOG)
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option(
    "--max-remote",
    type=click.FloatRange(0.0, 1.0),
    metavar="SHARE",
    help="Fail (3) when more than SHARE (0 to 1) of AFTER's weight reads are remote.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all of it as one JSON document.")
@shared.output("Write the comparison to a file instead.")
@click.option("--force", is_flag=True, help="Overwrite the output.")
@click.option("--top", type=click.IntRange(1), metavar="N", help="Rows of every list.")
@shared.width
def compare(
    before: Path,
    after: Path,
    max_remote: float | None,
    as_json: bool,
    output: Path | None,
    force: bool,
    top: int | None,
    width: int | None,
) -> int:
    """Say what changed between two recordings, and whether the fix did what was predicted.

    BEFORE and AFTER are files that numatrace record wrote, of one server with one model on one
    machine. The exit status is for scripts: see below.
    """
    if output is not None:
        check_output(output, before, force=force)
        check_output(output, after, force=force)
    found = _compare(before, after, max_remote)
    _put(found, as_json, output, force, top, width)
    return STATUS[found.outcome]


def _compare(before: Path, after: Path, max_remote: float | None) -> Comparison:
    from numatrace.analyze.compare import compare as compare_reports

    return compare_reports(read_report(before), read_report(after), max_remote)


def _put(
    found: Comparison,
    as_json: bool,
    output: Path | None,
    force: bool,
    top: int | None,
    width: int | None,
) -> None:
    """Print the comparison, or write it to a file and say what it says."""
    from numatrace.render.compare import comparison_json, comparison_text

    options = look(output, width, top=top)
    text = comparison_json(found) if as_json else comparison_text(found, options)
    if output is None:
        click.echo(encodable(text), nl=False, color=options.colour)
        return
    write_output(output, text, force=force)
    click.echo(printable(found.sentence))
    wrote(output)
