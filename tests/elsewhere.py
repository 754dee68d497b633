"""Run tests in other pytest processes, and have their reports replayed as this session's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Future

    Command = Callable[[Path], Sequence[str]]
    """The command that runs pytest, given a folder: its file `tests` has the ids, and to `reports`
    goes what REPORTS would name."""

ROOT = Path(__file__).resolve().parents[1]
REPORTS = "NUMATRACE_REPORTS"
"""Environment variable with the file that a pytest started from here writes its reports to."""

NORMAL_ENDS = ("exit status 0", "exit status 1")
"""All passed, or some failed: what pytest itself says in its exit status."""

CHUNKS_PER_CPU = 6
"""So many times each CPU is given tests: files take between a moment and a minute."""


class ReportWriter:
    """Appends each report as a line of JSON; a process that dies leaves all that went before."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self.config = config
        self.path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        with self.path.open("a") as file:
            file.write(json.dumps(data, default=str) + "\n")


@dataclass
class Run:
    """One other pytest: reports by test, its output and its end. `what` it is, in a sentence."""

    what: str
    tests: Sequence[str] = ()
    reports: dict[str, list[pytest.TestReport]] = field(default_factory=dict)
    output: str = ""
    end: str = ""
    seconds: float = 0.0
    process: subprocess.Popen[bytes] | None = None

    def run(self, config: pytest.Config, command: Command, limit_s: float) -> Run:
        """Run `tests` by the command, for no longer than that, and read what it wrote."""
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="numatrace-tests-") as name:
            folder = Path(name)
            (folder / "tests").write_text("\n".join(self.tests))
            self.end = self._end_of(command(folder), folder / "output", limit_s)
            self.output = (folder / "output").read_text(errors="replace")
            self.reports = _read_reports(config, folder / "reports")
        self.seconds = time.monotonic() - began
        return self

    def replay(self, item: pytest.Item) -> None:
        """Report a test of it as if it had run here."""
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports_of(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    def stop(self) -> None:
        """End what is left: the session's processes, politely at first."""
        for sent in (signal.SIGTERM, signal.SIGKILL):
            if self.process is None or self.process.poll() is not None:
                return
            os.killpg(self.process.pid, sent)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                continue

    def _end_of(self, command: Sequence[str], output: Path, limit_s: float) -> str:
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                return f"exit status {self.process.wait(limit_s)}"
            except subprocess.TimeoutExpired:
                return f"ended after {limit_s:.0f} s, its limit"
            finally:
                self.stop()

    def _reports_of(self, item: pytest.Item) -> list[pytest.TestReport]:
        """The test's reports, with a failed one where the other process did not get to its end."""
        reports = self.reports.get(item.nodeid, [])
        finished = bool(reports) and reports[-1].when == "teardown"
        if finished and (item.nodeid != self.tests[-1] or self.end in NORMAL_ENDS):
            return reports
        what = "ended badly after its last test" if finished else "did not finish this test"
        text = f"{self.what} {what} ({self.end})" + self._tail()
        keywords = dict.fromkeys(item.keywords, 1)
        bad = pytest.TestReport(item.nodeid, item.location, keywords, "failed", text, "call")
        return [*reports, bad]

    def _tail(self) -> str:
        """End of its output, the first time only: many tests may fail for one reason."""
        lines, self.output = self.output.splitlines()[-60:], ""
        return "\n".join(["; its output ends:", *lines]) if lines else ""


class Shares:
    """Tests in as many processes at a time as there are CPUs, a few files after the other."""

    def __init__(self, items: Sequence[pytest.Item], config: pytest.Config, limit_s: float) -> None:
        self._ended: dict[str, Future[Run]] = {}
        self._runs: list[Run] = []
        cpus = len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(cpus)
        for tests in chunks([item.nodeid for item in items], CHUNKS_PER_CPU * cpus):
            run = Run("pytest beside this one", tests)
            self._runs.append(run)
            ended = self._pool.submit(run.run, config, _command, limit_s)
            self._ended |= dict.fromkeys(tests, ended)

    def replay(self, item: pytest.Item) -> None:
        """Wait for a test's share to end, and report the test."""
        self._ended[item.nodeid].result().replay(item)

    def close(self) -> None:
        """Begin no more, and end what runs."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for run in self._runs:
            run.stop()


def chunks(tests: Sequence[str], count: int) -> list[list[str]]:
    """Divide tests into about so many parts of equal length, of whole files, in their order."""
    parts: list[list[str]] = [[]]
    for at, test in enumerate(tests):
        begins = at and test.split("::")[0] != tests[at - 1].split("::")[0]
        if begins and len(parts[-1]) * count >= len(tests):
            parts.append([])
        parts[-1].append(test)
    return parts


def _command(folder: Path) -> list[str]:
    return [
        *("env", f"{REPORTS}={folder / 'reports'}", sys.executable, "-m", "pytest"),
        *("-p", "no:cacheprovider", "-m", "", f"@{folder / 'tests'}"),
    ]


def _read_reports(config: pytest.Config, path: Path) -> dict[str, list[pytest.TestReport]]:
    reports: dict[str, list[pytest.TestReport]] = {}
    for line in _whole_lines(path):
        report = config.hook.pytest_report_from_serializable(config=config, data=json.loads(line))
        if isinstance(report.longrepr, list):  # a skip's place and reason: JSON made a list of it
            report.longrepr = tuple(report.longrepr)
        reports.setdefault(report.nodeid, []).append(report)
    return reports


def _whole_lines(path: Path) -> Iterable[str]:
    """The lines of a file, without one that its writer's end cut."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith("\n")]
