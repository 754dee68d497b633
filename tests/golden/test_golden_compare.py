"""Two recorded traces and the comparison that they must give, to the byte.

After a wanted change: `.venv/bin/python tests/golden/test_golden_compare.py` writes it anew; look
at the difference before it is committed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from numatrace.analyze import analyze_trace
from numatrace.analyze.compare import compare
from numatrace.render.compare import comparison_json, comparison_text
from numatrace.render.options import RenderOptions
from numatrace.trace.reader import Trace

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
PAIRS = (("S1", "S10"),)
"""Recordings before and after; what is expected lies beside the first."""


def rendered(before: str, after: str) -> dict[Path, str]:
    reports = []
    for name in (before, after):
        with Trace.open(FIXTURES / name / "trace.arrow") as trace:
            reports.append(analyze_trace(trace))
    found = compare(*reports)
    return {
        FIXTURES / before / f"compare-{after}.txt": comparison_text(found, RenderOptions()),
        FIXTURES / before / f"compare-{after}.json": comparison_json(found),
    }


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_comparison_is_as_expected(pair: tuple[str, str]) -> None:
    for path, text in rendered(*pair).items():
        assert text == path.read_text("utf-8"), f"{path.name} differs"


def accept() -> None:
    """Write what is expected of all pairs."""
    for pair in PAIRS:
        for path, text in rendered(*pair).items():
            path.write_text(text, "utf-8")


if __name__ == "__main__":
    sys.exit(accept())
