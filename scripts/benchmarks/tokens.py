"""What recording costs the server: tokens per second with and without, in turns."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from scenarios.workload import SCRIPTS, server_command, serving

from benchmarks.figures import ratio, spread

if TYPE_CHECKING:
    from collections.abc import Iterator

PAIRS = 8
REQUEST_S = 8.0


def bench_tokens(model: Path) -> None:
    """Ratio of tokens per second, recorded to unrecorded, in alternating runs of one server."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with serving(server_command(model, "--threads", "2"), log) as server:
            _tokens_per_s(server.url)  # warm up
            pairs = []
            for turn in range(PAIRS):
                rates = {}
                for recorded in (True, False) if turn % 2 else (False, True):
                    with (
                        _recorded(server.pid, Path(folder))
                        if recorded
                        else contextlib.nullcontext()
                    ):
                        rates[recorded] = _tokens_per_s(server.url)
                pairs.append((rates[True], rates[False]))
    print("tokens/s unrecorded            ", spread([each[1] for each in pairs], "tokens/s", 1))
    print("tokens/s recorded / unrecorded ", ratio(pairs))


def _tokens_per_s(url: str) -> float:
    command = [sys.executable, str(SCRIPTS / "ask-model"), "--url", url, "--json"]
    done = subprocess.run(
        [*command, "--seconds", str(REQUEST_S)], check=True, capture_output=True, text=True
    )
    return float(json.loads(done.stdout)["decode_tokens_per_second"])


@contextlib.contextmanager
def _recorded(pid: int, folder: Path) -> Iterator[None]:
    """Record while the block runs; wait until the recorder is past its start-up."""
    trace = folder / "trace.arrow"
    trace.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "numatrace", "record", "-p", str(pid), "-o", str(trace)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr
    process.stderr.readline()  # "recording process ...": attached
    try:
        yield
    finally:
        process.terminate()
        process.communicate(timeout=30)
