"""Causes and renderers of other packages: a real one, and every way in which one can be broken."""

from __future__ import annotations

import importlib
import json
import re
import sys
import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numatrace.analyze import analyze_trace
from numatrace.analyze.causes import CAUSES
from numatrace.analyze.causes.guarded import GuardedCause, guarded, misfit
from numatrace.cli import doctor, plugins
from numatrace.cli.main import run
from numatrace.cli.plugins import Causes, causes
from numatrace.model.findings import Evidence, Finding, RuledOut
from numatrace.model.measured import Figure
from numatrace.render import RENDERERS, RenderOptions
from numatrace.trace.reader import Trace
from tests.unit.test_analyze_world import World
from tests.unit.test_causes_scenarios import grow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.model.report import Report

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "tests/example_plugin"
FIXTURE = ROOT / "fixtures/S1/trace.arrow"


@pytest.fixture(autouse=True)
def _forgotten_afterwards() -> Iterator[None]:
    """Modules that a test put on the path are not those of the next test."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("numatrace_example", "other_")):
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package as `pip install --target` leaves it: its wheel, unpacked."""
    from hatchling.builders.wheel import WheelBuilder

    folder = tmp_path_factory.mktemp("example")
    builder = WheelBuilder(str(EXAMPLE))
    wheel = next(iter(builder.build(directory=str(folder / "dist"), versions=["standard"])))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def example(built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(built))
    return built


def package(folder: Path, name: str, entry_points: str, source: str = "") -> None:
    """Install a package: one module other_<name>, and the metadata that pip would write."""
    info = folder / f"{name}-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    (folder / f"other_{name}.py").write_text(source)


def cause_source(**changes: str) -> str:
    """A module that is a cause; `changes` replace the right sides of its assignments."""
    parts = {
        "ID": "'OTHER'",
        "NAME": "'another cause'",
        "NUMBER": "None",
        "EXPLAINS": "()",
        "RESULT": "RuledOut(ID, NAME, judged=True, why='No.')",
        "look": "lambda situation: RESULT",
    }
    head = "from numatrace.model.findings import Evidence, Finding, RuledOut\n"
    return head + "".join(f"{name} = {value}\n" for name, value in (parts | changes).items())


def installed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, entry_points: str, source: str = ""
) -> None:
    """Have a package where programs look for one."""
    package(folder, name, entry_points, source)
    monkeypatch.syspath_prepend(str(folder))


def analyzed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = run(["analyze", str(FIXTURE), *arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


# The example package.


def test_the_examples_cause_is_judged_beside_ours(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, printed, told = analyzed(capsys, "--json")
    document = json.loads(printed)
    assert (status, told) == (0, "")
    found = {each["cause"]: each for each in document["ruled_out"] + document["findings"]}
    assert set(found) == {cause.ID for cause in CAUSES} | {"EX-SWAP"}
    assert "numatrace-example 1.0" in found["EX-SWAP"]["why"]


def test_without_plugins_the_report_is_what_it_is_without_the_package(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, printed, told = analyzed(capsys, "--json", "--no-plugins")
    assert told == ""
    with Trace.open(FIXTURE) as trace:
        assert printed == RENDERERS["json"](analyze_trace(trace), RenderOptions())
    assert analyzed(capsys, "--no-plugins", "--format", "markdown")[0] == 2


def test_the_examples_finding_keeps_its_own_fix(example: Path) -> None:
    """Ours are found as before: with the same fixes, plans and order."""
    world = grow(World(), pswpin=1_000_000, pswpout=0)
    both, ours = world.report(causes().taken), world.report()
    assert [each.cause for each in ours.findings] == ["C1"]
    assert both.findings[:-1] == ours.findings
    assert both.plans == ours.plans
    last = both.findings[-1]
    assert (last.cause, last.fixes[0].id) == ("EX-SWAP", "swappiness")
    assert last.evidence[0].figures[0].value == 4096 * 1_000_000
    assert any("numatrace-example 1.0" in note for note in last.notes)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_every_renderer_shows_the_examples_finding(example: Path, renderer: str) -> None:
    report = grow(World(), pswpin=1_000_000, pswpout=0).report(causes().taken)
    shown = RENDERERS[renderer](report, RenderOptions())
    assert "EX-SWAP" in shown
    assert "vm.swappiness=1" in shown


def test_the_examples_renderer_is_a_format(
    example: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, printed, told = analyzed(capsys, "--format", "markdown")
    assert (status, told) == (0, "")
    verdict = json.loads((FIXTURE.parent / "report.json").read_text())["verdict"]["sentence"]
    assert printed.splitlines()[0].replace("\\", "").strip("*") == verdict
    assert "| thread | name | CPU time |" in printed
    assert analyzed(capsys, "--format", "markdown", "-o", str(tmp_path / "report.md"))[0] == 0
    assert (tmp_path / "report.md").read_text() == printed


def test_doctor_lists_the_example(example: Path) -> None:
    found = doctor.check_plugins()
    assert found.state == "yes"
    for part in ("cause EX-SWAP", "renderer markdown", "numatrace-example 1.0"):
        assert part in found.value


def test_formats_complete(example: Path) -> None:
    assert plugins.formats() == [*RENDERERS, "markdown"]
    assert plugins.formats(others=False) == list(RENDERERS)


# The page of the guide.

PAGE = (ROOT / "numatrace/guide/plugins.md").read_text()


def test_the_guides_cause_is_one() -> None:
    (source,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    module = ModuleType("guides_cause")
    exec(source, module.__dict__)
    found = guarded(module, "guide 1")
    for pages, kind in ((10**6, "findings"), (1, "ruled_out")):
        report = grow(World(), pswpin=pages, pswpout=0).report([found])
        assert found.ID in [each.cause for each in getattr(report, kind)]
    assert found.problems == []


def test_the_guides_project_is_the_example() -> None:
    (source,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    shown = tomllib.loads(source)["project"]
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    assert shown.items() <= project.items()


# Broken causes: analyze says so in one line and goes on.

BROKEN_CAUSES = {
    "no such module": ("bad = other_none", "", "ModuleNotFoundError"),
    "no such object": ("bad = other_x:thing", "", "AttributeError"),
    "not an entry point": ("bad = 7&%", "", ""),
    "syntax": ("bad = other_x", "def", "SyntaxError"),
    "raises": ("bad = other_x", "raise ValueError('a\\x1b[2J\\nb')", "ValueError"),
    "raises in str": (
        "bad = other_x",
        "class Odd(Exception):\n    def __str__(self): return 1 / 0\nraise Odd",
        "Odd",
    ),
    "exits": ("bad = other_x", "raise SystemExit(0)", "SystemExit"),
    "empty module": ("bad = other_x", "", "without ID"),
    "a number": ("bad = other_x:N", "N = 1", "without ID"),
    "our ID": ("bad = other_x", cause_source(ID="'C1'"), "numatrace's own"),
    "an ID to come": ("bad = other_x", cause_source(ID="'C10'"), "numatrace's own"),
    "hostile ID": ("bad = other_x", cause_source(ID="'x\\x1b[2J'"), "the ID"),
    "ID of bytes": ("bad = other_x", cause_source(ID="b'x'"), "the ID"),
    "hostile name": ("bad = other_x", cause_source(NAME="'x\\ny'"), "the NAME"),
    "number": ("bad = other_x", cause_source(NUMBER="'1'"), "the NUMBER"),
    "explains": ("bad = other_x", cause_source(EXPLAINS="'C1'"), "EXPLAINS"),
    "look": ("bad = other_x", cause_source(look="3"), "look"),
    "look raises": ("bad = other_x", cause_source(look="lambda s: 1 / 0"), "ZeroDivisionError"),
    "look exits": ("bad = other_x", cause_source(look="lambda s: exit(3)"), "SystemExit"),
    "look without parameter": ("bad = other_x", cause_source(look="lambda: 1"), "TypeError"),
    "returns None": ("bad = other_x", cause_source(RESULT="None"), "type NoneType"),
    "returns another cause": (
        "bad = other_x",
        cause_source(RESULT="RuledOut('C1', NAME, judged=True, why='')"),
        "the cause 'C1'",
    ),
    "field of a wrong type": (
        "bad = other_x",
        cause_source(RESULT="Finding(ID, NAME, 'It is.', 1, ('text',), 'high')"),
        "Finding.evidence",
    ),
    "unknown word": (
        "bad = other_x",
        cause_source(RESULT="Finding(ID, NAME, 'It is.', 1, (Evidence('x'),), 'certain')"),
        "Finding.confidence",
    ),
}


@pytest.mark.parametrize("name", BROKEN_CAUSES)
def test_a_broken_cause_breaks_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry, source, words = BROKEN_CAUSES[name]
    installed(monkeypatch, tmp_path, "x", f"[numatrace.causes]\n{entry}\n", source)
    status, printed, told = analyzed(capsys, "--json")
    document = json.loads(printed)
    known = json.loads((FIXTURE.parent / "report.json").read_text())
    assert status == 0
    assert document["findings"] == known["findings"]
    left = [each for each in document["ruled_out"] if each["cause"] != "OTHER"]
    assert left == known["ruled_out"]
    assert len(told.splitlines()) == 1
    assert told.startswith("numatrace: left out: cause ")
    assert words in told
    assert told.rstrip("\n").isprintable()


def test_a_cause_that_fails_is_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = cause_source(look="lambda s: 1 / 0")
    installed(monkeypatch, tmp_path, "x", "[numatrace.causes]\na = other_x\n", source)
    _, printed, _ = analyzed(capsys, "--json")
    (other,) = [each for each in json.loads(printed)["ruled_out"] if each["cause"] == "OTHER"]
    assert other["judged"] is False
    assert "ZeroDivisionError" in other["why"]
    assert "x 2.0" in other["why"]


def test_what_a_package_prints_is_no_part_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = cause_source(look="lambda s: print('looked') or RESULT") + "print('imported')\n"
    source += "def r(report, options): print('rendered'); return '{}'\n"
    groups = "[numatrace.causes]\na = other_x\n[numatrace.renderers]\nb = other_x:r\n"
    installed(monkeypatch, tmp_path, "x", groups, source)
    status, printed, told = analyzed(capsys, "--format", "b")
    assert (status, printed) == (0, "{}")
    assert sorted(told.split()) == ["imported", "looked", "rendered"]


def test_of_two_causes_with_one_id_the_first_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("y", "x"):
        entry = f"[numatrace.causes]\n{name} = other_{name}\n"
        installed(monkeypatch, tmp_path, name, entry, cause_source(NAME=f"'of {name}'"))
    found = causes()
    assert [cause.NAME for cause in found.taken] == ["of x"]
    (problem,) = found.problems
    assert problem.startswith("cause y (y 2.0): ")
    assert "x 2.0" in problem


# Broken renderers: only the one that was asked for matters, and it is an error like any other.

BROKEN_RENDERERS = {
    "no such module": ("other_none:r", "", "ModuleNotFoundError"),
    "raises": ("other_x:r", "raise OSError('no')", "OSError: no"),
    "no function": ("other_x:r", "r = 'text'", "cannot be called"),
    "fails": ("other_x:r", "def r(report, options): raise KeyError('x')", "KeyError"),
    "exits": ("other_x:r", "def r(report, options): raise SystemExit(0)", "SystemExit"),
    "bytes": ("other_x:r", "def r(report, options): return b''", "returned bytes"),
}


@pytest.mark.parametrize("name", BROKEN_RENDERERS)
def test_a_broken_renderer_is_an_error_only_when_asked_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry, source, words = BROKEN_RENDERERS[name]
    installed(monkeypatch, tmp_path, "x", f"[numatrace.renderers]\nbad = {entry}\n", source)
    status, printed, told = analyzed(capsys)
    assert (status, told) == (0, "")
    assert printed
    target = tmp_path / "out"
    status, printed, told = analyzed(capsys, "--format", "bad", "-o", str(target))
    assert (status, printed) == (1, "")
    assert not target.exists()
    assert told.splitlines()[0] == "numatrace: the renderer bad (x 2.0) failed"
    assert words in told


@pytest.mark.parametrize("name", [*RENDERERS, "a b", "-x", "x" * 33])
def test_a_renderer_with_a_bad_name_is_not_taken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(
        monkeypatch, tmp_path, "x", f"[numatrace.renderers]\n{name} = other_x:r\n", "r = print"
    )
    taken, (problem,) = plugins.renderers(RENDERERS)
    assert taken == {}
    assert "x 2.0" in problem


def test_doctor_tells_of_every_broken_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = (
        "[numatrace.causes]\na = other_none\n[numatrace.renderers]\nb = other_none:r\ntext = x\n"
    )
    installed(monkeypatch, tmp_path, "x", groups)
    found = doctor.check_plugins()
    assert found.state == "degraded"
    assert "0" in found.value
    for part in ("cause a (x 2.0)", "renderer b (x 2.0)", "renderer text (x 2.0)"):
        assert part in found.why
    assert found.todo


def test_damaged_metadata_is_no_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "x", "\xff[numatrace.causes]\n\0===", "")
    (tmp_path / "x-2.0.dist-info/entry_points.txt").write_bytes(b"\xff\xfe[numatrace.causes\n=")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert causes() == Causes()


def test_text_of_another_renderer_does_not_act_on_a_terminal() -> None:
    assert plugins.without_controls("a\tb\n\x1b[2Jc\r\u202e\n") == "a\tb\n�[2Jc��\n"


@given(st.text())
def test_any_text_is_safe_on_a_terminal_and_keeps_its_lines(text: str) -> None:
    shown = plugins.without_controls(text)
    assert shown.count("\n") == text.count("\n")
    assert all(part.isprintable() for line in shown.split("\n") for part in line.split("\t"))


# What fits the types of a report.


def test_reports_of_ours_fit_their_types() -> None:
    report = grow(World(), pswpin=1, pswpout=0).report()
    assert report.findings[0].fixes
    for found in (*report.findings, *report.ruled_out):
        assert misfit(found, type(found)) == ""


FINDING = Finding("X", "n", "s", 1, (Evidence("e", (Figure(1.0, "ns", "counter"),)),), "high")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tgid": True}, "tgid"),
        ({"tgid": 1.0}, "tgid"),
        ({"notes": ["x"]}, "notes"),
        ({"lost_ns": Figure(float("nan"), "ns", "model")}, "Figure.value is nan"),
        ({"lost_ns": Figure(1.0, "ns", "hearsay")}, "Figure.source"),
        ({"lost_ns": "1"}, "lost_ns"),
        ({"document": RuledOut("X", "n", judged=True, why="")}, "document"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, object], words: str) -> None:
    assert words in misfit(replace(FINDING, **changes), Finding)


def test_lost_time_has_to_be_in_ns() -> None:
    class Odd:
        ID, NAME, NUMBER, EXPLAINS = "X", "n", None, ()

        def look(self, _situation: object) -> Finding:
            return replace(FINDING, lost_ns=Figure(1.0, "s", "model"))

    taken = guarded(Odd(), "odd 1")
    assert isinstance(taken, GuardedCause)
    outcome = taken.look(None)  # type: ignore[arg-type]
    assert isinstance(outcome, RuledOut)
    assert "'s'" in taken.problems[0]


def test_looking_twice_collects_problems_and_not_results(example: Path) -> None:
    first, second = (_report(causes()) for _ in range(2))
    assert first == second


def _report(found: Causes) -> Report:
    return grow(World(), pswpin=10**6, pswpout=0).report(found.taken)
