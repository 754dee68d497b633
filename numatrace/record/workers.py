"""Python processes beside the recorder: how they are started, and that they end with it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def command(module: str, *arguments: str) -> list[str]:
    """To run a module of ours. -P: not the modules of whatever folder we are in, least as root."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """This environment, with this very numatrace first, and without numpy's thread pools.

    One stack for each CPU's thread would take a good part of the memory that a worker may use.
    """
    package_parent = str(Path(__file__).resolve().parents[2])
    pools = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **pools, "PYTHONPATH": package_parent, "PYTHONDONTWRITEBYTECODE": "1"}


def end_with_starter() -> None:
    """Have this process killed when the one that started it ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
