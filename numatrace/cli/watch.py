"""`numatrace watch`: look at a running server live, on a terminal or as lines."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from numatrace.cli import shared
from numatrace.cli.output import encodable
from numatrace.cli.signals import ended_by
from numatrace.model.errors import UsageError
from numatrace.model.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rich.text import Text

    from numatrace.record.bpf.loader import Loading
    from numatrace.record.options import Options
    from numatrace.watch.snapshot import Snapshot
    from numatrace.watch.watching import Watching

EPILOG = """\b
Examples:
  sudo numatrace watch -p $(pidof llama-server)
  sudo numatrace watch -p $(pidof ollama) --interval 2 -o slow.arrow
  sudo numatrace watch -p $(pidof llama-server) --once
  sudo numatrace watch -p $(pidof llama-server) --json -n 60 > minute.jsonl

\b
Keys: s sorts, p holds the display, r begins and ends writing a trace, h helps, q quits.
"""

PLAIN_WIDTH = 100
LEAST_WIDTH = 60
PLAIN_ROWS = 20
COUNT = "count"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command(epilog=EPILOG)
@shared.pids
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.2, 60),
    default=1.0,
    metavar="SECONDS",
    show_default=True,
    help="Between two looks.",
)
@click.option(
    "-n",
    "--count",
    type=click.IntRange(1),
    metavar="N",
    help="End after N intervals, each printed as lines.",
)
@click.option("--once", is_flag=True, help="The same as -n 1.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each interval.")
@shared.trace_output("Trace that the key r writes; a number is added where it exists.")
@shared.max_overhead(3.0, "watching")
@shared.no_follow
@click.argument("arguments", nargs=-1, metavar="[PID]...")
def watch(
    pids: tuple[int, ...],
    interval_s: float,
    count: int | None,
    once: bool,
    as_json: bool,
    output: Path,
    max_overhead_percent: float,
    no_follow: bool,
    arguments: tuple[str, ...],
) -> int:
    """Watch where a server's threads run and its memory lies, live.

    On a terminal a display that keys act on; elsewhere, and with -n, --once or --json, lines for
    each interval. Needs what `numatrace record` needs.
    """
    started = time.monotonic()
    pids = _all_pids(pids, arguments)
    from numatrace.record.bpf.loader import Loading
    from numatrace.record.capabilities import require_for_record
    from numatrace.record.options import Options
    from numatrace.record.target import check_targets

    check_targets(list(pids))
    require_for_record()
    options = Options(
        output=output.absolute(),  # bcc's compiler changes the working directory for a while
        interval_s=interval_s,
        follow=not no_follow,
        max_overhead=max_overhead_percent / 100,
        started=started,
    )
    count = 1 if once else count
    loading = Loading(options.plan())
    if count is None and not as_json and _has_terminal():
        return _on_terminal(options, list(pids), loading)
    return _as_lines(options, list(pids), loading, count, as_json=as_json)


def _has_terminal() -> bool:
    """Whether keys can be read, and a screen be shown."""
    able = os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")
    return able and sys.stdin.isatty() and sys.stdout.isatty()


def _all_pids(pids: tuple[int, ...], loose: tuple[str, ...]) -> tuple[int, ...]:
    """The pids of -p and the left-over ones, as `numatrace record` takes them."""
    from numatrace.cli.record import all_pids

    if not pids and not loose:
        why, todo = "no pid was given", "sudo numatrace watch -p $(pidof llama-server)"
        raise UsageError("nothing to watch", why, todo)
    return all_pids(pids, loose, [])


def _on_terminal(options: Options, pids: list[int], loading: Loading) -> int:
    from numatrace.watch.display import Display
    from numatrace.watch.terminal import Terminal
    from numatrace.watch.watching import Watching

    display = Display(Terminal(sys.stdout, sys.stdin.fileno()))
    watching = Watching(options, pids, display.take, display.say)
    with ended_by(SIGNALS, watching.sessions.stop), _given_up_on_errors(watching), display.terminal:
        display.draw()
        watching.start(loading)
        reason = display.run(watching)
        watching.sessions.end()
    if reason == "targets":
        click.echo(_ending(watching, display.latest))
    for summary in watching.sessions.written:
        name = shlex.quote(printable(os.path.relpath(summary.output)))
        click.echo(f"wrote {name}; next: numatrace analyze {name}")
    return 0


def _ending(watching: Watching, latest: Snapshot | None) -> str:
    """That the targets are gone, and the last figures of when they were not."""
    from numatrace.watch.figures import clock
    from numatrace.watch.screen import plain

    if latest is None:
        return f"process {watching.pid} ended before the first figures"
    name = printable(latest.process, 40)
    head = f"process {latest.pid} ({name}) ended after {clock(latest.elapsed_s)}; the last figures:"
    return "\n".join([head, *_text(plain(latest, _width(), PLAIN_ROWS))])


def _width() -> int:
    """Columns of lines that stay: those of the terminal, if that is where they go."""
    if not sys.stdout.isatty():
        return PLAIN_WIDTH
    columns = shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns
    return min(max(columns, LEAST_WIDTH), PLAIN_WIDTH)


def _text(lines: Sequence[Text]) -> list[str]:
    return [encodable(line.plain.rstrip()) for line in lines]


def _as_lines(
    options: Options, pids: list[int], loading: Loading, count: int | None, *, as_json: bool
) -> int:
    from numatrace.watch.watching import Watching

    watching: Watching
    printed = 0

    def show(snapshot: Snapshot) -> None:
        nonlocal printed
        click.echo(_json(snapshot) if as_json else _table(snapshot))
        printed += 1
        if printed == count:
            watching.sessions.stop(COUNT)

    watching = Watching(options, pids, show, _tell)
    with ended_by(SIGNALS, watching.sessions.stop), _given_up_on_errors(watching):
        watching.start(loading)
        reason = watching.run(time.sleep)
        watching.sessions.end()
    if reason == "targets":
        click.echo(f"process {pids[0]} ended", err=True)
    return 0


def _tell(text: str) -> None:
    if text:
        click.echo(printable(text), err=True)


def _json(snapshot: Snapshot) -> str:
    return json.dumps(snapshot.to_json(), allow_nan=False)


def _table(snapshot: Snapshot) -> str:
    from numatrace.watch.screen import plain

    return "\n".join([*_text(plain(snapshot, _width(), PLAIN_ROWS)), ""])


@contextmanager
def _given_up_on_errors(watching: Watching) -> Iterator[None]:
    """Unload the programs whatever happens; what was written of a trace stays readable."""
    try:
        yield
    except BaseException:
        watching.sessions.abandon()
        raise
