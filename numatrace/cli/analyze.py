"""`numatrace analyze`: read a trace and say what it shows; needs no privileges."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from numatrace.cli.output import (
    LEAST_WIDTH,
    check_output,
    encodable,
    terminal_width,
    write_output,
    wrote,
)
from numatrace.model.errors import UsageError
from numatrace.model.text import printable
from numatrace.model.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.model.report import Report

PATIENCE_S = 1.0
"""Analysis that takes longer says that it is at work."""

EPILOG = """\b
Exit status: 0 when the trace was analyzed, whatever it shows; 1 when that
failed, or when there is no fix for --fix-script; 2 for a wrong call.

\b
Examples:
  numatrace analyze                            the trace.arrow in this folder
  numatrace analyze slow.arrow --top 40        more rows in every list
  numatrace analyze slow.arrow --tensors       every tensor of the model, too
  numatrace analyze slow.arrow -o report.txt
  numatrace analyze slow.arrow --fix-script fix.sh && ./fix.sh --check
  numatrace analyze slow.arrow --json | jq .verdict

The fields of --json: numatrace guide json
"""


@click.command(epilog=EPILOG)
@click.argument("trace", type=click.Path(path_type=Path), default=Path("trace.arrow"))
@click.option("--json", "as_json", is_flag=True, help="Print all of it as one JSON document.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the report to a file instead.",
)
@click.option(
    "--fix-script",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write the first fix as a shell script, to look at and to run.",
)
@click.option("--force", is_flag=True, help="Overwrite the output and the fix script.")
@click.option(
    "--top",
    type=click.IntRange(1),
    metavar="N",
    help="Rows of every list; 10 by default, and all tensors.",
)
@click.option("--tensors", is_flag=True, help="List tensors, too, not only layers.")
@click.option(
    "--width",
    type=click.IntRange(LEAST_WIDTH, 1000),
    metavar="COLUMNS",
    help="Width of the text; by default the terminal's, 80 to 120.",
)
def analyze(
    trace: Path,
    as_json: bool,
    output: Path | None,
    fix_script: Path | None,
    force: bool,
    top: int | None,
    tensors: bool,
    width: int | None,
) -> int:
    """Say which threads wait on remote memory, why, and what ends it.

    TRACE is a file that numatrace record wrote, trace.arrow by default. It is read on any machine,
    and nothing is changed.
    """
    from numatrace.render import RENDERERS, RenderOptions

    for place, name in ((output, "-o"), (fix_script, "--fix-script")):
        if place is not None:
            check_output(place, trace, force=force, option=name)
    if output is not None and output == fix_script:
        what, why = f"cannot write {output}", "both the report and the script are to go there"
        raise UsageError(what, why, "choose another file for one of them")
    report = read_report(trace)
    terminal = output is None and sys.stdout.isatty()
    options = RenderOptions(
        width=width or terminal_width(terminal=terminal),
        top=top,
        tensors=tensors,
        colour=terminal and not os.environ.get("NO_COLOR"),
    )
    text = RENDERERS["json" if as_json else "text"](report, options)
    if output is None:
        click.echo(encodable(text), nl=False, color=options.colour)
    else:
        write_output(output, text, force=force)
        wrote(output)
    if fix_script is not None:
        write_script(fix_script, report, force=force)
    return 0


def write_script(place: Path, report: Report, *, force: bool) -> None:
    """Write the report's first fix as a script that only its owner may run or read.

    What is said of it goes to standard error: the report may be on standard output. Raises
    NumatraceError when the report has no fix.
    """
    from numatrace.analyze.fixes.script import script

    write_output(place, script(report), force=force, mode=0o700)
    shown = printable(str(place))
    click.echo(f"wrote {shown}: look at it, then run it with --check", err=True)


def read_report(path: Path) -> Report:
    """Analyze a trace. Raises TraceError where it cannot be read at all."""
    # Arrow takes a third of a second to import: a wrong call should be told at once.
    from numatrace.analyze import analyze_trace
    from numatrace.trace.reader import Trace

    with Trace.open(path) as trace:
        about = f"analyzing {printable(path.name, 30)}, {format_bytes(trace.size_bytes)}"
        with _busy_line(about):
            return analyze_trace(trace)


@contextmanager
def _busy_line(text: str) -> Iterator[None]:
    """Show on a terminal what is being done and for how long, once it takes PATIENCE_S."""
    if not sys.stderr.isatty():
        yield
        return
    done, started = threading.Event(), time.monotonic()

    def show() -> None:
        while not done.wait(PATIENCE_S):
            passed_s = time.monotonic() - started
            click.echo(f"\r\x1b[K{text}: {passed_s:.0f} s", err=True, nl=False)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if time.monotonic() - started >= PATIENCE_S:
            click.echo("\r\x1b[K", err=True, nl=False)
