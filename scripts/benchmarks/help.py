"""How long `numatrace --help` takes, beside an interpreter that does nothing."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.figures import spread

RUNS = 40
CALLS = {
    "python -c pass": ["-c", "pass"],
    "numatrace --help": ["-c", "from numatrace.cli.main import main; main(['--help'])"],
    "numatrace analyze --help": [
        "-c",
        "from numatrace.cli.main import main; main(['analyze', '--help'])",
    ],
}


def bench_help() -> None:
    """Start all of them in turns, so that a neighbour's work falls on each alike."""
    seconds: dict[str, list[float]] = {name: [] for name in CALLS}
    for _ in range(RUNS):
        for name, arguments in CALLS.items():
            seconds[name].append(_seconds(arguments))
    for name, found in seconds.items():
        print(f"{name:<30}", spread(found, "s", 3), f"; quartile {sorted(found)[RUNS // 4]:.3f} s")


def _seconds(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
