"""The trace that `scripts/bench analyze` makes says what it was made to say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from numatrace.analyze import analyze_trace
from numatrace.trace.reader import Trace

SCRIPTS = Path(__file__).parents[2] / "scripts"


def test_a_made_trace_is_that_of_a_busy_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from benchmarks import long_trace

    path = tmp_path / "trace.arrow"
    rows, seconds = long_trace.LongTrace(path).write(0.5)
    assert path.stat().st_size >= 500_000
    with Trace.open(path) as trace:
        report = analyze_trace(trace)
    assert not report.provenance.problems
    assert report.provenance.rows == rows
    assert report.provenance.duration_ns == pytest.approx(seconds * 1e9, rel=0.05)
    assert len(report.tensors) == 9 * long_trace.LAYERS + 3
    assert report.server is not None
    assert report.access is not None
    ticks = long_trace.HZ // long_trace.LOOKS * long_trace.LOOKS
    assert report.access.samples == ticks * long_trace.THREADS * seconds
    placed = sum(long_trace.SHARES[:4])
    assert report.access.placed.samples / report.access.samples == pytest.approx(placed, abs=0.01)
