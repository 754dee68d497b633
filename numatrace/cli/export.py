"""`numatrace export`: a trace for other tools, and the schemas of the JSON documents."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from numatrace.cli import shared
from numatrace.cli.output import beside, check_output, replacing, unwritable
from numatrace.export import FORMATS, format_of
from numatrace.model.errors import UsageError
from numatrace.model.events import EVENTS
from numatrace.model.text import printable
from numatrace.model.units import format_bytes

if TYPE_CHECKING:
    from numatrace.export.write import Exported

STDOUT = Path("-")
PATIENCE_S = 1.0
"""An export that takes longer says how far it is, as often as this."""
TODO = "free some space or choose another -o FILE"
SCHEMAS = ("report", "comparison")

EPILOG = """\b
Exit status: 0 when all that can be read of the trace was exported; 1 when
that failed; 2 for a wrong call.

\b
Examples:
  numatrace export --format perfetto           trace.arrow to trace.pftrace
  numatrace export slow.arrow -o slow.parquet
  numatrace export slow.arrow -o moves.csv --kind move --kind balance
  numatrace export slow.arrow --format jsonl -o - | jq .kind
  numatrace export --schema report             of numatrace analyze --json

What is in each format, and how to open it: numatrace guide export
"""


@click.command(epilog=EPILOG)
@click.argument("trace", type=click.Path(path_type=Path), default=Path("trace.arrow"))
@click.option(
    "--format",
    "format_",
    type=click.Choice(list(FORMATS)),
    help="What to write; by default what the ending of -o FILE says.",
)
@shared.output("Where to; by default beside the trace, and - for standard output.")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice([event.kind for event in EVENTS]),
    multiple=True,
    metavar="KIND",
    help="Only rows of this kind, with its columns; may be given again.",
)
@click.option("--force", is_flag=True, help="Overwrite the output.")
@click.option(
    "--schema",
    type=click.Choice(SCHEMAS),
    help="Print the JSON Schema of analyze --json or compare --json instead.",
)
def export(
    trace: Path,
    format_: str | None,
    output: Path | None,
    kinds: tuple[str, ...],
    force: bool,
    schema: str | None,
) -> int:
    """Write a trace for another tool: Perfetto, Parquet, CSV or JSON lines.

    TRACE is a file that numatrace record wrote, trace.arrow by default; it stays as it is.
    """
    if schema is not None:
        _print_schema(schema)
        return 0
    format_ = format_ or _format_of(output)
    if output == STDOUT:
        _check_stdout(format_)
        _tell(_run_to_stdout(trace, format_, kinds), "standard output", format_)
        return 0
    output = output or trace.with_suffix(FORMATS[format_].suffixes[0])
    check_output(output, trace, force=force)
    place = beside(output)
    # For its owner only, as the trace itself: it has the same names, paths and command lines.
    with replacing(output, place, 0o600, TODO) as stream:
        done = _run(trace, format_, stream, kinds)
        check_output(output, place, force=force)
    _tell(done, printable(str(output)), format_)
    return 0


def _print_schema(name: str) -> None:
    from numatrace.render.json_schema import comparison_schema, report_schema

    schema = report_schema() if name == "report" else comparison_schema()
    click.echo(json.dumps(schema, indent=2))


def _format_of(output: Path | None) -> str:
    """Return the format that a file's ending asks for. Raises UsageError if it asks for none."""
    found = format_of(output) if output is not None else None
    if found is None:
        endings = ", ".join(each.suffixes[0] for each in FORMATS.values())
        why = f"-o {output} does not end in one of {endings}" if output else "no --format is given"
        todo = f"give --format, one of {', '.join(FORMATS)}"
        raise UsageError("cannot tell what to export to", why, todo)
    return found


def _check_stdout(format_: str) -> None:
    """Raise UsageError where a terminal would be sent what it might obey."""
    if sys.stdout.isatty() and not FORMATS[format_].text:
        what = f"cannot write {format_} to a terminal"
        why = "it is binary, or has names from the trace as they are, control characters and all"
        raise UsageError(what, why, "pipe it into a program, choose -o FILE, or --format jsonl")


def _run(trace: Path, format_: str, stream: BinaryIO, kinds: tuple[str, ...]) -> Exported:
    # Arrow takes a third of a second to import: a wrong call should be told at once.
    from numatrace.export.write import export as write
    from numatrace.trace.reader import Trace

    with Trace.open(trace) as opened:
        about = f"exporting {printable(trace.name, 30)}, {format_bytes(opened.size_bytes)}"
        progress = _Progress(about)
        try:
            done = write(opened, format_, stream, kinds, progress.show)
            stream.flush()
        finally:
            progress.clear()
    return done


def _run_to_stdout(trace: Path, format_: str, kinds: tuple[str, ...]) -> Exported:
    try:
        return _run(trace, format_, sys.stdout.buffer, kinds)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unwritable("to standard output", error, TODO) from error


class _Progress:
    """Says on a terminal how far an export is, once it takes PATIENCE_S."""

    def __init__(self, about: str) -> None:
        self._about = about
        self._started = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._dirty = False

    def show(self, rows: int) -> None:
        """Tell the number of rows read."""
        now = time.monotonic()
        if self._terminal and now - self._shown >= PATIENCE_S:
            self._shown, self._dirty = now, True
            passed_s = now - self._started
            text = f"\r\x1b[K{self._about}: {rows:,} rows, {passed_s:.0f} s"
            click.echo(text, err=True, nl=False)

    def clear(self) -> None:
        """Take the line away."""
        if self._dirty:
            click.echo("\r\x1b[K", err=True, nl=False)


def _tell(done: Exported, where: str, format_: str) -> None:
    """Say what was written and what was not; on standard error, as output may be on the other."""
    rows = f"{done.written:,} of {done.rows:,} rows"
    click.echo(f"wrote {where}: {rows}, {format_bytes(done.bytes)}", err=True)
    for problem in done.problems:
        click.echo(f"  missing: {printable(problem)}", err=True)
    if done.nonsense:
        click.echo(f"  left out: {done.nonsense:,} rows that make no sense", err=True)
    if lost := sum(done.lost.values()):
        families = ", ".join(f"{printable(n, 40)} {c:,}" for n, c in done.lost.items() if c)
        click.echo(f"  lost when it was recorded: {lost:,} events ({families})", err=True)
    click.echo(f"  {FORMATS[format_].opens}: numatrace guide export", err=True)
