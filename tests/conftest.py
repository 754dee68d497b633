"""How tests are staged, which skips are failures, and how the VM tests run in one guest.

A test's stage is its folder or its marker. `--stages` (from scripts/test) chooses stages and is
strict: a stage without a test, or a skip in `kernel` or `vm`, is a failure.

The tests of tests/vm run inside the multi-node guest of scripts/numa-vm. On the host they are
collected as usual; when the first one's turn comes, one guest is booted that runs them all and
writes each report to a shared folder, and every report is then replayed as the host item's own.
Those marked `oracle` have a guest to themselves, in which every access can be counted, those marked
`systemd` one whose first process is systemd.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

# A machine that others use may be slow at any moment: no test is about time.
hypothesis.settings.register_profile("numatrace", deadline=None)
hypothesis.settings.load_profile("numatrace")

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("lint", "unit", "kernel", "vm")
MARKER = {"static": "lint", "kernel": "kernel", "vm": "vm"}
FOLDER = {"kernel": "kernel", "vm": "vm"}
"""Folders whose tests get the marker of the same name; all others are stage `unit`."""
STRICT = frozenset({"kernel", "vm"})

GUESTS = {
    "": "runs in the guest",
    "oracle": "runs in a guest under the QEMU plugin of tests/oracle",
    "systemd": "runs in a guest whose first process is systemd",
}
"""Name of each guest, which is the marker of the tests that need it."""

IN_GUEST = bool(os.environ.get("NUMATRACE_IN_VM") or os.environ.get("NUMATRACE_VM"))
"""scripts/numa-vm sets the latter; a person with the nodes and nothing to lose sets the former."""
GUEST_SECONDS = float(os.environ.get("NUMATRACE_VM_SECONDS", "1500"))
"""Limit for the guest with its set-up (packages and a kernel, when they are not cached)."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("numatrace")
    group.addoption("--stages", default="", help=f"comma-separated: {', '.join(STAGES)}")
    group.addoption("--allow-skips", action="store_true", help="let kernel and vm tests be skipped")


def pytest_configure(config: pytest.Config) -> None:
    unknown = set(_stages(config)) - set(STAGES)
    if unknown:
        raise pytest.UsageError(f"--stages: no stage {', '.join(sorted(unknown))}")
    for name, what in GUESTS.items():
        if name:
            config.addinivalue_line("markers", f"{name}: {what}")
    if not IN_GUEST:
        config.stash[BOOTED] = {name: Guest() for name in GUESTS}
    elif path := os.environ.get("NUMATRACE_VM_REPORTS"):
        config.pluginmanager.register(ReportWriter(config, Path(path)))


def _stages(config: pytest.Config) -> tuple[str, ...]:
    return tuple(name for name in config.getoption("--stages").split(",") if name)


def stage_of(item: pytest.Item) -> str:
    """Name of the stage that the test belongs to."""
    return next((stage for mark, stage in MARKER.items() if item.get_closest_marker(mark)), "unit")


def _folder(path: Path) -> str:
    """First folder below tests/ on the path, or nothing."""
    return next((name for name in FOLDER if path.is_relative_to(ROOT / "tests" / name)), "")


# First, so that `-m` sees the folders' markers.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if mark := FOLDER.get(_folder(item.path)):
            item.add_marker(mark)
    items.sort(key=lambda item: STAGES.index(stage_of(item)))
    if chosen := _stages(config):
        _choose(config, items, chosen)


def _choose(config: pytest.Config, items: list[pytest.Item], chosen: tuple[str, ...]) -> None:
    found = {stage_of(item) for item in items}
    if not config.option.file_or_dir and (empty := [name for name in chosen if name not in found]):
        raise pytest.UsageError(f"no test belongs to stage {', '.join(empty)}")
    config.hook.pytest_deselected(items=[item for item in items if stage_of(item) not in chosen])
    items[:] = [item for item in items if stage_of(item) in chosen]


# --- skips that are failures


def _forbid_skip(config: pytest.Config, report: Any, stage: str) -> None:
    strict = stage in STRICT and stage in _stages(config) and not config.getoption("--allow-skips")
    if strict and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, which only --allow-skips allows here. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _forbid_skip(item.config, report, stage_of(item))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _forbid_skip(collector.config, report, FOLDER.get(_folder(collector.path), "unit"))
    return report


# --- the guest's side: write every report to the shared folder


class ReportWriter:
    """Appends each report as a line of JSON; a guest that dies leaves all that went before."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self.config = config
        self.path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        with self.path.open("a") as file:
            file.write(json.dumps(data, default=str) + "\n")


# --- the host's side: boot once, replay


@dataclass
class Guest:
    """What a guest of this session said: reports by test, its output and its end."""

    reports: dict[str, list[pytest.TestReport]] = field(default_factory=dict)
    output: str = ""
    end: str = ""
    last: str = ""
    seconds: float = 0.0

    def run(self, config: pytest.Config, name: str, tests: Sequence[str]) -> None:
        """Boot the guest of this name, run the tests with these ids in it, read what it wrote."""
        began = time.monotonic()
        self.last = tests[-1]
        with tempfile.TemporaryDirectory(prefix="numatrace-vm-") as folder:
            shared = Path(folder)
            (shared / "tests").write_text("\n".join(tests))
            self.end = _run_in_guest(_guest_command(config, name, shared), shared / "output")
            self.output = (shared / "output").read_text(errors="replace")
            self.reports = _read_reports(config, shared / "reports")
        self.seconds = time.monotonic() - began

    def reports_of(self, item: pytest.Item) -> list[pytest.TestReport]:
        """The test's reports, with a failed one where the guest did not get to its end."""
        reports = self.reports.get(item.nodeid, [])
        finished = bool(reports) and reports[-1].when == "teardown"
        if finished and (item.nodeid != self.last or self.end in NORMAL_ENDS):
            return reports
        what = "ended badly after its last test" if finished else "did not finish this test"
        text = f"the guest {what} ({self.end})" + self._tail()
        keywords = dict.fromkeys(item.keywords, 1)
        bad = pytest.TestReport(item.nodeid, item.location, keywords, "failed", text, "call")
        return [*reports, bad]

    def _tail(self) -> str:
        """End of the guest's output, the first time only: many tests may fail for one reason."""
        lines, self.output = self.output.splitlines()[-60:], ""
        return "\n".join(["; its output ends:", *lines]) if lines else ""


NORMAL_ENDS = ("exit status 0", "exit status 1")
"""All passed, or some failed: what pytest itself says in its exit status."""
BOOTED = pytest.StashKey[dict[str, Guest]]()


def _guest_options(name: str, shared: Path) -> list[str]:
    if name == "systemd":
        return ["--systemd"]
    if name != "oracle":
        return ["--docker"]
    from tests.oracle.build import guest_options

    return ["--memory-per-node", "1G", *guest_options(shared)]


def _guest_command(config: pytest.Config, name: str, shared: Path) -> list[str]:
    # Another command in place of the guest is how the tests test this file.
    prefix = shlex.split(os.environ.get("NUMATRACE_VM_COMMAND", "")) or [
        *(sys.executable, str(ROOT / "scripts/numa-vm"), "--nodes", "2", "--disk", "1G"),
        *("--timeout", f"{0.8 * GUEST_SECONDS:.0f}", "--rw", str(shared)),
        *(*_guest_options(name, shared), "--"),
    ]
    here = ["env", "-C", str(ROOT), "NUMATRACE_IN_VM=1", "PYTHONDONTWRITEBYTECODE=1"]
    reports = f"NUMATRACE_VM_REPORTS={shared / 'reports'}"
    pytest_command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "vm"]
    if _stages(config):
        pytest_command.append("--stages=vm")
    if config.getoption("--allow-skips"):
        pytest_command.append("--allow-skips")
    return [*prefix, *here, reports, *pytest_command, f"@{shared / 'tests'}"]


def _run_in_guest(command: list[str], output: Path) -> str:
    """Run the command with its output in a file; say how it ended."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            return f"exit status {process.wait(GUEST_SECONDS)}"
        except subprocess.TimeoutExpired:
            return f"ended after {GUEST_SECONDS:.0f} s, see NUMATRACE_VM_SECONDS"
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the guest: its session's processes, politely at first."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, sent)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue


def _read_reports(config: pytest.Config, path: Path) -> dict[str, list[pytest.TestReport]]:
    reports: dict[str, list[pytest.TestReport]] = {}
    for line in path.read_text().splitlines(keepends=True) if path.exists() else []:
        if line.endswith("\n"):  # not a line that the guest's end cut
            data = json.loads(line)
            report = config.hook.pytest_report_from_serializable(config=config, data=data)
            if isinstance(
                report.longrepr, list
            ):  # a skip's place and reason, which JSON made a list
                report.longrepr = tuple(report.longrepr)
            reports.setdefault(report.nodeid, []).append(report)
    return reports


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    if IN_GUEST or stage_of(item) != "vm":
        return None
    name = _guest_of(item)
    guest = item.config.stash[BOOTED][name]
    if not guest.end:
        mine = (each for each in item.session.items if stage_of(each) == "vm")
        guest.run(item.config, name, [each.nodeid for each in mine if _guest_of(each) == name])
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in guest.reports_of(item):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _guest_of(item: pytest.Item) -> str:
    return next((name for name in GUESTS if name and item.get_closest_marker(name)), "")


# --- the result of each stage, above pytest's closing line


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not _stages(config):
        return
    terminalreporter.section("stages")
    guests = config.stash.get(BOOTED, {})
    for stage in _stages(config):
        counts, seconds = _tally(terminalreporter.stats, stage)
        said = ", ".join(f"{n} {outcome}" for outcome, n in counts.items()) or "not run"
        for name, guest in guests.items() if stage == "vm" else ():
            if guest.end:
                label = f"{name} guest".strip()
                said += f" ({label}: {guest.seconds:.0f} s with its start, {guest.end})"
        terminalreporter.write_line(f"{stage:7} {seconds:6.1f} s  {said}")


def _tally(stats: dict[str, list[Any]], stage: str) -> tuple[Counter[str], float]:
    counts: Counter[str] = Counter()
    seconds = 0.0
    for outcome, reports in stats.items():
        for report in reports:
            if (
                isinstance(report, pytest.TestReport | pytest.CollectReport)
                and _of(report) == stage
            ):
                seconds += getattr(report, "duration", 0.0)
                counts.update([outcome] if outcome else [])  # a set-up that passed has no outcome
    return counts, seconds


def _of(report: pytest.TestReport | pytest.CollectReport) -> str:
    keywords = getattr(report, "keywords", {})
    named = next((stage for mark, stage in MARKER.items() if mark in keywords), None)
    return named or FOLDER.get(_folder(ROOT / report.nodeid.split("::")[0]), "unit")
