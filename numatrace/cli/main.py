"""The `numatrace` command: finds the verb, and prints every error in one way."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from numatrace import __version__
from numatrace.model.errors import NumatraceError
from numatrace.model.text import printable

COMMANDS = {
    "record": "Record a running server, or a command, into a trace file.",
    "analyze": "Say which threads wait on remote memory, why, and what ends it.",
    "watch": "Look at a running server live: threads, nodes, remote share.",
    "compare": "Say what changed between two recordings, and if the fix worked.",
    "export": "Write a trace for Perfetto, polars, duckdb, jq or a spreadsheet.",
    "doctor": "Say what works on this machine, and what to do about the rest.",
    "guide": "Show a page of the guide.",
    "completion": "Print the script that completes words in bash, zsh or fish.",
}
"""Each verb lives in the module of its name, imported when it is called: `--help` is quick."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What writing to a full or broken disk gives, without a file's name for standard output."""

EPILOG = """\b
Examples:
  sudo numatrace record -p $(pidof llama-server) -d 30
  numatrace analyze trace.arrow
  numatrace compare before.arrow after.arrow
  numatrace doctor
"""


class Verbs(click.Group):
    """A group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order in which a user needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb's module."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"numatrace.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Verbs, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="numatrace")
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Find out which threads of a language-model server wait on remote memory, and end it."""
    ctx.obj = {"debug": debug}


def main(argv: list[str] | None = None) -> None:
    """Entry point. Exit status: 0 done, 1 failed, 2 wrong call, 130 interrupted, or the verb's."""
    sys.exit(_flushed(run(sys.argv[1:] if argv is None else argv)))


def _flushed(status: int) -> int:
    """Write what is left for standard output; what cannot be written is dropped, and told once.

    Else Python would try again on its way out, say so in its own words, and end with 120.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        if not status and not isinstance(error, BrokenPipeError):
            _show(_unwritten(error))
        return status or 1
    return status


def run(argv: list[str]) -> int:
    """Run one call and return its exit status."""
    debug = "--debug" in argv
    try:
        result: Any = cli.main(argv, prog_name="numatrace", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except NumatraceError as error:
        _show(error, debug=debug)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away: nothing to say, nobody to tell
        return 1
    except Exception as error:
        _show(_unforeseen(error), debug=debug)
        return 1
    return result if isinstance(result, int) else 0


def _unforeseen(error: Exception) -> NumatraceError:
    """What to say of an error that no verb expected: that it is ours, but for a full disk."""
    if isinstance(error, OSError) and error.errno in NO_ROOM and error.filename is None:
        return _unwritten(error)
    why = f"{type(error).__name__}: {error}"
    wrapped = NumatraceError(
        "an error in numatrace itself", why, "run it with --debug and report it"
    )
    wrapped.__cause__ = error
    return wrapped


def _unwritten(error: OSError) -> NumatraceError:
    """What to say of standard output that takes no more."""
    why = error.strerror or str(error)
    return NumatraceError("cannot write to standard output", why, "make room, or choose -o FILE")


def _show(error: NumatraceError, *, debug: bool = False) -> None:
    if debug:
        traceback.print_exception(error)
    click.echo(f"numatrace: {printable(error.what)}", err=True)
    click.echo(f"  why: {printable(error.why)}", err=True)
    click.echo(f"  do:  {printable(error.todo)}", err=True)
