"""Text reports of traces that nobody records on purpose: empty, with losses, with hostile names.

After a wanted change: `.venv/bin/python tests/golden/test_golden_special.py` writes what is
expected anew, into tests/golden/special; look at the difference before it is committed.
"""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len

from numatrace.analyze import analyze_trace
from numatrace.render import RENDERERS, RenderOptions
from numatrace.trace.reader import Trace
from numatrace.trace.writer import TraceWriter
from tests.unit.test_analyze_world import MODEL, SECOND, World

if TYPE_CHECKING:
    from numatrace.model.report import Report

SPECIAL = Path(__file__).resolve().parent / "special"
EVIL = "\x1b[31mred\x1b]0;title\x07 [bold]b[/bold] \u202egpj\u2028\r\n</script> 漢字" + "x" * 90


def empty() -> Report:
    """A trace without a row."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.arrow"
        TraceWriter.create(path).close()
        with Trace.open(path) as trace:
            return analyze_trace(trace)


def with_losses() -> Report:
    """A third of the scheduler's events lost, in a trace that has no end."""
    moves = [
        ("move", [{"t_ns": SECOND + n, "tgid": 1000, "tid": 1000, "node": n % 2}])
        for n in range(20)
    ]
    return World(losses={"sched": 10}, extra=moves, closed=False).report()


def hostile() -> Report:
    """Names that would change a terminal, a page or a table, were they shown as they are."""
    model = f"/models/{EVIL}.gguf"
    report = World(comm=EVIL[:15], argv=(EVIL, "-m", MODEL, EVIL), policy=EVIL).report()
    layers = tuple(replace(each, path=model) for each in report.layers)
    tensors = tuple(replace(each, path=model, name=EVIL) for each in report.tensors)
    regions = tuple(replace(each, label=EVIL) for each in report.regions)
    return replace(report, layers=layers, tensors=tensors, regions=regions, notes=(EVIL,))


REPORTS = {"empty": empty, "losses": with_losses, "hostile": hostile}


def rendered(name: str) -> str:
    return RENDERERS["text"](REPORTS[name](), RenderOptions(tensors=True))


@pytest.mark.parametrize("name", REPORTS)
def test_report_is_as_expected(name: str) -> None:
    assert rendered(name) == (SPECIAL / f"{name}.txt").read_text("utf-8")


@pytest.mark.parametrize("name", REPORTS)
def test_twice_gives_the_same_bytes(name: str) -> None:
    assert rendered(name) == rendered(name)
    report = REPORTS[name]()
    for render in (RENDERERS["json"], RENDERERS["html"]):
        assert render(report, RenderOptions()) == render(REPORTS[name](), RenderOptions())
    assert json.loads(RENDERERS["json"](report, RenderOptions())) == report.to_json()


def test_no_name_reaches_the_terminal_as_it_is() -> None:
    shown = rendered("hostile")
    assert "red" in shown
    assert "[bold]b[/bold]" in shown  # markup is text
    bad = ("Cc", "Cf", "Cs", "Zl", "Zp")
    assert not {c for c in shown if unicodedata.category(c) in bad} - {"\n"}
    fixes = [fix for finding in hostile().findings for fix in finding.fixes]
    steps = [step for fix in fixes for step in (*fix.steps, *fix.verify, *fix.undo)]
    commands = {step.command[:8] for step in steps}
    for line in shown.split("\n"):
        assert cell_len(line) < 80 or line.strip()[:8] in commands, line


def test_losses_withhold_the_verdict() -> None:
    report = with_losses()
    assert report.verdict.kind == "withheld"
    assert rendered("losses").startswith("No verdict: ")
    assert "its end is missing" in rendered("losses")
    assert "10 (22 %)" in rendered("losses")


def accept() -> None:
    """Write what is expected of all."""
    SPECIAL.mkdir(exist_ok=True)
    for name in REPORTS:
        (SPECIAL / f"{name}.txt").write_text(rendered(name), "utf-8")


if __name__ == "__main__":
    accept()
