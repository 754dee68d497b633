"""Help imports no heavy package. Time is not asserted: it depends on the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from numatrace.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("numpy", "pyarrow", "rich", "bcc", "capstone", "gguf", "psutil")
CODE = f"""
import contextlib, io, json, sys
from numatrace.cli.main import run
out = io.StringIO()
with contextlib.redirect_stdout(out):
    status = run(sys.argv[1:])
heavy = [name for name in {HEAVY!r} if name in sys.modules]
verbs = sorted(name for name in sys.modules if name.startswith("numatrace.cli."))
print(json.dumps([status, out.getvalue(), heavy, verbs]))
"""


def imported_by(*arguments: str) -> tuple[int, str, list[str], list[str]]:
    """Exit status, what was printed, heavy packages and modules of the command line."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    status, printed, heavy, verbs = json.loads(done.stdout.splitlines()[-1])
    return status, printed, heavy, verbs


def test_help_imports_no_verb_and_nothing_heavy() -> None:
    status, printed, heavy, verbs = imported_by("--help")
    assert status == 0
    assert all(name in printed for name in COMMANDS)
    assert heavy == []
    assert verbs == ["numatrace.cli.main"]


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_of_a_verb_imports_nothing_heavy(verb: str) -> None:
    status, printed, heavy, _ = imported_by(verb, "--help")
    assert status == 0
    assert f"numatrace {verb}" in printed
    assert heavy == []


def test_the_test_notices_what_is_heavy() -> None:
    """Reading a trace does import what help must not."""
    status, _, heavy, _ = imported_by("analyze", "fixtures/S1/trace.arrow", "--json")
    assert status == 0
    assert {"numpy", "pyarrow"} <= set(heavy)
