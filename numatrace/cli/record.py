"""`numatrace record`: follow a running server, or start a command, and write a trace."""

from __future__ import annotations

import json
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from numatrace.cli import shared
from numatrace.cli.record_text import links_text, start_text, status_text, summary_text
from numatrace.cli.signals import ended_by
from numatrace.model.errors import UsageError
from numatrace.model.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numatrace.model.machine import Links
    from numatrace.record.bpf.loader import Loading
    from numatrace.record.options import Options
    from numatrace.record.summary import Status, Summary

EPILOG = """\b
Examples:
  sudo numatrace record -p $(pidof llama-server)
  sudo numatrace record -p $(pidof ollama) -d 30 -o slow.arrow
  sudo numatrace record -- llama-server -m model.gguf
  sudo numatrace record -p $(pidof llama-server) --max-overhead 3
  sudo numatrace record -p $(pidof llama-server) --measure-links -d 30
  sudo numatrace record -p $(pidof llama-server) -F 499 -d 10

\b
Send requests to the server while it records. Ctrl-C ends the recording; so does the end
of the last target. A command started with -- is ended with the recording.
"""


COMMAND_KEY = "numatrace.cli.record.command"


class WithCommand(click.Command):
    """A verb that takes a command behind `--`, which click itself would mix with the arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set the command aside, then parse the rest."""
        end = args.index("--") if "--" in args else len(args)
        ctx.meta[COMMAND_KEY] = args[end + 1 :]
        return super().parse_args(ctx, args[:end])


@click.command(cls=WithCommand, epilog=EPILOG)
@shared.pids
@click.option(
    "-d",
    "--duration",
    "duration_s",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="End by itself after this long.",
)
@shared.trace_output("Trace to write.")
@click.option("--force", is_flag=True, help="Overwrite the output.")
@shared.no_follow
@click.option(
    "--ring-pages",
    type=click.IntRange(1, 65_536),
    default=256,
    metavar="N",
    show_default=True,
    help="Pages of each ring buffer, a power of two; more, if events are lost.",
)
@shared.max_overhead(1.0, "recording")
@click.option(
    "-F",
    "--frequency",
    "frequency_hz",
    type=click.IntRange(1, 10_000),
    metavar="HZ",
    help="Samples a second of each CPU, whatever they cost.",
)
@click.option(
    "--measure-links",
    is_flag=True,
    help="First measure latency and bandwidth between all nodes; takes up to 20 s.",
)
@click.option("--no-access", is_flag=True, help="Do not sample memory accesses.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.argument("arguments", nargs=-1, metavar="[PID]... [-- COMMAND...]")
@click.pass_context
def record(
    ctx: click.Context,
    pids: tuple[int, ...],
    duration_s: float | None,
    output: Path,
    force: bool,
    no_follow: bool,
    ring_pages: int,
    max_overhead_percent: float,
    frequency_hz: int | None,
    measure_links: bool,
    no_access: bool,
    as_json: bool,
    arguments: tuple[str, ...],
) -> int:
    """Record where a server's threads run, where its memory lies, and which they read.

    Follows the processes and everything below them, also children born meanwhile. Needs root,
    or the capabilities that `numatrace doctor` names.
    """
    started = time.monotonic()
    command: list[str] = ctx.meta[COMMAND_KEY]
    pids = all_pids(pids, arguments, command)
    if ring_pages & (ring_pages - 1):
        raise UsageError("bad --ring-pages", f"{ring_pages} is not a power of two", "try 1024")
    from numatrace.record.bpf.loader import Loading
    from numatrace.record.capabilities import require_for_record
    from numatrace.record.command import check_command
    from numatrace.record.options import Options
    from numatrace.record.target import check_targets
    from numatrace.trace.output import check_output

    check_targets(list(pids))
    check_output(output, force=force)
    check_command(command)
    require_for_record()
    links = _measure_links() if measure_links else None
    options = Options(
        output=output.absolute(),  # bcc's compiler changes the working directory for a while
        force=force,
        follow=not no_follow,
        duration_s=duration_s,
        ring_pages=ring_pages,
        access=not no_access,
        frequency_hz=frequency_hz,
        max_overhead=max_overhead_percent / 100,
        started=time.monotonic() if links else started,
    )
    # bcc compiles while the rest of the recorder, pyarrow above all, is imported.
    summary = _record(options, Loading(options.plan()), list(pids), command, links)
    click.echo(json.dumps(asdict(summary)) if as_json else summary_text(summary, output))
    return 0


def all_pids(pids: tuple[int, ...], loose: tuple[str, ...], command: list[str]) -> tuple[int, ...]:
    """The pids of -p and the left-over ones: `-p $(pidof ollama)` expands to `-p 12 34 56`.

    Raises UsageError for anything that is no pid, and unless there are either pids or a command.
    """
    for word in loose:
        if not word.isdecimal() or len(word) > 9:
            raise UsageError(
                "cannot tell what to record",
                f"{word!r} is not a process id",
                "give pids, or a command behind --",
            )
    found = tuple(dict.fromkeys([*pids, *map(int, loose)]))
    if found and command:
        raise UsageError(
            "cannot record both", "pids and a command were given", "give either pids or -- COMMAND"
        )
    if not found and not command:
        raise UsageError(
            "nothing to record",
            "no pid and no command were given",
            "numatrace record -p PID, or numatrace record -- COMMAND",
        )
    return found


def _measure_links() -> Links:
    """Measure the way between all nodes, before anything is recorded or started."""
    from numatrace.record.links.run import run

    links = run(lambda text: click.echo(f"measuring {printable(text)}", err=True))
    click.echo(links_text(links), err=True)
    return links


def _record(
    options: Options,
    loading: Loading,
    pids: list[int],
    command: list[str],
    links: Links | None = None,
) -> Summary:
    """Run one recording to its end, whatever ends it."""
    from numatrace.record.command import start_command
    from numatrace.record.session import Session

    session = Session(options, loading)
    launched = None
    try:
        with ended_by((signal.SIGINT, signal.SIGTERM), session.stop):
            if command:
                launched = start_command(command)
                pids = [launched.pid]
                session.prepare(command)
            session.start(pids)
            if links is not None:
                session.documents.write_links(links)
            if launched:
                launched.release()
            click.echo(start_text(options, pids, command), err=True)
            with _status_line() as show:
                session.run(show)
            if launched:
                launched.end()
            if session.memory.waits_for_tables:
                click.echo("reading the model's table of tensors; Ctrl-C to go without", err=True)
            return session.finish()
    except BaseException:
        session.abandon()
        if launched:
            launched.end()
        raise


@contextmanager
def _status_line() -> Iterator[Callable[[Status], None]]:
    """One line that is written over, on a terminal; nothing elsewhere."""
    terminal = sys.stderr.isatty()

    def show(status: Status) -> None:
        if terminal:
            click.echo(f"\r\x1b[K{status_text(status)}", err=True, nl=False)

    try:
        yield show
    finally:
        if terminal:
            click.echo("\r\x1b[K", err=True, nl=False)
