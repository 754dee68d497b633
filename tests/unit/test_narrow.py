"""A report of one phase or one process: what is conserved, and what is refused."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from numatrace.analyze import Narrow, analyze_trace
from numatrace.analyze.phases.phases import Phases
from numatrace.cli.main import run
from numatrace.model.errors import UsageError
from numatrace.model.measured import PHASES
from numatrace.trace.reader import Trace

if TYPE_CHECKING:
    from numatrace.model.report import Report

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
NAMES = ("S1", "S4", "S8")


@lru_cache(maxsize=32)
def report_of(name: str, pid: int | None = None, phase: str | None = None) -> Report:
    with Trace.open(FIXTURES / name / "trace.arrow") as trace:
        return analyze_trace(trace, narrow=Narrow(pid, phase))


def oncpu_ns(report: Report) -> dict[tuple[int, int], int]:
    return {(t.tgid, t.tid): sum(t.oncpu_ns.values()) for t in report.threads}


@pytest.mark.parametrize("name", NAMES)
def test_phases_together_are_the_whole(name: str) -> None:
    whole = report_of(name)
    parts = [report_of(name, phase=each.phase) for each in whole.phases]
    assert len(parts) > 1
    for thread in whole.threads:
        for node, ns in thread.oncpu_ns.items():
            found = [
                each.oncpu_ns.get(node, 0)
                for part in parts
                for each in part.threads
                if (each.tgid, each.tid) == (thread.tgid, thread.tid)
            ]
            assert sum(found) == ns
    for field in ("samples", "time_ns", "lost_ns"):
        total = sum(getattr(each, field) for each in whole.reads)
        split = sum(getattr(each, field) for part in parts for each in part.reads)
        assert abs(total - split) <= len(whole.reads)  # rounded row by row


@pytest.mark.parametrize("name", NAMES)
def test_a_phase_has_its_own_reads_and_the_verdict_of_the_whole(name: str) -> None:
    whole, part = report_of(name), report_of(name, phase="compute")
    assert part.verdict == whole.verdict
    assert part.findings == whole.findings
    assert part.server == whole.server
    assert part.access == whole.access
    assert {each.phase for each in part.reads} == {"compute"}
    assert [each.phase for each in part.phases] == ["compute"]
    mine = [each for each in whole.reads if each.phase == "compute"]
    assert sum(each.time_ns for each in part.reads) == sum(each.time_ns for each in mine)
    assert part.filters is not None
    assert any("idle" in text for text in part.filters.left_out)
    assert whole.filters is None


@pytest.mark.parametrize("name", NAMES)
def test_processes_together_are_the_whole(name: str) -> None:
    whole = report_of(name)
    parts = [report_of(name, pid=each.tgid) for each in whole.processes]
    for field in ("threads", "regions", "layers", "tensors", "reads"):
        found = [each for part in parts for each in getattr(part, field)]
        assert len(found) == len(getattr(whole, field)), field
    for part, view in zip(parts, whole.processes, strict=True):
        assert [each.tgid for each in part.processes] == [view.tgid]
        assert {each.tgid for each in part.threads} <= {view.tgid}
        assert part.losses == whole.losses
        assert part.filters is not None
        assert part.filters.pid == view.tgid


def test_the_server_itself_has_the_same_verdict() -> None:
    whole = report_of("S1")
    server = next(each.tgid for each in whole.processes if each.is_server)
    assert report_of("S1", pid=server).verdict == whole.verdict


def test_what_is_not_there_is_refused_with_what_there_is() -> None:
    with pytest.raises(UsageError) as process:
        report_of("S4", pid=7)
    assert "326 llama-server, 350 python" in process.value.why
    with pytest.raises(UsageError) as phase:
        report_of("S4", phase="decode")
    assert phase.value.why == "the trace has load (177 ms), compute (7.3 s), idle (20 s)"
    assert "compute is a prompt or decoding" in phase.value.todo


def test_phases_have_one_list_of_names() -> None:
    assert Phases.names == PHASES


# --- on the command line


def test_filters_hold_for_json(capsys: pytest.CaptureFixture[str]) -> None:
    trace = str(FIXTURES / "S4/trace.arrow")
    assert run(["analyze", trace, "--json", "--phase", "compute", "--pid", "326"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["filters"]["pid"] == 326
    assert said["filters"]["phase"] == "compute"
    assert said["filters"]["left_out"]
    assert [each["tgid"] for each in said["processes"]] == [326]
    assert {each["phase"] for each in said["reads"]} == {"compute"}


def test_filters_and_the_one_table_reach_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    trace = str(FIXTURES / "S4/trace.arrow")
    assert run(["analyze", trace, "--phase", "compute", "--by", "layer"]) == 0
    said = capsys.readouterr().out
    assert "Only phase compute." in said
    assert "BY LAYER" in said
    assert "WHAT TO DO" not in said


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--pid", "7"], "the trace has 326 llama-server"),
        (["--phase", "prompt"], "the trace has load"),
        (["--phase", "nap"], "'load', 'prompt', 'decode', 'compute', 'idle'"),
        (["--by", "socket"], "'thread', 'slot', 'layer', 'tensor', 'node', 'phase'"),
        (["--pid", "0"], "not in the range"),
    ],
)
def test_impossible_filters_say_what_there_is(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["analyze", str(FIXTURES / "S4/trace.arrow"), *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert why in " ".join(said.err.split())
