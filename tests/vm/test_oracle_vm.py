"""The exact yardstick: what it must count to the last access, and samples held against it.

These tests run in a guest of their own, under the QEMU plugin of tests/oracle.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
sys.path.insert(0, str(TESTS))

from oracle import cases  # noqa: E402 (found once its folder is on the path)
from oracle.build import build_counted, build_known  # noqa: E402
from oracle.guest import Oracle  # noqa: E402
from oracle.oracle import PAGE_BYTES, Region, Truth  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.vm, pytest.mark.oracle]

KIB = 1 << 10
LINE = 64
ROUNDS = 4
ENOUGH = 100
"""Samples: a share of a half is then known within ten points."""
MODEL_MB = "2"
"""Read many times over in the few seconds that are counted."""
SLACK = 5_000
"""Accesses of a program that does nothing but read a buffer: the C library's, mostly."""


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture(scope="module")
def counted() -> Path:
    """A program whose two threads each make a known number of accesses to one buffer."""
    return build_counted()


@dataclass(frozen=True)
class Waiting:
    """The program, its memory in place, before its first access to count."""

    process: subprocess.Popen[str]
    buffer: Region

    def go(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@contextmanager
def waiting(program: Path, what: str, kib: int, *placed: str) -> Iterator[Waiting]:
    command = ["numactl", *placed, str(program), what, str(kib), str(ROUNDS)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    start = int(process.stdout.readline())
    try:
        yield Waiting(process, Region("buffer", start, start + kib * KIB))
    finally:
        process.communicate("\n")


def counts(oracle: Oracle, program: Waiting) -> Truth:
    with oracle.counting([program.process.pid]) as path:
        program.go()
    return Truth.load(path)


@pytest.mark.parametrize(
    ("what", "bytes_each", "loads", "stores", "instructions"),
    [("load", 8, 1, 0, 1), ("store", 8, 0, 1, 1), ("atomic", 64, 1, 1, 1), ("vector", 32, 2, 0, 1)],
)
def test_every_access_is_counted_and_none_twice(
    oracle: Oracle, counted: Path, what: str, bytes_each: int, loads: int, stores: int,
    instructions: int,
) -> None:  # fmt: skip
    """A 32-byte vector load is two of 16 bytes to QEMU, but one instruction."""
    kib = 2048
    with waiting(counted, what, kib, "--physcpubind=0", "--membind=0") as program:
        truth = counts(oracle, program)
    buffer = truth.within(program.buffer)
    each = ROUNDS * kib * KIB // bytes_each  # by each of two threads
    assert len(buffer.threads()) == 2
    for tid in buffer.threads():
        thread = buffer.of_thread(tid)
        assert thread.total("loads") == each * loads
        assert thread.total("stores") == each * stores
        assert thread.total("instructions") == each * instructions
    assert truth.total() - buffer.total() < SLACK


@pytest.mark.long
def test_caches_hold_what_fits_and_fetch_the_rest_anew(oracle: Oracle, counted: Path) -> None:
    """Four times the larger cache, read in order: of what was read longest ago, nothing stays."""
    missed = {}
    for kib in (4096, 256):
        with waiting(counted, "load", kib, "--physcpubind=0", "--membind=0") as program:
            missed[kib] = counts(oracle, program).within(program.buffer).total("misses")
    assert missed[4096] == 2 * ROUNDS * 4096 * KIB // LINE  # two threads, one after the other
    # What else the threads read pushes out a little, and that little is fetched each round.
    assert 256 * KIB // LINE <= missed[256] < 1.1 * 256 * KIB // LINE


@pytest.mark.long
@pytest.mark.parametrize(
    ("placed", "share"),
    [
        (("--cpunodebind=0", "--membind=0"), 0.0),
        (("--cpunodebind=1", "--membind=0"), 1.0),
        (("--cpunodebind=0", "--interleave=0,1"), 0.5),
    ],
)
def test_remote_share_of_bound_memory(
    oracle: Oracle, counted: Path, placed: tuple[str, ...], share: float
) -> None:
    with waiting(counted, "load", 4096, *placed) as program:
        truth = counts(oracle, program)
    assert truth.within(program.buffer).remote_share() == share
    assert truth.remote_share() == pytest.approx(share, abs=1e-3), "the C library's accesses too"


@pytest.mark.long
def test_cpus_and_frames_are_the_kernels(oracle: Oracle, counted: Path) -> None:
    """The CPU that the thread was bound to; the frames that /proc/PID/pagemap names."""
    cpu = (os.cpu_count() or 1) - 1
    with waiting(counted, "load", 1024, f"--physcpubind={cpu}", "--interleave=0,1") as program:
        buffer = counts(oracle, program).within(program.buffer)
        with Path(f"/proc/{program.process.pid}/pagemap").open("rb") as pagemap:
            pagemap.seek(program.buffer.start // PAGE_BYTES * 8)
            entries = pagemap.read(1024 * KIB // PAGE_BYTES * 8)
    assert set(buffer.rows["cpu"]) == {cpu}
    present = (1 << 55) - 1
    frames = {
        program.buffer.start // PAGE_BYTES + at // 8: int.from_bytes(entries[at : at + 8], "little")
        & present
        for at in range(0, len(entries), 8)
    }
    assert dict(zip(buffer.rows["page"].tolist(), buffer.rows["frame"].tolist(), strict=True)) == (
        frames
    )


@pytest.mark.long
def test_only_what_was_chosen_and_only_between_the_marks(oracle: Oracle, counted: Path) -> None:
    with (
        waiting(counted, "load", 1024, "--membind=0") as chosen,
        waiting(counted, "load", 1024, "--membind=0") as other,
    ):
        other.go()
        truth = counts(oracle, chosen)
    assert set(truth.rows["tgid"]) == {chosen.process.pid}
    assert truth.within(chosen.buffer).total() == 2 * ROUNDS * 1024 * KIB // 8


# --- access samples


@pytest.fixture(scope="module")
def known() -> Path:
    """The workload of known truth."""
    return build_known()


QUICK = pytest.param("mixed", 4)
LONG = [pytest.param(name, 15, marks=pytest.mark.long) for name in ("bound remote", "hopping")]


@pytest.mark.parametrize(("name", "cpu_s"), [QUICK, *LONG])
def test_samples_of_the_workload_of_known_truth(
    oracle: Oracle, known: Path, tmp_path: Path, name: str, cpu_s: float
) -> None:
    case = cases.placement(name)
    agree(cases.known(oracle, known, case, tmp_path / "known.arrow", cpu_s))


@pytest.mark.long
def test_samples_of_llama(oracle: Oracle, tmp_path: Path) -> None:
    model = Path("/mnt/disk/model.gguf")
    command = [sys.executable, str(ROOT / "scripts/make-model"), str(model)]
    subprocess.run([*command, "--size-mb", MODEL_MB], check=True, stdout=subprocess.DEVNULL)
    agree(cases.llama(oracle, cases.served("mixed"), model, tmp_path / "llama.arrow", 15))


def agree(result: cases.Result) -> None:
    """All shares, and from enough samples to tell them apart."""
    threads = [each for each in result.shares["all"] if each.what.startswith("thread")]
    assert len(threads) == 2
    assert sum(each.visits for each in threads) > ENOUGH, threads
    for how, shares in result.shares.items():
        off = [str(each) for each in shares if each.samples and each.contradicts]
        assert not off, (how, off)
