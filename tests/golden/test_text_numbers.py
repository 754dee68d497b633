"""All that a fixture's text report says in numbers, read back, is what its JSON says."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from numatrace.model.units import format_bytes, format_ns, format_share
from numatrace.render import RENDERERS, RenderOptions
from tests.golden.test_golden import TRACES, named, report_of
from tests.unit.text_tables import tables

if TYPE_CHECKING:
    from pathlib import Path

    from numatrace.model.report import Report

Row = dict[str, str]
MANY = 10_000


@pytest.fixture(scope="module", params=TRACES, ids=named)
def report(request: pytest.FixtureRequest) -> Report:
    trace: Path = request.param
    return report_of(trace)


@pytest.fixture(scope="module", params=[80, 120])
def text(request: pytest.FixtureRequest, report: Report) -> str:
    width: int = request.param
    options = RenderOptions(width=width, top=MANY, tensors=True)
    return RENDERERS["text"](report, options)


@pytest.fixture(scope="module")
def data(report: Report) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RENDERERS["json"](report, RenderOptions()))
    return found


def part(text: str, title: str) -> list[Row]:
    """The rows of all tables of one section."""
    found = re.split(r"\n\n(?=[A-Z][A-Z:,' -]+\n)", text)
    chosen = found[:1] if not title else [each for each in found if each.startswith(title)]
    return [row for each in chosen for table in tables(each) for row in table]


def shares(amounts: dict[str, int], row: Row) -> list[tuple[str, str]]:
    """What the columns of nodes say, and what they are to say."""
    total = sum(amounts.values())
    columns = [title for title in row if re.fullmatch(r"node \d+", title)]
    return [
        (row[title], format_share(amounts.get(title[5:], 0) / total) if total else "-")
        for title in columns
    ]


def agree(pairs: list[tuple[str, str]]) -> None:
    said, meant = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    assert said == meant


def test_the_verdict(text: str, data: dict[str, Any]) -> None:
    start = " ".join(text.split("\n\n")[0].split())
    assert start.endswith(data["verdict"]["sentence"])


def test_the_picture_of_the_nodes(text: str, data: dict[str, Any]) -> None:
    rows = [row for row in part(text, "") if "node" in row]
    nodes = data["machine"]["nodes"]
    if data["server"] is None or len(nodes) < 2 or data["verdict"]["kind"] == "withheld":
        assert rows == []
        return
    assert [row["node"] for row in rows] == [str(view["node"]) for view in nodes]
    for title, amounts, form in (
        ("weights", data["server"]["weights_bytes"], format_bytes),
        ("compute threads", data["server"]["compute_ns"], format_ns),
    ):
        total = sum(amounts.values())
        head = f"{title}, {form(total)}"
        agree([(r[head], format_share(amounts.get(r["node"], 0) / total)) for r in rows])


def test_cost_fix_and_remote_share(text: str, data: dict[str, Any]) -> None:
    start = " ".join(text.partition("\n\nWHAT WAS FOUND")[0].split())
    if data["findings"]:
        lost = next((f["lost_ns"] for f in data["findings"] if f["lost_ns"]), None)
        total = sum(data["server"]["compute_ns"].values())
        said = f"{format_ns(lost['value'])} of {format_ns(total)}" if lost else "cost not known"
        assert said in start
        assert f"cause {data['findings'][0]['cause']}, {data['findings'][0]['name']};" in start
    if data["verdict"]["kind"] in ("fix", "healthy") and data["server"]["remote_share"]:
        share = data["server"]["remote_share"]
        assert f"remote {format_share(share['value'])}" in start
        assert f"[{share['source']}]" in start


def test_threads(text: str, data: dict[str, Any]) -> None:
    rows = [row for row in part(text, "THREADS") if "thread" in row]
    assert len(rows) == len(data["threads"])
    views = {str(view["tid"]): view for view in data["threads"]}
    for row in rows:
        view = views[row["thread"]]
        assert row["CPU time"] == format_ns(sum(view["oncpu_ns"].values()))
        assert row["moves"].split(" ")[0] == f"{view['moves']:,}"
        assert row["faults"] == f"{view['faults']:,}"
        agree(shares(view["oncpu_ns"], row))


def test_regions(text: str, data: dict[str, Any]) -> None:
    rows = [row for row in part(text, "MEMORY") if "in memory" in row]
    assert len(rows) == len(data["regions"])
    servers = {process["tgid"] for process in data["processes"] if process["is_server"]}
    ordered = sorted(data["regions"], key=lambda view: view["tgid"] not in servers)
    for row, view in zip(rows, ordered, strict=True):
        present = sum(view["node_bytes"].values())
        sizes = [format_bytes(size) if size else "-" for size in (view["bytes"], present)]
        assert [row["size"], row["in memory"]] == sizes
        assert row["faults"] == f"{view['faults']:,}"
        agree(shares(view["node_bytes"], row))


def test_layers(text: str, data: dict[str, Any]) -> None:
    rows = [row for row in part(text, "LAYERS") if "tensors" in row]
    assert sum(int(row["tensors"].replace(",", "")) for row in rows) == len(data["tensors"])
    for row in rows:
        first, _, last = row["layers"].removeprefix("blk.").partition("-")
        if row["layers"] == "in no layer":
            group = [view for view in data["layers"] if view["layer"] is None]
        else:
            span = range(int(first), int(last or first) + 1)
            group = [view for view in data["layers"] if view["layer"] in span]
        assert row["size"] == format_bytes(sum(view["bytes"] for view in group))
        nodes = {node for view in group for node in view["node_bytes"]}
        amounts = {n: sum(view["node_bytes"].get(n, 0) for view in group) for n in nodes}
        agree(shares(amounts, row))


def test_tensors(text: str, data: dict[str, Any]) -> None:
    rows = [row for row in part(text, "TENSORS") if "tensor" in row]
    assert len(rows) == len(data["tensors"])
    for row, view in zip(rows, data["tensors"], strict=True):
        assert [row["type"], row["size"]] == [view["type"], format_bytes(view["bytes"])]
        agree(shares(view["node_bytes"], row))


def test_reads_of_threads(text: str, data: dict[str, Any]) -> None:
    rows = [r for r in part(text, "WHO READS WHAT") if "thread" in r and "from" not in r]
    views = {str(view["tid"]): view for view in data["threads"]}
    for row in rows:
        view = views[row["thread"]]
        assert row["reading"] == format_ns(view["read_ns"])
        assert row["lost"] == (format_ns(view["lost_ns"]) if view["lost_ns"] else "-")
        share = view["remote_share"]
        assert row["remote"].split(" (")[0] == (
            format_share(share["value"]) if share else "too few"
        )
    measured = data["access"] is not None and data["access"]["rung"] != "placement"
    servers = {process["tgid"] for process in data["processes"] if process["is_server"]}
    expected = [v for v in data["threads"] if v["read_ns"] and v["tgid"] in servers]
    assert len(rows) == (len(expected) if measured else 0)


def test_phases(text: str, data: dict[str, Any]) -> None:
    rows = [row for row in part(text, "WHO READS WHAT") if "phase" in row]
    for row, view in zip(rows, data["phases"], strict=bool(rows)):
        assert row["phase"] == view["phase"]
        assert row["duration"] == format_ns(view["duration_ns"])
        assert row["CPU time"] == format_ns(view["oncpu_ns"])
        assert row["samples"] == f"{view['samples']:,}"
        assert row["lost"] == (format_ns(view["lost_ns"]) if view["lost_ns"] else "-")


def test_plans(text: str, data: dict[str, Any]) -> None:
    rows = {row["plan"]: row for row in part(text, "WHAT ELSE") if "plan" in row}
    for plan in data["plans"]:
        if plan["id"] in rows and plan["remote_share"]:
            assert rows[plan["id"]]["remote"] == format_share(plan["remote_share"]["value"])
    carried = {fix["plan"] for finding in data["findings"] for fix in finding["fixes"][:1]}
    assert {plan["id"] for plan in data["plans"]} - carried <= {*rows}


def test_the_account(text: str, data: dict[str, Any]) -> None:
    rows = {row["events"]: row for row in part(text, "WHERE THE") if "events" in row}
    assert set(rows) == {loss["family"] for loss in data["losses"]}
    for loss in data["losses"]:
        for name in ("recorded", "attributed", "unattributed", "lost"):
            assert rows[loss["family"]][name].split(" ")[0] == f"{loss[name]:,}"


def test_the_same_report_gives_the_same_bytes(report: Report) -> None:
    for options in (
        RenderOptions(width=100, height=20, colour=True),
        RenderOptions(by="layer"),
        RenderOptions(ascii=True, tensors=True),
    ):
        assert RENDERERS["text"](report, options) == RENDERERS["text"](report, options)


@pytest.mark.parametrize("by", ["thread", "slot", "layer", "tensor", "node", "phase"])
def test_one_table_fits(report: Report, by: Any) -> None:
    for width in (80, 120):
        shown = RENDERERS["text"](report, RenderOptions(width=width, by=by, ascii=True))
        assert max(map(len, shown.split("\n"))) < width
        assert shown.isascii()
