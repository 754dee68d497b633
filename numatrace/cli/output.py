"""Where a verb's text goes: a terminal of some width, or a file that nothing is lost for."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from numatrace.model.errors import TraceError, UsageError
from numatrace.model.text import printable
from numatrace.model.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numatrace.render import RenderOptions

LEAST_WIDTH, MOST_WIDTH = 80, 120
"""Columns of a terminal that are used: the tables need the least, text is hard to read in more."""


def terminal_width(*, terminal: bool) -> int:
    """Columns of the terminal within the limits; the least where there is none."""
    if not terminal:
        return LEAST_WIDTH
    columns = shutil.get_terminal_size((LEAST_WIDTH, 24)).columns
    return min(max(columns, LEAST_WIDTH), MOST_WIDTH)


def look(output: Path | None, width: int | None, **more: Any) -> RenderOptions:
    """Return how a text is to look where it goes; `more` options as in RenderOptions."""
    from numatrace.render import RenderOptions

    terminal = output is None and sys.stdout.isatty()
    return RenderOptions(
        width=width or terminal_width(terminal=terminal),
        colour=terminal and not os.environ.get("NO_COLOR"),
        height=terminal_height() if terminal else None,
        ascii=output is None and not shows_blocks(),
        **more,
    )


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
    place = beside(output) if force else output
    try:
        with replacing(output, place, mode, "choose another place with -o") as stream:
            stream.write(text.encode())
    except TraceError as error:
        if not isinstance(error.__cause__, FileExistsError):
            raise
        todo = "choose another -o FILE, or use --force"
        raise UsageError(f"cannot write {place}", "it exists already", todo) from error


def beside(output: Path) -> Path:
    """Return the name of a file that is to take the place of another one."""
    return output.with_name(f".{output.name}.{os.getpid()}")


@contextmanager
def replacing(output: Path, place: Path, mode: int, todo: str) -> Iterator[BinaryIO]:
    """Write a new file, which gets the name of `output` at the end; a failure leaves nothing of it.

    Raises TraceError with this `todo` when the system refuses, or has such a file.
    """
    try:
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as error:
        raise unwritable(output, error, todo) from error
    try:
        with os.fdopen(fd, "wb") as stream:
            yield stream
        place.replace(output)
    except OSError as error:
        place.unlink(missing_ok=True)
        raise unwritable(output, error, todo) from error
    except BaseException:
        place.unlink(missing_ok=True)
        raise


def unwritable(output: Path | str, error: OSError, todo: str) -> TraceError:
    """What to say of an output that the system refuses."""
    return TraceError(f"cannot write {output}", error.strerror or str(error), todo)


def wrote(output: Path) -> None:
    """Say that a file was written."""
    click.echo(f"wrote {printable(str(output))}: {format_bytes(output.stat().st_size)}")


def encodable(text: str) -> str:
    """Return the text with what the output's encoding lacks replaced by question marks."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return text.encode(encoding, "replace").decode(encoding, "replace")
