"""Access samples against the truth: a workload that knows what time it spends on which memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from known.cases import PATTERNS, Case  # noqa: E402 (found only once its folder is on the path)
from known.compare import ELSEWHERE, NOWHERE, Comparison, measure  # noqa: E402
from known.known import Workload, build  # noqa: E402

pytestmark = pytest.mark.kernel

CPU_S = 1.6
HZ = "997"
"""A fixed rate: 1,600 samples of each thread, so that chance alone is off by less than a point."""
OFF = 0.03
"""By so much a share of the time may be missed, if it is over 5 %."""
LEAST = 0.05


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("known"))


def test_what_the_workload_says_is_what_the_kernel_says(program: Path) -> None:
    """Its own account of its threads' time is the scheduler's, to 1 %."""
    with Workload([program, *PATTERNS[0].arguments]) as workload:
        before, kernel_before = workload.mark(), schedstat_ns(workload.pid)
        time.sleep(0.5)
        after, kernel_after = workload.mark(), schedstat_ns(workload.pid)
    for slot in after.since(before).slots:
        [tid] = slot.tids
        grown_ns = kernel_after[tid] - kernel_before[tid]
        # Both are behind by up to a slice, or a tick of the kernel.
        assert slot.time_ns().total() == pytest.approx(grown_ns, rel=0.01, abs=20e6)


def schedstat_ns(pid: int) -> dict[int, int]:
    return {
        int(task.name): int((task / "schedstat").read_text().split()[0])
        for task in Path(f"/proc/{pid}/task").iterdir()
    }


@pytest.fixture(scope="module")
def found(program: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Comparison]:
    """All patterns at once, in one recording."""
    trace = tmp_path_factory.mktemp("trace") / "trace.arrow"
    return measure(program, PATTERNS, trace, CPU_S, "-F", HZ, "--ring-pages", "4096")


each_pattern = pytest.mark.parametrize("case", PATTERNS, ids=lambda case: case.name)


@each_pattern
def test_time_by_thread_and_buffer(case: Case, found: dict[str, Comparison]) -> None:
    shares = found[case.name].time_shares()
    told = "\n".join(map(str, [*shares, found[case.name].details]))
    assert min(share.samples for share in shares) > 0.8 * CPU_S * int(HZ), told
    for share in shares:
        if share.truth > LEAST:
            assert share.off <= OFF, told
        elif share.key in (ELSEWHERE, NOWHERE):
            assert share.measured <= LEAST, told


@each_pattern
def test_nearly_every_sample_has_an_address(case: Case, found: dict[str, Comparison]) -> None:
    mine = found[case.name]
    assert mine.found_share >= case.found_share, mine.details
    assert mine.kernel_share <= LEAST, mine.details


@each_pattern
def test_reads_and_writes_are_told_apart(case: Case, found: dict[str, Comparison]) -> None:
    """In buffers that are only read, or only written: an atomic does both, and is a write.

    `rep movs` reads and writes with one instruction, and a sample has one address: the source's.
    """
    mine = found[case.name]
    if case.name == "string-copy":
        assert not any(kind == "write" for _, kind in mine.kinds)
        return
    for name, kind in case_kinds(mine).items():
        writes = mine.write_share(name)
        assert (writes if kind == "read" else 1 - writes) <= 0.01, (name, kind, mine.kinds)


def test_the_report_says_the_same(program: Path, tmp_path: Path) -> None:
    """`analyze --json`: time by thread and region, of what used memory."""
    [case] = [case for case in PATTERNS if case.name == "mixed"]
    [mine] = measure(program, [case], tmp_path / "trace.arrow", CPU_S, "-F", HZ).values()
    command = [sys.executable, "-m", "numatrace", "analyze", "trace.arrow", "--json"]
    said = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True)
    reads = json.loads(said.stdout)["reads"]
    for slot in mine.truth.slots:
        here = [each for each in reads if each["tid"] in slot.tids]
        all_ns = sum(each["time_ns"] for each in here)
        true_ns = {name: ns for name, ns in slot.time_ns().items() if name}
        for name, ns in true_ns.items():
            label = f"{mine.buffers[name].addr:#x}"
            found_ns = sum(each["time_ns"] for each in here if each["region"].endswith(label))
            true = ns / sum(true_ns.values())
            assert found_ns / all_ns == pytest.approx(true, abs=OFF), (name, here)


def case_kinds(mine: Comparison) -> dict[str, str]:
    """The buffers that are only read, or only written."""
    items = [item for slot in mine.truth.slots for item in slot.items]
    written = {item.target for item in items if item.target}
    read = {item.source for item in items if item.source and item.source != item.target}
    return dict.fromkeys(written - read, "write") | dict.fromkeys(read - written, "read")
