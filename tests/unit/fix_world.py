"""What the tests of fixes share: a situation out of a World, and commands that only take notes."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from numatrace.analyze.load import load
from numatrace.analyze.memory.regions import regions
from numatrace.analyze.plans.candidates import candidates
from numatrace.analyze.samples.measure import measure
from numatrace.analyze.situation import Situation, compute_threads, find_server, situation
from numatrace.analyze.threads.behaviour import roles
from numatrace.model.findings import Finding, Fix
from numatrace.model.findings import Verdict as Answer
from numatrace.model.measured import Figure
from numatrace.trace.reader import Trace

if TYPE_CHECKING:
    from numatrace.analyze.plans.plan import Plan
    from numatrace.model.process import Process
    from numatrace.model.report import Report
    from tests.unit.test_analyze_world import World

BLOB = "/usr/share/ollama/.ollama/models/blobs/sha256-" + "0123456789abcdef" * 4
NOTED = (
    "docker", "kubectl", "migratepages", "mkdir", "numactl", "numastat", "numatrace", "ollama",
    "podman", "rm", "setpriv", "sysctl", "systemctl", "taskset", "tee", "dd",
)  # fmt: skip
"""Commands that only take notes; `sleep` takes WAIT_S, 0 by default: scripts need not wait."""
NOTE = """\
#!/bin/bash
printf '%s\\0' $# "${0##*/}" "$@" >>"$NOTES"
case ${0##*/} in
  tee) cat >"$NOTES.$$.stdin" ;;
  numactl | setpriv) exec /bin/sleep "${RUNS_S:-1}" ;;
  docker | podman) [ "$1 $2" = "inspect --format" ] && printf '%s\\n' "${ANSWER:-false}" ;;
esac
[ "${FAILS:-}" != "${0##*/}" ]
"""


def situation_of(world: World) -> Situation:
    """Return the situation of the world's server, as analysis sees it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.arrow"
        world.write(path)
        with Trace.open(path) as trace:
            loaded = load(list(trace.batches()))
    found = regions(loaded)
    server, reason = find_server(loaded, found)
    assert server is not None
    measured = measure(loaded, found, server.tgid)
    compute = compute_threads(loaded, roles(loaded, measured), server.tgid)
    now = situation(loaded, found, measured, compute, (server, reason))
    assert now is not None
    return now


def plan_of(now: Situation, kind: str) -> Plan:
    """Return the first plan of a kind that is weighed for the situation."""
    return next(plan for plan in candidates(now) if plan.kind == kind)


def as_process(now: Situation, **changes: object) -> Situation:
    """Return the situation with its server, which is its root, changed."""
    server: Process = replace(now.server, **changes)  # type: ignore[arg-type]
    return replace(now, server=server, root=server)


def commands(found: Fix) -> list[str]:
    return [step.command for step in found.steps]


def every_command(found: Fix) -> list[str]:
    return [step.command for step in (*found.steps, *found.verify, *found.undo)]


def report_of(found: Fix, sentence: str = "Something is wrong.") -> Report:
    """Return a report with that fix and nothing else."""
    from tests.unit.test_render_text import NOTHING

    finding = Finding(
        "C1", "a cause", sentence, 1, (), "high", (found,), (), Figure(1, "ns", "model")
    )
    return replace(NOTHING, verdict=Answer("fix", sentence), findings=(finding,))


class Notes:
    """A folder with commands on its PATH that only note how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "notes"
        self.programs = folder / "bin"
        self.programs.mkdir()
        for name in NOTED:
            self._program(name, NOTE)
        self._program("sleep", '#!/bin/sh\nexec /bin/sleep "${WAIT_S:-0}"\n')

    def _program(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def run(self, *command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command with these programs first on its PATH."""
        env = os.environ | {"NOTES": str(self.path)} | more
        env["PATH"] = f"{self.programs}:{os.environ['PATH']}"
        return subprocess.run(
            command, cwd=self.folder, env=env, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=False, timeout=60,
        )  # fmt: skip

    def calls(self, least: int = 0, name: str = "") -> list[list[str]]:
        """Return the calls so far, in order; waits for `least` of them (background ones)."""
        for _ in range(200):
            found = self._noted()
            found = [call for call in found if not name or call[0] == name]
            if len(found) >= least:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{len(found)} calls: {found}")

    def _noted(self) -> list[list[str]]:
        words = self.path.read_bytes().decode().split("\0")[:-1] if self.path.exists() else []
        found = []
        while words:
            count = int(words[0]) + 1
            found.append(words[1 : 1 + count])
            words = words[1 + count :]
        return found

    def written(self) -> list[str]:
        """Return what `tee` was given, in order."""
        found = sorted(self.folder.glob("notes.*.stdin"), key=lambda path: path.stat().st_mtime_ns)
        return [path.read_text() for path in found]
