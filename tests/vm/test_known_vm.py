"""Remote shares against the truth: a workload that knows which memory, on which node, it uses."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from known.cases import PLACEMENTS, Case  # noqa: E402 (found only once its folder is on the path)
from known.compare import Comparison, Share, measure  # noqa: E402
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
SIGMAS = 3.9
"""Or by the samples' own 99.99 % interval where that is wider. Thirteen shares are of a mixture: of
their 99 % intervals one would miss the truth in every eighth run."""


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
        chance = math.sqrt(variance([share])) / share.samples
        assert share.off <= max(OFF, SIGMAS * chance), told
    assert mine.found_share >= case.found_share, told


def test_all_threads_together_are_closer(found: dict[str, Comparison]) -> None:
    """What is chance for each of them is none for all: a bias would add up."""
    threads = [share for mine in found.values() for share in mine.remote_by_slot()]
    mixed = [share for share in threads if 0 < share.truth < 1]
    samples = sum(share.samples for share in mixed)
    assert samples > len(mixed) * LEAST_SAMPLES
    off = sum(share.samples * (share.measured - share.truth) for share in mixed) / samples
    assert abs(off) <= max(OFF / 2, SIGMAS * math.sqrt(variance(mixed)) / samples), mixed


def variance(shares: list[Share]) -> float:
    """Of the number of samples that hit remote memory."""
    return sum(share.samples * share.truth * (1 - share.truth) for share in shares)
