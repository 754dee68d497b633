"""The first fix of a report as a shell script: to look at, to run, to undo. It is never run here.

Every command of the fix is one quoted word, which the script shows (`--check`) or evaluates: what
is shown is what is run. Commands share one shell, as they do when they are pasted one by one.
"""

from __future__ import annotations

import shlex
import textwrap
from typing import TYPE_CHECKING

from numatrace.model.errors import NumatraceError
from numatrace.model.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numatrace.model.findings import Finding, Fix, Step
    from numatrace.model.report import Report

COMMENT_WIDTH = 78


class NoFixError(NumatraceError):
    """The report has no fix that could be written as a script."""


def script(report: Report) -> str:
    """Return the preferred fix of the first finding that has one, as a bash script.

    Raises NoFixError, with the verdict, for a report without a fix.
    """
    for finding in report.findings:
        if finding.fixes:
            return _script(report, finding, finding.fixes[0])
    raise NoFixError(
        "no fix script was written",
        f"the report has no fix ({report.verdict.sentence})",
        "read the report: it says why",
    )


def _script(report: Report, finding: Finding, fix: Fix) -> str:
    about = [
        f"numatrace: {fix.title} ({fix.id}; server started: {fix.deployment}).",
        f"{finding.cause}, {finding.name}: {finding.sentence}",
        *(f"Note: {note}" for note in fix.notes),
        "",
        "Run it with bash:",
        "  --check   shows what it would do, and changes nothing",
        "  (nothing) does it; stops at the first step that fails",
        "  --verify  shows whether it worked",
        "  --undo    goes back to the state before",
        "Steps that need root are run through sudo. A server that it starts runs on in the"
        " background, and writes to numatrace-server.log in the current folder.",
    ]
    parts = [
        "#!/bin/bash",
        *_comment(about),
        PRELUDE,
        _function("fix_steps", fix.steps),
        _function("verify_steps", fix.verify),
        _function("undo_steps", fix.undo),
        MAIN,
    ]
    return "\n".join(parts)


def _function(name: str, steps: Iterable[Step]) -> str:
    lines = [f"{name}() {{"]
    for number, step in enumerate(steps, 1):
        lines += ["", *("  " + line for line in _comment([f"{number}. {step.why}"]))]
        flags = f"{'root' if step.needs_root else 'user'} {'stays' if step.stays else 'ends'}"
        words = f"{shlex.quote(printable(step.why))} {shlex.quote(_checked(step.command))}"
        lines.append(f"  step {number} {flags} {words} || return")
    return "\n".join([*lines, "  true", "}", ""])


def _checked(command: str) -> str:
    """Return the command; raises NoFixError for one that cannot be looked at before it is run."""
    if all(line.isprintable() for line in command.split("\n")):
        return command
    raise NoFixError(
        "no fix script was written",
        f"a command of it has characters that cannot be shown: {printable(command, 80)}",
        "report this: commands are to be quoted so that they can be shown",
    )


def _comment(texts: Iterable[str]) -> list[str]:
    """Return texts from anywhere as comment lines: nothing in them can end a line."""
    lines: list[str] = []
    for text in texts:
        rows = textwrap.wrap(
            printable(text.replace("\n", " ")),
            COMMENT_WIDTH - 2,
            drop_whitespace=not text.startswith(" "),
            subsequent_indent=" " * (len(text) - len(text.lstrip(" "))),
        )
        lines += [f"# {row}".rstrip() for row in rows or [""]]
    return lines


PRELUDE = r"""
# shellcheck disable=SC2016 # commands are quoted whole: step shows them or evaluates them
[ -n "${BASH_VERSION:-}" ] || { echo 'run it with bash' >&2; exit 2; }
set -u
mode=${1:-run}
program=$0
log=numatrace-server.log

# step NUMBER root|user ends|stays WHY COMMAND
step() {
  if [ "$mode" = --check ]; then
    [ "$2" = root ] && printf '[root] '
    printf '%s. %s\n%s\n\n' "$1" "$4" "$5"
    return 0
  fi
  printf '%s. %s\n' "$1" "$4"
  if [ "$3" = stays ]; then
    start "$2" "$5"
  elif [ "$2" = root ] && [ "$(id -u)" -ne 0 ]; then
    sudo bash -c "$5" </dev/null
  else
    eval "$5"
  fi
  status=$?
  [ "$status" -eq 0 ] && return 0
  {
    printf 'Step %s failed (exit status %s): %s\n%s\n' "$1" "$status" "$4" "$5"
    printf 'Nothing after it was done. To go back: %s --undo\n' "$program"
  } >&2
  return 1
}

# start root|user COMMAND: runs on after this script, in a session of its own
start() {
  if [ "$1" = root ] && [ "$(id -u)" -ne 0 ]; then
    sudo -v || return # asks here; in the background it could not
    # shellcheck disable=SC2024 # the log is to belong to who runs this
    sudo setsid nohup bash -c "$2" </dev/null >>"$log" 2>&1 &
  else
    setsid nohup bash -c "$2" </dev/null >>"$log" 2>&1 &
  fi
  started=$!
  sleep 2
  if kill -0 "$started" 2>/dev/null; then
    printf 'It runs as process %s and writes to %s\n' "$started" "$log"
    return 0
  fi
  wait "$started"
  failed=$?
  tail -n 20 "$log" >&2
  [ "$failed" -ne 0 ] || failed=1 # a server that ends at once is none
  return "$failed"
}
"""

MAIN = r"""case $mode in
  --check)
    fix_steps
    printf 'Nothing was changed. To see whether it worked: %s --verify\n' "$program"
    printf 'To go back: %s --undo, which would run:\n\n' "$program"
    undo_steps
    ;;
  run) fix_steps ;;
  --verify) verify_steps ;;
  --undo) undo_steps ;;
  *)
    printf 'usage: %s [--check | --verify | --undo]\n' "$program" >&2
    exit 2
    ;;
esac
"""
