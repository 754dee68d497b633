"""The yardstick's own pieces: type information, node ranges, shares, and intervals."""

from __future__ import annotations

import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from known.known import Buffer, Slot  # noqa: E402 (found only once its folder is on the path)
from known.known import Truth as Done  # noqa: E402
from oracle.build import build_plugin  # noqa: E402
from oracle.cases import known_shares  # noqa: E402
from oracle.guest import OracleError, frame_ranges, machine, members  # noqa: E402
from oracle.oracle import ROW, Region, Truth  # noqa: E402
from oracle.samples import Compared, Samples  # noqa: E402

PAGE = 4096


def btf(*structs: tuple[str, int, dict[str, int]]) -> bytes:
    """Type information of these structs: name, bit field flag, and each member's offset in bits."""
    texts, types = b"\0", b""

    def text(name: str) -> int:
        nonlocal texts
        at = len(texts)
        texts += name.encode() + b"\0"
        return at

    for name, flag, fields in structs:
        types += struct.pack("<III", text(name), flag << 31 | 4 << 24 | len(fields), 64)
        for field, bits in fields.items():
            types += struct.pack("<III", text(field), 1, bits)
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(texts))
    return head + types + texts


@pytest.mark.parametrize("flag", [0, 1])
def test_members_of_a_struct(flag: int) -> None:
    size = 3 << 24 if flag else 0  # of a bit field, which must not be taken for the offset
    data = btf(("other", 0, {"pid": 8}), ("task_struct", flag, {"pid": 64 | size, "tgid": 96}))
    assert members(data, "task_struct") == {"pid": 8, "tgid": 12}


def test_type_information_that_is_none() -> None:
    with pytest.raises(OracleError, match="not BTF"):
        members(bytes(64), "task_struct")
    with pytest.raises(OracleError, match="no struct task_struct"):
        members(btf(("other", 0, {"task_struct": 8})), "task_struct")


ZONEINFO = """\
Node 0, zone      DMA
  pages free     3840
        spanned  4095
        present  3998
  node_unreclaimable:  0
  start_pfn:           1
Node 0, zone    DMA32
        spanned  126976
  start_pfn:           4096
Node 0, zone   Normal
        spanned  0
  start_pfn:           0
Node 1, zone    DMA32
        spanned  131040
  start_pfn:           131072
"""


def test_frames_of_each_node() -> None:
    assert frame_ranges(ZONEINFO) == [(1, 4096, 0), (4096, 131072, 0), (131072, 262112, 1)]


def test_the_layout_of_a_machine(tmp_path: Path) -> None:
    for node, cpus in ((0, "0-1,4"), (1, "2"), (2, "")):
        folder = tmp_path / f"sys/devices/system/node/node{node}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(f"{cpus}\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/zoneinfo").write_text(ZONEINFO)
    assert machine(tmp_path)["cpus"] == {0: 0, 1: 0, 4: 0, 2: 1}


def truth(path: Path, *rows: tuple[int, int, int, int, int]) -> Truth:
    """Counts: CPU, page, frame, thread and instructions of each row; two nodes of 100 frames."""
    table = np.zeros(len(rows), ROW)
    for at, (cpu, page, frame, tid, count) in enumerate(rows):
        table[at] = (cpu, page, frame, 1, tid, count, 0, 8 * count, count, 0)
    table.tofile(path)
    layout = {"cpus": {0: 0, 1: 1}, "frames": [[0, 100, 0], [100, 200, 1]]}
    path.with_name(path.name + ".json").write_text(json.dumps(layout))
    return Truth.load(path)


def test_shares_of_threads_and_regions(tmp_path: Path) -> None:
    counts = truth(
        tmp_path / "o",
        (0, 10, 5, 7, 30),
        (0, 11, 105, 7, 10),
        (1, 10, 5, 8, 20),
        (1, 20, 105, 8, 4),
    )
    assert counts.total() == 64
    assert counts.threads() == {7: 40, 8: 24}
    assert counts.remote_share() == 30 / 64
    assert counts.of_thread(7).remote_share() == 10 / 40
    # A region owns the pages of which it has more than half.
    region = Region("r", 10 * PAGE + 1, 11 * PAGE - 1)
    assert counts.within(region).threads() == {7: 30, 8: 20}
    assert math.isnan(counts.within().remote_share())


def test_a_frame_of_no_node_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frame 200"):
        truth(tmp_path / "o", (0, 1, 200, 7, 1))


def samples(*rows: tuple[int, int, int, int]) -> Samples:
    """Thread, CPU's node, memory's node and address of each."""
    tid, node, mem_node, addr = (np.array(column) for column in zip(*rows, strict=True))
    how = np.full(len(rows), "operand", object)
    return Samples(tid, node, mem_node, addr.astype(np.uint64), how)


def test_samples_on_one_page_without_another_between_are_one_visit() -> None:
    taken = samples(
        (7, 0, 1, PAGE), (8, 0, 0, PAGE), (7, 0, 1, PAGE + 8), (7, 0, 1, 5 * PAGE), (7, 0, 1, PAGE)
    )
    assert taken.visits() == 4
    assert taken.remote_share() == 4 / 5
    assert taken.within(Region("r", PAGE, PAGE + 8)).visits() == 2


def test_two_points_or_the_interval() -> None:
    few = Compared("x", 0.5, 0.55, samples=100, visits=100, accesses=1)
    many = Compared("x", 0.5, 0.55, samples=100_000, visits=100_000, accesses=1)
    assert few.agrees
    assert not many.agrees
    assert many.contradicts
    unlucky = Compared("x", 0.5, 0.63, samples=100, visits=100, accesses=1)
    assert not unlucky.agrees
    assert not unlucky.contradicts
    assert Compared("x", 0.0, 0.019, samples=1000, visits=1000, accesses=1).agrees
    nothing = Compared("x", 0.5, math.nan, samples=0, visits=0, accesses=1)
    assert nothing.contradicts
    assert not nothing.agrees


BUFFERS = {name: Buffer(name, page * PAGE, PAGE, {}) for name, page in (("a", 10), ("b", 20))}
DONE = Done(0, (Slot(0, (7,), ()), Slot(1, (8,), ())))


def known(tmp_path: Path, taken: Samples) -> dict[str, Compared]:
    """Thread 7 on node 0 takes 1 ns for an access, thread 8 on node 1 takes 4; a: node 0, b: 1."""
    counts = truth(
        tmp_path / "o", (0, 10, 5, 7, 60), (0, 20, 105, 7, 20), (1, 10, 5, 8, 4), (1, 20, 105, 8, 6)
    )
    return {each.what: each for each in known_shares(taken, counts, DONE, BUFFERS)}


def by_time(a_of_thread_7: int) -> Samples:
    """One sample in each ns, so many of the first thread's 80 on buffer a."""
    rows = [(7, 0, 0, 10 * PAGE)] * a_of_thread_7 + [(7, 0, 1, 20 * PAGE)] * (80 - a_of_thread_7)
    return samples(*rows, *[(8, 1, 0, 10 * PAGE)] * 16, *[(8, 1, 1, 20 * PAGE)] * 24)


def test_counts_weigh_by_the_time_of_each_threads_samples(tmp_path: Path) -> None:
    shares = known(tmp_path, by_time(60))
    assert shares["thread 0"].truth == 20 / 80
    assert shares["buffer a"].truth == pytest.approx(16 / 76)
    assert all(each.off == pytest.approx(0) for each in shares.values())


def test_addresses_in_the_wrong_buffer_show(tmp_path: Path) -> None:
    shares = known(tmp_path, by_time(30))
    assert shares["thread 0"].off == pytest.approx(30 / 80)
    assert shares["buffer a"].off > 0.1


def test_the_plugin_compiles() -> None:
    assert build_plugin().read_bytes().startswith(b"\x7fELF")
