"""The command as a whole process: what it says and how it ends when its output takes no more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRACE = str(ROOT / "fixtures/S1/trace.arrow")
NUMATRACE = [sys.executable, "-m", "numatrace"]


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["guide", "reading"], ["analyze", TRACE], ["export", TRACE, "--schema", "report"]],
    ids=lambda arguments: arguments[0],
)
def test_standard_output_that_is_full(arguments: list[str], buffered: bool) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    env |= {} if buffered else {"PYTHONUNBUFFERED": "1"}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*NUMATRACE, *arguments], stdout=full, stderr=subprocess.PIPE, cwd=ROOT, env=env
        )
    assert done.returncode == 1
    first, why, todo = done.stderr.decode().splitlines()
    assert first == "numatrace: cannot write to standard output"
    assert why == "  why: No space left on device"
    assert todo.startswith("  do:  ")
