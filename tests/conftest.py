"""How tests are staged, which skips are failures, and which tests run in other processes.

A test's stage is its folder or its marker. `--stages` (from scripts/test) chooses stages and is
strict: a stage without a test, or a skip in `kernel` or `vm`, is a failure.

The tests of tests/vm run inside the multi-node guest of scripts/numa-vm. On the host they are
collected as usual; when the first one's turn comes, one guest is booted that runs them all and
writes each report to a shared folder, and every report is then replayed as the host item's own.
Those marked `oracle` have a guest to themselves, in which every access can be counted, those marked
`systemd` one whose first process is systemd.

The tests of stage `unit` run in as many processes as there are CPUs, and are replayed as well.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from tests.elsewhere import REPORTS, ReportWriter, Run, Shares

if TYPE_CHECKING:
    from collections.abc import Generator

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
SHARE_SECONDS = 1500.0
"""Limit for each share of the unit tests."""


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
        config.stash[ELSEWHERE] = Elsewhere({name: Run("the guest") for name in GUESTS})
    # Not for those that a test starts.
    if path := os.environ.pop(REPORTS, ""):
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


# --- tests that run elsewhere: of stage `vm` in guests, of `unit` on several CPUs


@dataclass
class Elsewhere:
    """The other processes of this session."""

    guests: dict[str, Run]
    shares: Shares | None = None


ELSEWHERE = pytest.StashKey[Elsewhere]()


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
    reports = f"{REPORTS}={shared / 'reports'}"
    pytest_command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "vm"]
    if _stages(config):
        pytest_command.append("--stages=vm")
    if config.getoption("--allow-skips"):
        pytest_command.append("--allow-skips")
    return [*prefix, *here, reports, *pytest_command, f"@{shared / 'tests'}"]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    elsewhere = item.config.stash.get(ELSEWHERE, None)
    stage = stage_of(item)
    if elsewhere is None or (stage != "vm" and not _is_shared(item.config, stage)):
        return None
    if stage == "vm":
        _ended_guest(elsewhere, item).replay(item)
        return True
    if elsewhere.shares is None:
        mine = [each for each in item.session.items if stage_of(each) == stage]
        elsewhere.shares = Shares(mine, item.config, SHARE_SECONDS)
    elsewhere.shares.replay(item)
    return True


def _is_shared(config: pytest.Config, stage: str) -> bool:
    """Whether the stage's tests run in several processes at a time. Plain pytest stays as it is."""
    return stage == "unit" and stage in _stages(config) and len(os.sched_getaffinity(0)) > 1


def _ended_guest(elsewhere: Elsewhere, item: pytest.Item) -> Run:
    """The guest of the test, which is booted for the first of its tests and runs them all."""
    name = _guest_of(item)
    guest = elsewhere.guests[name]
    if not guest.end:
        mine = (each for each in item.session.items if stage_of(each) == "vm")
        guest.tests = [each.nodeid for each in mine if _guest_of(each) == name]
        guest.run(item.config, partial(_guest_command, item.config, name), GUEST_SECONDS)
    return guest


def pytest_unconfigure(config: pytest.Config) -> None:
    elsewhere = config.stash.get(ELSEWHERE, None)
    if elsewhere is not None and elsewhere.shares is not None:
        elsewhere.shares.close()


def _guest_of(item: pytest.Item) -> str:
    return next((name for name in GUESTS if name and item.get_closest_marker(name)), "")


# --- the result of each stage, above pytest's closing line


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not _stages(config):
        return
    terminalreporter.section("stages")
    elsewhere = config.stash.get(ELSEWHERE, None)
    guests = elsewhere.guests if elsewhere is not None else {}
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
