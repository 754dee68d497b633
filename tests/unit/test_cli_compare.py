"""`numatrace compare`: its exit status for scripts, what it writes, and wrong calls."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from numatrace.analyze import analyze_trace
from numatrace.analyze.compare import compare
from numatrace.cli import compare as verb
from numatrace.cli.main import run
from numatrace.model.comparison import Outcome
from numatrace.render.compare import comparison_json, comparison_text
from numatrace.render.options import RenderOptions
from numatrace.trace.reader import Trace
from tests.unit.compare_reports import bound, imbalanced

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
SLOW, FAST, ONE_NODE = (FIXTURES / name / "trace.arrow" for name in ("S1", "S10", "S12"))


def compared(before: Path, after: Path) -> Any:
    reports = []
    for path in (before, after):
        with Trace.open(path) as trace:
            reports.append(analyze_trace(trace))
    return compare(*reports)


def test_prints_the_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", str(SLOW), str(FAST)]) == 0
    said = capsys.readouterr()
    assert said.out == comparison_text(compared(SLOW, FAST), RenderOptions())
    assert said.err == ""


def test_worse_is_status_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", str(FAST), str(SLOW)]) == 3
    assert capsys.readouterr().out.startswith("Worse: ")


def test_a_limit_makes_it_fail(capsys: pytest.CaptureFixture[str]) -> None:
    """Without one, a recording is no worse than itself."""
    assert run(["compare", str(FAST), str(FAST), "--max-remote", "0.05"]) == 0
    assert run(["compare", str(SLOW), str(SLOW), "--max-remote", "0.05"]) == 3
    [share] = re.findall(r"Above the limit: (\d+) % of the reads", capsys.readouterr().out)
    assert int(share) > 5


def test_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "--json", str(FAST), str(SLOW), "--top", "1"]) == 3
    said = capsys.readouterr().out
    assert said == comparison_json(compared(FAST, SLOW))
    assert json.loads(said)["outcome"] == "worse"


def test_what_cannot_be_compared_is_status_4(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--json"], ["--max-remote", "1"]):
        assert run(["compare", str(SLOW), str(ONE_NODE), *arguments]) == 4
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err == (
            "numatrace: these recordings cannot be compared\n"
            "  why: BEFORE is of a machine with nodes 0, 1, AFTER with 0\n"
            "  do:  record both on the same machine, with the same CPUs online\n"
        )


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_every_outcome_has_a_status(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ones that the help promises."""
    found = dataclasses.replace(compare(imbalanced(), bound()), outcome=outcome)
    monkeypatch.setattr(verb, "_compare", lambda *_: found)
    good, cannot = ("as-predicted", "better", "same"), ("cannot-tell",)
    wanted = 0 if outcome in good else 4 if outcome in cannot else 3
    assert run(["compare", "a", "b"]) == wanted
    assert capsys.readouterr().out


def test_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "comparison.txt"
    assert run(["compare", str(FAST), str(SLOW), "-o", str(output)]) == 3
    assert output.read_text() == comparison_text(compared(FAST, SLOW), RenderOptions())
    said = capsys.readouterr().out
    assert said.startswith("Worse: ")
    assert f"\nwrote {output}: " in said
    assert run(["compare", str(FAST), str(SLOW), "-o", str(output)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert run(["compare", str(FAST), str(SLOW), "--json", "-o", str(output), "--force"]) == 3
    assert json.loads(output.read_text())["outcome"] == "worse"


def test_never_writes_over_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = tmp_path / "a.arrow", tmp_path / "b.arrow"
    shutil.copy(SLOW, before)
    shutil.copy(FAST, after)
    for output in (before, after):
        whole = output.read_bytes()
        assert run(["compare", str(before), str(after), "--force", "-o", str(output)]) == 2
        assert "it is the trace that is to be analyzed" in capsys.readouterr().err
        assert output.read_bytes() == whole


def test_what_is_no_trace_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "x.arrow"
    text.write_text("hello, I am text")
    for pair in ((text, SLOW), (SLOW, text), (SLOW, tmp_path / "none.arrow")):
        assert run(["compare", *map(str, pair)]) == 1
        assert capsys.readouterr().err.startswith("numatrace: cannot read ")


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["a"], ["a", "b", "c"], ["a", "b", "--max-remote", "1.1"],
        ["a", "b", "--max-remote", "-0.1"], ["a", "b", "--max-remote", "x"],
        ["a", "b", "--width", "79"], ["a", "b", "--top", "0"], ["a", "b", "--nonsense"],
    ],
)  # fmt: skip
def test_wrong_calls(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", *arguments]) == 2
    assert "Usage: numatrace compare" in capsys.readouterr().err


def test_help_has_the_statuses_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "--help"]) == 0
    said = capsys.readouterr().out
    for status in (0, 1, 2, 3, 4):
        assert f"\n    {status}  " in said
    assert "\n    numatrace compare before.arrow after.arrow --max-remote 0.05 " in said
    assert max(map(len, said.split("\n"))) < 80


@pytest.mark.parametrize("arguments", [["--help"], ["compare", "--help"], ["compare", "a"]])
def test_no_call_that_analyzes_nothing_loads_the_analysis(arguments: list[str]) -> None:
    """Arrow and numpy take a third of a second to import."""
    program = (
        "import sys; from numatrace.cli.main import run; run(sys.argv[1:]);"
        " slow = {'numpy', 'pyarrow', 'numatrace.analyze', 'numatrace.render'} & {*sys.modules};"
        " assert not slow, slow"
    )
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True, text=True, env=environ, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
