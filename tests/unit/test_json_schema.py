"""The JSON Schemas: what `--json` prints keeps to them, and nothing else does."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings

from numatrace.analyze import analyze_batches
from numatrace.analyze.compare import compare
from numatrace.model.comparison import COMPARISON_VERSION, Comparison
from numatrace.model.report import REPORT_VERSION, Report
from numatrace.render import RENDERERS, RenderOptions
from numatrace.render.compare import comparison_json
from numatrace.render.json_schema import comparison_schema, report_schema
from tests.unit.anything import ANYTHING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = sorted(ROOT.glob("fixtures/*/report.json"))
COMPARISONS = sorted(ROOT.glob("fixtures/*/compare-*.json"))
SCHEMAS = {"report": report_schema(), "comparison": comparison_schema()}
PUBLISHED = ROOT / "tests" / "golden"


def check(document: Any, name: str = "report") -> None:
    jsonschema.Draft202012Validator(SCHEMAS[name]).validate(document)


def refused(document: Any, name: str = "report") -> bool:
    return not jsonschema.Draft202012Validator(SCHEMAS[name]).is_valid(document)


@pytest.mark.parametrize("name", SCHEMAS)
def test_is_a_schema_of_the_draft_that_it_names(name: str) -> None:
    schema = SCHEMAS[name]
    assert jsonschema.validators.validator_for(schema) is jsonschema.Draft202012Validator
    jsonschema.Draft202012Validator.check_schema(schema)
    version = {"report": REPORT_VERSION, "comparison": COMPARISON_VERSION}[name]
    assert schema["$id"] == f"urn:numatrace:{name}:{version}"
    assert schema["properties"]["schema_version"]["const"] == version
    assert json.loads(json.dumps(schema)) == schema


# --- what is printed keeps to it


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.parent.name)
def test_every_recorded_report(path: Path) -> None:
    check(json.loads(path.read_text()))


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_every_recorded_comparison(path: Path) -> None:
    check(json.loads(path.read_text()), "comparison")


def test_the_empty_trace() -> None:
    report = analyze_batches([], 2)
    check(json.loads(RENDERERS["json"](report, RenderOptions())))
    check(json.loads(comparison_json(compare(report, report))), "comparison")


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(ANYTHING.of(Report))
def test_any_report_with_any_names(report: Report) -> None:
    document = json.loads(RENDERERS["json"](report, RenderOptions()))
    check(document | {"schema_version": REPORT_VERSION})


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(ANYTHING.of(Comparison))
def test_any_comparison_with_any_names(comparison: Comparison) -> None:
    document = json.loads(comparison_json(comparison))
    check(document | {"schema_version": COMPARISON_VERSION}, "comparison")


# --- and nothing else does


def short(item: Any) -> Any:
    """A document with the first entry of every list: as valid, and checked in no time."""
    if isinstance(item, dict):
        return {key: short(value) for key, value in item.items()}
    return [short(value) for value in item[:1]] if isinstance(item, list) else item


def objects(item: Any) -> Iterator[dict[str, Any]]:
    """Every object of a document that has fields."""
    if isinstance(item, dict):
        if not all(key.isdigit() for key in item):
            yield item
        for value in list(item.values()):
            yield from objects(value)
    elif isinstance(item, list):
        for value in item:
            yield from objects(value)


@pytest.mark.parametrize(
    ("name", "path"),
    [("report", ROOT / "fixtures/S1/report.json"), ("comparison", COMPARISONS[0])],
    ids=["report", "comparison"],
)
def test_a_field_that_is_gone_new_or_of_another_type_is_refused(name: str, path: Path) -> None:
    document = short(json.loads(path.read_text()))
    valid = jsonschema.Draft202012Validator(SCHEMAS[name]).is_valid
    tried = 0
    for item in objects(document):
        assert valid(document)
        item["new"] = 1
        assert not valid(document)
        del item["new"]
        for key in list(item):
            value = item.pop(key)
            assert not valid(document), key
            item[key] = {"no": ["such"]}
            assert not valid(document), key
            item[key] = value
            tried += 1
    assert tried > 60


def test_a_node_is_a_number_as_text_and_a_kind_is_one_of_those_that_are_listed() -> None:
    document = json.loads(FIXTURES[0].read_text())
    for key in ("x", "01", "-1", ""):
        other = copy.deepcopy(document)
        other["processes"][0]["oncpu_ns"] = {key: 1}
        assert refused(other)
    other = copy.deepcopy(document)
    other["verdict"]["kind"] = "sick"
    assert refused(other)


# --- what was published stays


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_was_published_under_this_version_stays(name: str) -> None:
    """Fields and listed values may be added to a version; to take or change one needs a new one.

    After that: `PYTHONPATH=. python tests/unit/test_json_schema.py` writes what is published.
    """
    old = json.loads((PUBLISHED / f"{name}.schema.json").read_text())
    new = SCHEMAS[name]
    if old["$id"] == new["$id"]:
        for kind, one, other in [("", old, new)] + [
            (kind, old["$defs"][kind], new["$defs"].get(kind, {"properties": {}}))
            for kind in old["$defs"]
        ]:
            for field, schema in one["properties"].items():
                now = other["properties"].get(field)
                assert now is not None, f"{kind}.{field} is gone: raise the version"
                assert form(schema) == form(now), f"{kind}.{field} changed: raise the version"
    assert old == new, "fields were added: write what is published anew"


def form(schema: Any) -> Any:
    """A schema without what may change under one version: descriptions and further values."""
    if isinstance(schema, list):
        return [form(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: form(value) for key, value in schema.items() if key not in ("description", "enum")
    } | ({"enum": True} if "enum" in schema else {})


if __name__ == "__main__":
    for each, published in SCHEMAS.items():
        text = json.dumps(published, indent=2) + "\n"
        (PUBLISHED / f"{each}.schema.json").write_text(text)
