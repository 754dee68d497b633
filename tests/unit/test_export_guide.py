"""The questions of `numatrace guide export`: every answer is the same in polars and duckdb."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from numatrace.cli.main import run
from numatrace.export import FORMATS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "numatrace/guide/export.md").read_text("utf-8")
QUESTIONS = list(
    zip(
        re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL),
        re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL),
        strict=True,
    )
)
CPU, REMOTE, PLACES = range(3)
FIXTURES = ["S1", "S3", "S8", "S17"]


@pytest.fixture(params=FIXTURES)
def fixture(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder of fixtures; we are in one with its trace, exported as the page says."""
    folder = ROOT / "fixtures" / request.param
    (tmp_path / "trace.arrow").write_bytes((folder / "trace.arrow").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert run(["export", "-o", "trace.parquet"]) == 0
    return folder


def asked(question: int) -> list[dict[str, Any]]:
    """The answer of both, which is one."""
    python, sql = QUESTIONS[question]
    names: dict[str, Any] = {}
    exec(python, names)
    polars = names["answer"].to_dicts()
    duck = duckdb.sql(sql).pl().to_dicts()
    assert sorted(map(rounded, polars)) == sorted(map(rounded, duck))
    assert polars
    return polars


def rounded(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(round(float(v), 9) if not isinstance(v, str) else v for v in row.values())


def test_there_are_three() -> None:
    assert len(QUESTIONS) == 3


def test_time_on_cpu_is_the_reports(fixture: Path) -> None:
    report = json.loads((fixture / "report.json").read_text())
    wanted = sum(ns for thread in report["threads"] for ns in thread["oncpu_ns"].values())
    assert sum(row["cpu_s"] for row in asked(CPU)) == pytest.approx(wanted / 1e9)


def test_remote_shares_are_shares_of_all_samples_with_nodes(fixture: Path) -> None:
    rows = [row for row in asked(REMOTE) if row["remote_share"] is not None]
    assert all(0 <= row["remote_share"] <= 1 for row in rows)
    trace = pl.read_ipc("trace.arrow").with_columns(pl.col("kind").cast(pl.String))
    known = trace.filter(pl.col("mem_node") >= 0, pl.col("node") >= 0, kind="access")
    assert sum(row["samples"] for row in rows) == len(known) > 0


def test_bytes_of_the_model_are_the_reports(fixture: Path) -> None:
    report = json.loads((fixture / "report.json").read_text())
    found = {
        (row["tgid"], row["path"], str(row["mem_node"])): row["bytes"] for row in asked(PLACES)
    }
    wanted: Counter[tuple[int, str, str]] = Counter()
    for region in report["regions"]:
        if region["path"].endswith(".gguf"):
            for node, size in region["node_bytes"].items():
                wanted[region["tgid"], region["path"], node] += size
    assert wanted
    gone = unmapped()  # the page says that these count
    assert {key: found[key] - gone[key] for key in wanted} == wanted


def unmapped() -> Counter[tuple[int, str, str]]:
    """Bytes of the last looks at pieces that were unmapped after them."""
    trace = pl.read_ipc("trace.arrow").with_columns(pl.col("kind").cast(pl.String))
    places: dict[tuple[int, int, str], list[dict[str, Any]]] = {}
    for row in trace.filter(kind="place").to_dicts():
        rows = places.setdefault((row["tgid"], row["addr"], row["name"]), [])
        places[row["tgid"], row["addr"], row["name"]] = [
            *(each for each in rows if each["t_ns"] == row["t_ns"]),
            row,
        ]
    gone: Counter[tuple[int, str, str]] = Counter()
    for old in trace.filter(kind="unmap").to_dicts():
        for (tgid, addr, _), rows in places.items():
            inside = old["addr"] <= addr < old["addr"] + old["bytes"]
            if tgid == old["tgid"] and inside and rows[0]["t_ns"] < old["t_ns"]:
                for row in rows:
                    gone[tgid, row["path"], str(row["mem_node"])] += row["node_bytes"]
    return gone


def test_the_page_names_every_format_and_ending() -> None:
    for name, each in FORMATS.items():
        row = re.search(rf"^\| `{name}` \| ([^|]+) \|", PAGE, re.MULTILINE)
        assert row is not None
        assert re.findall(r"`(\S+)`", row[1]) == list(each.suffixes)
