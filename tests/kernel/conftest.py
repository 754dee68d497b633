"""Fixtures of the tests that need root and BPF."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

Record = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Start `numatrace record` with these arguments in the test's folder."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "numatrace", "record", *arguments],
            cwd=tmp_path,
            env={**os.environ, "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start
