"""The HTML page as text: what is in it, that data stays data, and that it stays small."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numatrace.cli.main import run
from numatrace.model.report import Report
from numatrace.model.text import printable
from numatrace.render import RENDERERS, RenderOptions
from numatrace.render.html.bounds import LEVELS, UNUSED, bounded
from numatrace.render.html.page import LIBRARY, LICENCE, MAX_BYTES, SCRIPTS, data_text
from tests.unit.anything import Anything
from tests.unit.html_cases import FIXTURES, HOSTILE, NAMES, hostile, huge, recorded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HERE = files("numatrace.render.html")
ANYTHING = Anything(
    {
        int: st.integers(),
        str: st.text(st.characters()) | st.sampled_from(HOSTILE),
        bool: st.booleans(),
        float: st.floats(allow_nan=False, allow_infinity=False),
    },
    st.integers(),
)


@pytest.fixture(scope="module")
def report() -> Report:
    return recorded("S1")


def page_of(report: Report) -> str:
    return RENDERERS["html"](report, RenderOptions())


def data_of(page: str) -> Any:
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert len(found) == 1
    return json.loads(found[0])


def scripts_of(page: str) -> list[str]:
    return re.findall(r"<script>(.*?)</script>", page, re.DOTALL)


def strings(item: Any) -> Iterator[str]:
    if isinstance(item, str):
        yield item
    for each in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
        yield from strings(each)


def made_printable(item: Any, name: str = "") -> Any:
    """A value with its texts, commands excepted, as they may be shown."""
    if isinstance(item, dict):
        return {key: made_printable(each, key) for key, each in item.items()}
    if isinstance(item, list):
        return [made_printable(each, name) for each in item]
    return printable(item, 2000) if isinstance(item, str) and name != "command" else item


def test_the_page_holds_the_whole_report(report: Report) -> None:
    data = data_of(page_of(report))
    assert data["left_out"] == {}
    whole = json.loads(json.dumps(report.to_json()))
    shown = {name: part for name, part in whole.items() if name not in UNUSED}
    assert data["report"] == shown


@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_the_expected_report_of_every_fixture(name: str) -> None:
    """The numbers of the page are those of the JSON report, which is held to the byte."""
    expected = json.loads((FIXTURES / name / "report.json").read_text())
    shown = data_of(page_of(recorded(name)))["report"]
    assert shown == {
        part: made_printable(each) for part, each in expected.items() if part not in UNUSED
    }


def test_the_same_report_gives_the_same_bytes(report: Report) -> None:
    assert page_of(report) == page_of(recorded("S1"))


def test_the_answer_is_there_without_scripts(report: Report) -> None:
    assert f'<h1 id="sentence">{html.escape(report.verdict.sentence)}</h1>' in page_of(report)


# --- nothing from outside, nothing but ours


def test_the_policy_names_exactly_what_is_in_the_page(report: Report) -> None:
    page = page_of(report)
    policy = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)[0]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    for name, texts, count in (("script-src", scripts_of(page), 2), ("style-src", styles, 1)):
        sums = [hashlib.sha256(text.encode()).digest() for text in texts]
        assert rules[name].split() == [f"'sha256-{base64.b64encode(s).decode()}'" for s in sums]
        assert len(texts) == count
    assert "unsafe" not in policy


def test_the_page_loads_nothing(report: Report) -> None:
    page = page_of(report)
    assert not re.search(r"<(?:link|img|iframe|object|embed|base)\b", page)
    assert not re.search(r"\ssrc=|@import|\burl\(", page)
    assert "\nfetch(" not in page
    assert "XMLHttpRequest" not in page


def test_scripts_parse_no_markup_and_no_code() -> None:
    words = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc"
    for name in (*(f"{each}.js" for each in SCRIPTS), f"vendor/{LIBRARY}"):
        text = HERE.joinpath(name).read_text("utf-8")
        assert not re.search(words, text), name
        assert "</script" not in text, name
        assert "<!--" not in text, name


def test_every_script_is_part_of_the_page(report: Report) -> None:
    own = scripts_of(page_of(report))[1]
    names = {path.name for path in HERE.iterdir() if path.name.endswith(".js")}
    assert names == {f"{name}.js" for name in SCRIPTS}
    for name in SCRIPTS:
        assert HERE.joinpath(f"{name}.js").read_text("utf-8") in own


def test_the_library_is_what_its_note_says_with_its_licence(report: Report) -> None:
    vendor = HERE / "vendor"
    note = vendor.joinpath("README.md").read_text("utf-8")
    sums = dict(re.findall(r"^\| `([\w.]+)` \| `([0-9a-f]{64})` \|$", note, re.MULTILINE))
    kept = {path.name for path in vendor.iterdir()} - {"README.md", LICENCE}
    assert set(sums) == kept
    for name, sum_ in sums.items():
        assert hashlib.sha256(vendor.joinpath(name).read_bytes()).hexdigest() == sum_, name
    version = re.findall(r"uPlot \(v([\d.]+)\)", vendor.joinpath(LIBRARY).read_text("utf-8"))
    assert f"uPlot {version[0]} by" in note
    assert vendor.joinpath(LICENCE).read_text("utf-8") in page_of(report)


# --- data stays data


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_cannot_leave_its_element(text: str) -> None:
    made = data_text({"name": text})
    assert json.loads(made) == {"name": text}
    assert not re.search("[<>&\u2028\u2029]", made)
    assert made.isascii()


def test_a_hostile_report_changes_nothing_but_the_data(report: Report) -> None:
    plain, bad = page_of(report), page_of(hostile(report))
    assert scripts_of(bad) == scripts_of(plain)
    for tag in ("<script", "</script", "<!--", "<img", "<svg"):
        assert bad.count(tag) == plain.count(tag), tag
    rows = (row for text in strings(data_of(bad)["report"]) for row in text.split("\n"))
    assert all(map(str.isprintable, rows))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(ANYTHING.of(Report))
def test_any_report_makes_a_page(report: Report) -> None:
    page = page_of(report)
    assert len(page.encode()) < MAX_BYTES
    assert len(scripts_of(page)) == 2
    assert data_of(page)["report"]["verdict"]["kind"] == report.verdict.kind


def test_a_command_that_cannot_be_shown_is_marked(report: Report) -> None:
    parts, _ = bounded(hostile(report).to_json(), LEVELS[0])
    steps = parts["findings"][0]["fixes"][0]["steps"]
    assert any(step.get("unshowable") for step in steps)
    for step in steps:
        rows = step["command"].split("\n")
        assert all(row.isprintable() for row in rows)
    whole, _ = bounded(report.to_json(), LEVELS[0])
    assert not any("unshowable" in step for step in whole["findings"][0]["fixes"][0]["steps"])


# --- small, whatever the trace


def test_a_huge_report_makes_a_small_page_that_says_so(report: Report) -> None:
    page = page_of(huge(report))
    assert len(page.encode()) < MAX_BYTES
    data = data_of(page)
    for name in ("tensors", "threads", "regions", "processes", "grid"):
        assert data["left_out"][name] == len(getattr(huge(report), name)) - len(
            data["report"][name]
        )


def test_the_last_level_is_far_below_the_limit(report: Report) -> None:
    parts, left_out = bounded(huge(report).to_json(), LEVELS[-1])
    assert len(data_text(parts)) + len(data_text(left_out)) < MAX_BYTES // 4
    most = max(LEVELS[-1].chars, LEVELS[-1].command_chars)
    assert all(len(text) <= most for text in strings(parts))


# --- the command


def test_analyze_writes_the_page_beside_the_text(
    tmp_path: Path, report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    place, trace = tmp_path / "report.html", str(FIXTURES / "S1" / "trace.arrow")
    assert run(["analyze", trace, "--html", str(place)]) == 0
    said = capsys.readouterr()
    assert report.verdict.sentence.split(",")[0] in said.out
    assert "open it in a browser" in said.err
    assert place.read_text("utf-8") == page_of(report)
    assert run(["analyze", trace, "--html", str(place)]) == 2
    assert "--html" in capsys.readouterr().err
    assert run(["analyze", trace, "--html", str(place), "-o", str(place), "--force"]) == 2
    assert "both -o and --html" in capsys.readouterr().err
    assert run(["analyze", trace, "--html", str(place), "--force"]) == 0


def test_a_page_is_never_written_over_the_trace(tmp_path: Path) -> None:
    trace = tmp_path / "trace.arrow"
    trace.write_bytes((FIXTURES / "S1" / "trace.arrow").read_bytes())
    before = trace.read_bytes()
    assert run(["analyze", str(trace), "--html", str(trace), "--force"]) == 2
    assert trace.read_bytes() == before
