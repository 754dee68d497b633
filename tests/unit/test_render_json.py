"""The JSON report: the same data, safe to show on a terminal, and described by its page."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from numatrace.model.findings import Evidence, Verdict
from numatrace.model.report import REPORT_VERSION, TYPES, Figure, Provenance, Report
from numatrace.model.views import MachineView
from numatrace.render import RENDERERS, RenderOptions
from tests.unit.anything import ANYTHING

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "numatrace/guide/json.md").read_text()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(ANYTHING.of(Report))
def test_parses_back_to_the_report(report: Report) -> None:
    shown = RENDERERS["json"](report, RenderOptions())
    assert json.loads(shown) == report.to_json()
    assert list(json.loads(shown)) == [part.name for part in dataclasses.fields(Report)]
    assert set(shown) <= {"\n", *map(chr, range(32, 127))}
    assert RENDERERS["json"](report, RenderOptions(top=1, colour=True, width=200)) == shown


def report_of(text: str, *figures: Figure) -> Report:
    return Report(
        Verdict("healthy", text, (Evidence(text, figures),)), (), MachineView("", (), None), (), (),
        (), (), (), (), (), Provenance(1, 0, 0, "", (), (), ()),
    )  # fmt: skip


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_in_json_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        RENDERERS["json"](report_of("", Figure(value, "share", "model")), RenderOptions())


@pytest.mark.parametrize("char", [*map(chr, range(32)), "\x7f", "\x9b", "\u202e", "\ud800", "é"])
def test_every_character_that_a_terminal_may_obey_is_escaped(char: str) -> None:
    shown = RENDERERS["json"](report_of(f"a{char}b"), RenderOptions())
    assert set(shown) <= {"\n", *map(chr, range(32, 127))}
    assert json.loads(shown)["verdict"]["sentence"] == f"a{char}b"


@pytest.mark.parametrize("cls", TYPES, ids=lambda cls: cls.__name__)
def test_page_describes_every_field(cls: type) -> None:
    part = PAGE.partition(f"\n## {cls.__name__}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", part, re.MULTILINE)
    assert [name for name, _, _ in rows] == [item.name for item in dataclasses.fields(cls)]
    for _, type_, _ in rows:
        assert not re.search(r"tuple|dict\[|Literal|None|int\b|\bstr\b", type_), type_


def test_page_promises_for_this_version_and_its_links_lead_somewhere() -> None:
    assert f"`schema_version` is {REPORT_VERSION}." in PAGE
    headings = {title.lower() for title in re.findall(r"^## (\w+)$", PAGE, re.MULTILINE)}
    assert set(re.findall(r"\]\(#(\w+)\)", PAGE)) <= headings
