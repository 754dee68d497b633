"""`numatrace analyze`: read a trace and say what it shows; needs no privileges."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from numatrace.cli import shared
from numatrace.cli.output import (
    check_output,
    encodable,
    look,
    write_output,
    wrote,
)
from numatrace.model.errors import UsageError
from numatrace.model.measured import PHASES
from numatrace.model.text import printable
from numatrace.model.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.model.report import Report
    from numatrace.render.options import By

PATIENCE_S = 1.0
"""Analysis that takes longer says that it is at work."""

EPILOG = """\b
Exit status: 0 when the trace was analyzed, whatever it shows; 1 when that
failed, or when there is no fix for --fix-script; 2 for a wrong call.

\b
Examples:
  numatrace analyze                            the trace.arrow in this folder
  numatrace analyze slow.arrow --top 40        more rows in every list
  numatrace analyze slow.arrow --by layer      one table: every layer
  numatrace analyze slow.arrow --phase decode  CPU time and reads of that
  numatrace analyze slow.arrow --tensors       every tensor of the model, too
  numatrace analyze slow.arrow -o report.txt
  numatrace analyze slow.arrow --html report.html
  numatrace analyze slow.arrow --fix-script fix.sh && ./fix.sh --check
  numatrace analyze slow.arrow --json | jq .verdict

The fields of --json: numatrace guide json
"""


def complete_format(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of formats that begin so, for the shell."""
    from numatrace.cli.plugins import formats

    return [name for name in formats() if name.startswith(incomplete)]


@click.command(epilog=EPILOG)
@click.argument("trace", type=click.Path(path_type=Path), default=Path("trace.arrow"))
@click.option("--json", "as_json", is_flag=True, help="Print all of it as one JSON document.")
@click.option(
    "--format",
    "format_name",
    metavar="NAME",
    shell_complete=complete_format,
    help="text (the default), json, html, or a format of another package.",
)
@click.option("--no-plugins", is_flag=True, help="Leave out causes and formats of other packages.")
@shared.output("Write the report to a file instead.")
@click.option(
    "--fix-script",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write the first fix as a shell script, to look at and to run.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write the report as one HTML page, for a browser; it needs no network.",
)
@click.option("--force", is_flag=True, help="Overwrite the files that are written.")
@click.option(
    "--top",
    type=click.IntRange(1),
    metavar="N",
    help="Rows of every list; 10 by default, and all tensors.",
)
@click.option("--tensors", is_flag=True, help="List tensors, too, not only layers.")
@click.option(
    "--by",
    type=click.Choice(["thread", "slot", "layer", "tensor", "node", "phase"]),
    help="Show the verdict and one table, of these; of the text only.",
)
@click.option(
    "--phase",
    type=click.Choice(PHASES),
    help="Restrict CPU time and reads to one phase; verdict and fix stay those of the whole.",
)
@click.option(
    "--pid", type=click.IntRange(1), metavar="PID", help="Judge this process, and show no other."
)
@shared.width
def analyze(
    trace: Path,
    as_json: bool,
    format_name: str | None,
    no_plugins: bool,
    output: Path | None,
    fix_script: Path | None,
    html: Path | None,
    force: bool,
    top: int | None,
    tensors: bool,
    by: By | None,
    phase: str | None,
    pid: int | None,
    width: int | None,
) -> int:
    """Say which threads wait on remote memory, why, and what ends it.

    TRACE is a file that numatrace record wrote, trace.arrow by default. It is read on any machine,
    and nothing is changed.
    """
    from numatrace.cli import plugins

    check_outputs(trace, {"-o": output, "--fix-script": fix_script, "--html": html}, force=force)
    name = format_of(as_json, format_name)
    render, ours = plugins.renderer(name, others=not no_plugins)
    report = read_report(trace, others=not no_plugins, pid=pid, phase=phase)
    options = look(output, width, top=top, tensors=tensors, by=by)
    text = render(report, options)
    if output is None:
        text = text if ours or not sys.stdout.isatty() else plugins.without_controls(text)
        click.echo(encodable(text), nl=False, color=options.colour)
    else:
        write_output(output, text, force=force)
        wrote(output)
    if html is not None:
        write_page(html, report, force=force)
    if fix_script is not None:
        write_script(fix_script, report, force=force)
    return 0


def check_outputs(trace: Path, places: dict[str, Path | None], *, force: bool) -> None:
    """Raise UsageError unless all files, by option, may be written: each another one."""
    taken: dict[Path, str] = {}
    for option, place in places.items():
        if place is None:
            continue
        check_output(place, trace, force=force, option=option)
        if place in taken:
            what, why = f"cannot write {place}", f"both {taken[place]} and {option} name it"
            raise UsageError(what, why, "choose another file for one of them")
        taken[place] = option


def write_page(place: Path, report: Report, *, force: bool) -> None:
    """Write the report as an HTML page; what is said of it goes to standard error."""
    from numatrace.render import RENDERERS, RenderOptions

    write_output(place, RENDERERS["html"](report, RenderOptions()), force=force)
    click.echo(f"wrote {printable(str(place))}: open it in a browser", err=True)


def write_script(place: Path, report: Report, *, force: bool) -> None:
    """Write the report's first fix as a script that only its owner may run or read.

    What is said of it goes to standard error: the report may be on standard output. Raises
    NumatraceError when the report has no fix.
    """
    from numatrace.analyze.fixes.script import script

    write_output(place, script(report), force=force, mode=0o700)
    shown = printable(str(place))
    click.echo(f"wrote {shown}: look at it, then run it with --check", err=True)


def format_of(as_json: bool, format_name: str | None) -> str:
    """Return the name of the format that was asked for. Raises UsageError for two of them."""
    if as_json and format_name not in (None, "json"):
        what, why = "two formats", f"--json and --format {format_name} cannot both be printed"
        raise UsageError(what, why, "leave out one of them")
    return format_name or ("json" if as_json else "text")


def read_report(
    path: Path, *, others: bool = False, pid: int | None = None, phase: str | None = None
) -> Report:
    """Analyze a trace. Raises TraceError where it cannot be read at all.

    With `others`, causes of other packages are judged, too; one that fails is told of. With `pid`
    or `phase` the report is of that only; UsageError where the trace has no such one.
    """
    # Arrow takes a third of a second to import: a wrong call should be told at once.
    from numatrace.analyze import Narrow, analyze_trace
    from numatrace.cli.plugins import Causes, causes, silenced
    from numatrace.trace.reader import Trace

    with Trace.open(path) as trace:
        about = f"analyzing {printable(path.name, 30)}, {format_bytes(trace.size_bytes)}"
        known = causes() if others else Causes()
        with _busy_line(about), silenced():
            report = analyze_trace(trace, known.taken, Narrow(pid, phase))
    for problem in known.all_problems():
        click.echo(f"numatrace: left out: {problem}", err=True)
    return report


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
