"""A server's pool whose workers live for one graph: the workload of known truth reading a model."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from scenarios.workload import ROOT

sys.path.insert(0, str(ROOT / "tests"))

from known.known import Workload, build

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

GRAPH_MS = 60
PARTS = (100, 80, 60, 40)
"""Percent of its time that each worker reads weights: so that they can be told apart."""


@contextlib.contextmanager
def pooling(wrapper: Sequence[str], model: Path, log: Path) -> Iterator[Workload]:
    """Run four workers, three of them new for every graph, on a mapped model."""
    program = build(log.parent, "llama-server")
    command = [*wrapper, program, "--buffer", f"weights:0:{model}", "--respawn-ms", str(GRAPH_MS)]
    command += ["--slice-us", "5000"]
    for part in PARTS:
        rest = f",nothing={100 - part}" if part < 100 else ""
        command += ["--thread", f"-/stream:weights={part}{rest}"]
    with Workload(command) as workload:
        yield workload
