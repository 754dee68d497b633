"""Recorded traces and the reports that they must give, to the byte.

After a wanted change of the report: `.venv/bin/python tests/golden/test_golden.py` writes what is
expected anew; look at the difference before it is committed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from numatrace.analyze import analyze_trace
from numatrace.render import RENDERERS
from numatrace.render.options import RenderOptions
from numatrace.trace.reader import Trace

if TYPE_CHECKING:
    from numatrace.model.report import Report

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
TRACES = sorted(FIXTURES.glob("*/trace.arrow"))
MAX_BYTES = 1 << 20


def report_of(trace: Path) -> Report:
    with Trace.open(trace) as opened:
        return analyze_trace(opened)


def rendered(report: Report) -> dict[str, str]:
    options = RenderOptions()
    return {
        "report.txt": RENDERERS["text"](report, options),
        "report.json": RENDERERS["json"](report, options),
        "report.html.sha256": digest(RENDERERS["html"](report, options)),
    }


def digest(page: str) -> str:
    """Pages hold the report and the same 100 KB each: their sums are kept, not they."""
    return hashlib.sha256(page.encode()).hexdigest() + "\n"


def named(trace: Path) -> str:
    return trace.parent.name


def test_there_are_fixtures() -> None:
    assert {"S1", "S10", "S12"} <= {named(trace) for trace in TRACES}


@pytest.mark.parametrize("trace", TRACES, ids=named)
def test_report_is_as_expected(trace: Path) -> None:
    for name, text in rendered(report_of(trace)).items():
        assert text == (trace.parent / name).read_text("utf-8"), f"{named(trace)}/{name} differs"


@pytest.mark.parametrize("trace", TRACES, ids=named)
def test_fixture_is_small(trace: Path) -> None:
    assert trace.stat().st_size < MAX_BYTES


@pytest.mark.parametrize("trace", TRACES, ids=named)
def test_first_cause_is_the_stated_one(trace: Path) -> None:
    """`expected.json` holds what the scenario is labelled with: one of `first`, then of `also`."""
    expected = json.loads((trace.parent / "expected.json").read_text())
    report = report_of(trace)
    assert report.verdict.kind == expected["verdict"]
    causes = [finding.cause for finding in report.findings]
    assert bool(causes) == bool(expected["first"])
    assert set(causes[:1]) <= set(expected["first"])
    assert set(causes[1:]) <= {*expected["first"], *expected["also"]}


def accept() -> None:
    """Write the expected reports of all fixtures."""
    for trace in TRACES:
        for name, text in rendered(report_of(trace)).items():
            (trace.parent / name).write_text(text, "utf-8")


if __name__ == "__main__":
    sys.exit(accept())
