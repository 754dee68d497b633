"""Remote shares against the truth: a workload that knows which memory, on which node, it uses."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from known.cases import PLACEMENTS, Case  # noqa: E402 (found only once its folder is on the path)
from known.compare import Comparison, measure  # noqa: E402
from known.known import build  # noqa: E402

NODES = len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))
pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(NODES < 2, reason=f"needs two NUMA nodes, has {NODES}"),
]

CPU_S = 8.0
HZ = "499"
LEAST_SAMPLES = 400
"""An emulated CPU that the machine keeps from running misses ticks."""
OFF = 0.02
"""By so much a remote share may be missed."""
SIGMAS = 2.6
"""Or by the samples' own 99 % interval where that is wider: below 4,200 of them, of 50 %."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("known"))


@pytest.fixture(scope="module")
def found(program: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Comparison]:
    """All placements at once, in one recording: an emulated recorder takes long to start."""
    trace = tmp_path_factory.mktemp("trace") / "trace.arrow"
    return measure(program, PLACEMENTS, trace, CPU_S, "-F", HZ, "--ring-pages", "4096")


@pytest.mark.parametrize("case", PLACEMENTS, ids=lambda case: case.name)
def test_remote_share_by_thread_and_by_buffer(case: Case, found: dict[str, Comparison]) -> None:
    mine = found[case.name]
    shares = [*mine.remote_by_slot(), *mine.remote_by_buffer()]
    told = "\n".join(map(str, [*shares, mine.details, mine.by_slot]))
    assert min(share.samples for share in shares) > LEAST_SAMPLES, told
    for share in shares:
        chance = math.sqrt(share.truth * (1 - share.truth) / share.samples)
        assert share.off <= max(OFF, SIGMAS * chance), told
    assert mine.found_share >= case.found_share, told
