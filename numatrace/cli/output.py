"""Where a verb's text goes: a terminal of some width, or a file that nothing is lost for."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from typing import TYPE_CHECKING

import click

from numatrace.model.errors import TraceError, UsageError
from numatrace.model.text import printable
from numatrace.model.units import format_bytes

if TYPE_CHECKING:
    from pathlib import Path

LEAST_WIDTH, MOST_WIDTH = 80, 120
"""Columns of a terminal that are used: the tables need the least, text is hard to read in more."""


def terminal_width(*, terminal: bool) -> int:
    """Columns of the terminal within the limits; the least where there is none."""
    if not terminal:
        return LEAST_WIDTH
    columns = shutil.get_terminal_size((LEAST_WIDTH, 24)).columns
    return min(max(columns, LEAST_WIDTH), MOST_WIDTH)


def terminal_height() -> int:
    """Lines of the terminal."""
    return shutil.get_terminal_size((LEAST_WIDTH, 24)).lines


def shows_blocks() -> bool:
    """Whether the encoding of standard output has the characters that bars are made of."""
    return encodable("█▏▁·") == "█▏▁·"


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


def wrote(output: Path) -> None:
    """Say that a file was written."""
    click.echo(f"wrote {printable(str(output))}: {format_bytes(output.stat().st_size)}")


def encodable(text: str) -> str:
    """Return the text with what the output's encoding lacks replaced by question marks."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return text.encode(encoding, "replace").decode(encoding, "replace")
