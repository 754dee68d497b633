"""A comparison as text and JSON: what it says, that it fits 79 columns, that no name breaks it."""

from __future__ import annotations

import dataclasses
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from numatrace.analyze.compare import compare
from numatrace.model.comparison import (
    COMPARISON_TYPES,
    COMPARISON_VERSION,
    Comparison,
    Setting,
)
from numatrace.model.views import MachineView, ThreadView
from numatrace.render.compare import comparison_json, comparison_text
from numatrace.render.options import RenderOptions
from tests.unit.anything import Anything
from tests.unit.compare_reports import (
    GIB,
    SECOND,
    bound,
    expected,
    imbalanced,
    node,
    report,
    server,
    share,
    thread,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "numatrace/guide/compare.md").read_text()

HOSTILE = (
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "two\nlines\r\x0b\x0c\x85\u2028\u2029end",
    "\u202egpj.exe\u202c\u2066x\u2069",
    "漢字かな交じり文" * 12,
    "/" + "d" * 3999,
    "e" + "\u0301" * 500,
    "\ud800\x00\x7f",
    "",
    " " * 90,
)

EXPECTED = """\
As predicted: 48 % of the reads of weights are remote in BEFORE, 1 % in AFTER.

  remote  48 % (46-50) → 1 % (0-2) of the reads of weights

  node  weights before  after  threads before  after
     0  ██████████ 100 %  ██████████ 100 %  █████  50 %  ██████████ 100 %
     1  0 %  0 %  █████ 50 %  0 %

  - BEFORE, 10 s, verdict: fix (C1). It is fix.
  - AFTER, 10 s, verdict: healthy. It is healthy.

WHAT WAS PREDICTED OF THE FIX

  Plan bind:0, everything on node 0: kept. C1 is gone.

                               predicted   seen  off  kept
  remote reads of the weights        0 %    1 %   +1   yes
  weights on node 0                100 %  100 %    0   yes
  Kept: off by at most 5 points.

REMOTE READS OF THE WEIGHTS

  phase                  before         after            change  beyond chance
  overall  48 % (46-50)     1 % (0-2)   -47 (-49 to -45)               yes
  load             90 % (80-95)  90 % (80-95)    0 (-11 to +11)                no
  decode           48 % (46-50)     1 % (0-2)   -47 (-49 to -45)               yes
"""


def text(comparison: Comparison, **options: Any) -> str:
    return comparison_text(comparison, RenderOptions(**options))


def words(shown: str) -> list[list[str]]:
    """Lines as their words: how wide a column is does not matter."""
    return [line.split() for line in shown.split("\n")]


def test_says_the_answer_then_the_prediction_then_the_shares() -> None:
    shown = text(compare(imbalanced(), bound()))
    assert words(shown)[: len(words(EXPECTED)) - 1] == words(EXPECTED)[:-1]


@pytest.mark.parametrize(
    "row",
    [
        "compute threads 4 2",
        "CPU time of the compute threads 40 s 20 s",
        "moves per thread-second 0.30 0",
        "time lost per second of compute 10 % 10 %",
        "0 1.0 GiB, 100 % → 1.0 GiB, 100 % 50 % → 100 % 6.0 GiB → 6.0 GiB",
        "compute 1 10 s → 10 s 50/50 → 100/0 0.30 → 0 48 % → 1 % *",
        "compute 3 10 s → - 50/50 → - 0.30 → - 48 % → -",
        "blk.0-7 1.0 GiB 100/0 → 100/0 0 %",
        "- compute threads: 4 → 2",
    ],
)
def test_rows(row: str) -> None:
    before = imbalanced(threads=tuple(
        thread(1 + n, {0: 5 * SECOND - n, 1: 5 * SECOND}, remote_share=share(0.48, 0.46, 0.5))
        for n in range(4)
    ))  # fmt: skip
    after = bound(threads=tuple(
        thread(9 + n, {0: 10 * SECOND}, moves=0, remote_share=share(0.01, 0.0, 0.02))
        for n in range(2)
    ))  # fmt: skip
    assert row.split() in words(text(compare(before, after)))


def test_expected_shares_are_marked() -> None:
    shown = text(compare(report(expected(0.47), {0: GIB}), report(expected(0.0), {0: GIB})))
    assert ["overall", "~47", "%", "~0", "%", "-47", "-"] in words(shown)
    assert "expected, from where weights lie and threads ran, not measured" in " ".join(
        shown.split()
    )


def test_small_changes_are_not_rounded_away() -> None:
    found = compare(report(expected(0.104), {0: GIB}), report(expected(0.1), {0: GIB}))
    assert ["overall", "~10", "%", "~10", "%", "-0.4", "-"] in words(text(found))


def test_layers_that_read_alike_are_one_line() -> None:
    before = bound()
    layers = [dataclasses.replace(each, node_bytes={1: GIB}) for each in before.layers]
    layers[3] = dataclasses.replace(layers[3], node_bytes={0: GIB})
    shown = words(text(compare(before, bound(layers=tuple(layers)))))
    starts = [line[0] for line in shown if line and line[0].startswith("blk.")]
    assert starts == ["blk.0-2", "blk.3", "blk.4-7"]


def test_says_what_is_left_out() -> None:
    many = tuple(thread(n, {0: SECOND}) for n in range(1, 40))
    shown = text(compare(bound(threads=many), bound(threads=many)), top=3)
    assert "and 36 more pairs" in shown
    assert len(re.findall(r"^  compute \d", shown, re.MULTILINE)) == 3


def test_the_limit_is_shown() -> None:
    shown = " ".join(text(compare(imbalanced(), bound(), 0.05)).split())
    assert (
        "At most 5 % of the reads of weights are to be remote: kept (1 % (0-2) in AFTER)" in shown
    )
    shown = text(compare(bound(), imbalanced(), 0.05))
    assert shown.startswith(
        "Above the limit: 48 % of the reads of weights are remote in AFTER, 5 %"
    )
    assert "THE LIMIT" not in text(compare(bound(), imbalanced()))


def test_the_answer_has_a_colour() -> None:
    good = text(compare(imbalanced(), bound()), colour=True)
    bad = text(compare(bound(), imbalanced()), colour=True)
    assert good.startswith("\x1b[1;32mAs predicted")
    assert bad.startswith("\x1b[1;31mWorse")
    assert re.sub(r"\x1b\[[0-9;]*m", "", good) == text(compare(imbalanced(), bound()))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 16, 1024])
def test_fits_whatever_the_machine(count: int) -> None:
    nodes = tuple(
        node(n, f"{n * 64}-{n * 64 + 63}", total_bytes=1 << 52, free=1 << 51) for n in range(count)
    )
    machine = MachineView("6.12.9", nodes, 1)
    spread = dict.fromkeys(range(count), 1 << 50)
    remote = share(0.4834, 0.0001, 1.0)
    threads = tuple(
        thread(n, dict.fromkeys(range(count), 10**16), moves=1 << 40, remote_share=remote)
        for n in range(1, 9)
    )
    view = server(remote, spread, compute_ns=spread, weights_error_bytes=1 << 49)
    one = report(remote, spread, machine=machine, threads=threads, server=view)
    assert_safe(text(compare(one, one)), 80)


def assert_safe(shown: str, width: int) -> None:
    for line in shown.split("\n"):
        assert cell_len(line) < width, line
        assert not [c for c in line if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs")]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("width", [80, 120])
def test_hostile_names_do_nothing(name: str, width: int) -> None:
    def spoilt(base: Any) -> Any:
        process = dataclasses.replace(
            base.processes[0], argv=(name, name), policy=name, allowed_cpus=name, unit=name,
            container=name, name=name,
        )  # fmt: skip
        return dataclasses.replace(
            base,
            verdict=dataclasses.replace(base.verdict, sentence=name),
            plans=tuple(dataclasses.replace(p, id=name, title=name) for p in base.plans),
            processes=(process,),
            threads=tuple(dataclasses.replace(t, comm=name) for t in base.threads),
            layers=tuple(dataclasses.replace(each, path=name) for each in base.layers),
        )

    for before, after in ((spoilt(imbalanced()), bound()), (bound(), spoilt(imbalanced()))):
        found = compare(before, after)
        assert_safe(text(found, width=width), width)
        shown = comparison_json(found)
        assert set(shown) <= {"\n", *map(chr, range(32, 127))}
        assert json.loads(shown) == found.to_json()


# --- JSON


ANYTHING = Anything(
    {
        int: st.integers(-(1 << 60), 1 << 60),
        str: st.text(st.characters(), max_size=20),
        bool: st.booleans(),
        float: st.floats(-1e18, 1e18, allow_nan=False),
    },
    st.integers(0, 1 << 60),
)


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(ANYTHING.of(Comparison))
def test_json_parses_back(found: Comparison) -> None:
    shown = comparison_json(found)
    assert json.loads(shown) == found.to_json()
    assert list(json.loads(shown)) == [part.name for part in dataclasses.fields(Comparison)]
    assert set(shown) <= {"\n", *map(chr, range(32, 127))}


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.lists(ANYTHING.of(Setting), max_size=3), st.lists(ANYTHING.of(ThreadView), max_size=3))
def test_any_text_fits(ways: list[Setting], threads: list[ThreadView]) -> None:
    own = tuple(
        dataclasses.replace(
            each, tgid=4711, oncpu_ns={n: abs(ns) for n, ns in each.oncpu_ns.items()}
        )
        for each in threads
    )
    found = compare(bound(threads=own), imbalanced())
    assert_safe(text(dataclasses.replace(found, settings=tuple(ways))), 80)


@pytest.mark.parametrize("cls", COMPARISON_TYPES, ids=lambda cls: cls.__name__)
def test_page_describes_every_field(cls: type) -> None:
    part = PAGE.partition(f"\n### {cls.__name__}\n")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", part, re.MULTILINE)
    assert [name for name, _, _ in rows] == [item.name for item in dataclasses.fields(cls)]
    for _, type_, _ in rows:
        assert not re.search(r"tuple|dict\[|Literal|None|int\b|\bstr\b", type_), type_


def test_page_promises_for_this_version_and_its_links_lead_somewhere() -> None:
    assert f"`schema_version` is {COMPARISON_VERSION}." in PAGE
    headings = {title.lower() for title in re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)}
    assert set(re.findall(r"\]\(#(\w+)\)", PAGE)) <= headings
