"""`numatrace analyze`: read a trace and say what it shows; needs no privileges."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from numatrace.cli.doctor import encodable
from numatrace.model.errors import TraceError, UsageError
from numatrace.model.text import printable
from numatrace.model.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.model.report import Report

LEAST_WIDTH, MOST_WIDTH = 80, 120
"""Columns of a terminal that are used: the tables need the least, text is hard to read in more."""
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
        click.echo(f"wrote {printable(str(output))}: {format_bytes(output.stat().st_size)}")
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


def terminal_width(*, terminal: bool) -> int:
    """Columns of the terminal within the limits; the least where there is none."""
    if not terminal:
        return LEAST_WIDTH
    columns = shutil.get_terminal_size((LEAST_WIDTH, 24)).columns
    return min(max(columns, LEAST_WIDTH), MOST_WIDTH)


def check_output(output: Path, trace: Path, *, force: bool, option: str = "-o") -> None:
    """Raise UsageError unless a report may be written there; never over the trace itself.

    `option` is the one that named it.
    """
    what = f"cannot write {output}"
    if not output.parent.is_dir():
        raise UsageError(
            what, f"there is no folder {output.parent}", f"create it or choose another {option}"
        )
    if output.exists() and trace.exists() and output.samefile(trace):
        raise UsageError(what, "it is the trace that is to be analyzed", f"choose another {option}")
    if output.is_symlink() or (output.exists() and not output.is_file()):
        raise UsageError(
            what, "it is a link, a folder or a device", f"choose another file with {option}"
        )
    if output.exists() and not force:
        again = f"--force {option} {shlex.quote(str(output))}"
        todo = f"choose another {option} FILE, or overwrite: {again}"
        raise UsageError(what, "it exists already", todo)


def write_output(output: Path, text: str, *, force: bool, mode: int = 0o644) -> None:
    """Write a report, its mode less the umask; a failure leaves what was there before.

    Raises UsageError when the file has come to exist meanwhile (without `force`), TraceError when
    the system refuses.
    """
    place = output.with_name(f".{output.name}.{os.getpid()}") if force else output
    try:
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError as error:
        todo = "choose another -o FILE, or use --force"
        raise UsageError(f"cannot write {place}", "it exists already", todo) from error
    except OSError as error:
        raise _disk_error(output, error) from error
    try:
        with os.fdopen(fd, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        place.replace(output)
    except OSError as error:
        place.unlink(missing_ok=True)
        raise _disk_error(output, error) from error


def _disk_error(output: Path, error: OSError) -> TraceError:
    why = error.strerror or str(error)
    return TraceError(f"cannot write {output}", why, "choose another place with -o")


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
