"""Records counted as they pass by, against perf's own counts of the same recordings."""

from __future__ import annotations

import itertools
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numatrace.record.pmu.tap import StreamTap, StreamTotals

CAPTURES = Path(__file__).resolve().parents[3] / "shared/captures/perf-data"
RECORDINGS = (
    "numatop-fork-4node.perf.data",
    "perf.data.hw_and_sw-3.4",
    "perf.data.hybrid_topology",
    "perf.data.lost_samples-4.4",
    "perf.data.numatopology-3.2",
    "perf.data.piped.header_features_aligned-6.12",
    "perf.data.throttle-3.8",
    "perf.data.weight_struct",
)
HEADER = b"PERFILE2" + struct.pack("=Q", 16)
PIPE_HEADER = 16


def record(kind: int, body: bytes = b"") -> bytes:
    return struct.pack("=IHH", kind, 0, 8 + len(body)) + body


def counted(*pieces: bytes) -> StreamTotals:
    tap = StreamTap()
    for piece in pieces:
        tap.feed(piece)
    return tap.totals


def stream_of(path: Path) -> bytes:
    """A recording as perf writes it to a pipe: a file's records lie in its data section."""
    content = path.read_bytes()
    if struct.unpack_from("=Q", content, 8)[0] == PIPE_HEADER:
        return content
    offset, size = struct.unpack_from("=QQ", content, 40)
    return HEADER + content[offset : offset + size]


@pytest.mark.parametrize("name", RECORDINGS)
def test_real_recordings_have_what_perf_finds_in_them(name: str) -> None:
    path = CAPTURES / name
    if not path.is_file():
        pytest.skip(f"no captures here: {name} is kept outside of this repository")
    if shutil.which("perf") is None:
        pytest.skip("perf is not installed")
    told = subprocess.run(
        ["perf", "report", "--stats", "-f", "-i", path], capture_output=True, text=True, check=False
    ).stdout
    if "SAMPLE" not in told:
        pytest.skip("this perf cannot read the recording")
    counts: dict[str, int] = {}
    for kind, count in re.findall(r"^ +([A-Z_]+) events: +(\d+)", told, re.M):
        counts.setdefault(kind, int(count))  # the sum of all events comes first
    stream = stream_of(path)
    totals = counted(*(stream[at : at + 777] for at in range(0, len(stream), 777)))
    assert not totals.broken
    assert totals.samples == counts["SAMPLE"]
    assert totals.throttled == counts.get("THROTTLE", 0)
    assert bool(totals.lost) == bool(counts.get("LOST", 0) + counts.get("LOST_SAMPLES", 0))


def test_each_kind_is_counted_for_itself() -> None:
    stream = HEADER + record(9, b"x" * 64) + record(5, bytes(24)) + record(6, bytes(24))
    stream += record(2, struct.pack("=QQ", 7, 100)) + record(13, struct.pack("=Q", 90))
    stream += record(11, struct.pack("=QQQ", 0, 4096, 1)) + record(11, struct.pack("=QQQ", 0, 1, 0))
    assert counted(stream) == StreamTotals(
        samples=1, lost_records=100, lost_samples=90, throttled=1, truncated=1
    )
    assert counted(stream).lost == 100  # the two overlap


def test_hardware_trace_is_skipped_and_not_taken_for_records() -> None:
    trace = record(9) * 5  # looks like five samples
    auxtrace = record(71, struct.pack("=QQQII", len(trace), 0, 0, 0, 0) + bytes(8))
    assert counted(HEADER + auxtrace + trace + record(9)).samples == 1


BODIES = st.one_of(
    st.tuples(st.just(9), st.binary(max_size=64)),
    st.tuples(st.just(2), st.builds(lambda n: struct.pack("=QQ", 1, n), st.integers(0, 1 << 40))),
    st.tuples(st.just(5), st.just(bytes(24))),
    st.tuples(st.integers(60, 90).filter(lambda k: k not in (66, 71)), st.binary(max_size=40)),
)


@given(st.lists(BODIES, max_size=20), st.lists(st.integers(0, 2000), max_size=10))
def test_the_cuts_between_pieces_change_nothing(
    records: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    stream = HEADER + b"".join(record(kind, body) for kind, body in records)
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(places)]
    assert counted(*pieces) == counted(stream)
    assert counted(stream).samples == sum(kind == 9 for kind, _ in records)
    assert counted(stream).throttled == sum(kind == 5 for kind, _ in records)


@given(st.lists(st.binary(max_size=200), max_size=10), st.booleans())
def test_garbage_never_raises(pieces: list[bytes], headed: bool) -> None:
    totals = counted(*([HEADER] if headed else []), *pieces)
    if not headed and sum(map(len, pieces)) >= 16 and not b"".join(pieces).startswith(b"PERFILE2"):
        assert totals.broken


def test_a_record_without_a_size_ends_the_count() -> None:
    totals = counted(HEADER + record(9) + struct.pack("=IHH", 9, 0, 0) + record(9))
    assert (totals.samples, totals.broken) == (1, True)
