"""Perfetto's traces, read back by its own descriptors and held against the trace itself."""

from __future__ import annotations

import io
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from google.protobuf.internal import encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from numatrace.export.perfetto.packets import MOST
from numatrace.export.perfetto.people import THREADED
from numatrace.export.perfetto.protobuf import integer, message, text, varint
from numatrace.export.write import export
from numatrace.model.events import COLUMN, EVENTS
from numatrace.trace.reader import Trace
from numatrace.trace.writer import TraceWriter
from tests.unit import perfetto_reader
from tests.unit.traces import write

if TYPE_CHECKING:
    from collections.abc import Callable

    from numatrace.export.write import Exported

FIXTURES = sorted((Path(__file__).resolve().parents[2] / "fixtures").glob("*/trace.arrow"))
BEGIN, END, INSTANT, COUNTER = 1, 2, 3, 4
MONOTONIC = 3

Key = tuple[int, int]


@dataclass
class Picture:
    """What Perfetto makes of a file: tracks, and their events in the order of time."""

    processes: dict[int, str] = field(default_factory=dict)
    threads: dict[Key, str] = field(default_factory=dict)
    slices: dict[Key, list[tuple[int, int, str]]] = field(default_factory=lambda: defaultdict(list))
    instants: dict[Any, list[tuple[int, Any]]] = field(default_factory=lambda: defaultdict(list))
    """By thread, else by the name of the track."""
    counters: dict[tuple[Any, str], list[tuple[int, int]]] = field(default_factory=dict)
    """By process, thread or None for the machine, and by name."""

    def last(self, owner: Any, name: str) -> int:
        return self.counters[owner, name][-1][1]


def picture(data: bytes) -> Picture:
    """Draw a file as Perfetto does, and check that it may."""
    packets = perfetto_reader.read(data).packet
    shot = packets[0].clock_snapshot
    assert [(clock.clock_id, clock.unit_multiplier_ns) for clock in shot.clocks] == [(MONOTONIC, 0)]
    assert shot.primary_trace_clock == MONOTONIC
    found, owners, counted = Picture(), {}, {}
    for packet in packets[1:]:
        assert packet.trusted_packet_sequence_id
        assert packet.HasField("track_event") != packet.HasField("track_descriptor")
        if packet.HasField("track_descriptor"):
            track(packet.track_descriptor, found, owners, counted)
        else:
            assert packet.timestamp_clock_id == MONOTONIC
            uuid = packet.track_event.track_uuid
            assert uuid in owners, "a track is described before its events"
    events = [packet for packet in packets if packet.HasField("track_event")]
    happen(sorted(events, key=lambda packet: packet.timestamp), found, owners, counted)
    return found


def track(described: Any, found: Picture, owners: dict[int, Any], counted: dict[int, str]) -> None:
    assert described.uuid
    assert described.uuid not in owners, "each track is described once"
    parent = owners[described.parent_uuid] if described.parent_uuid else None
    if described.HasField("process"):
        owner: Any = described.process.pid
        found.processes[owner] = described.process.process_name
    elif described.HasField("thread"):
        owner = (described.thread.pid, described.thread.tid)
        assert parent == owner[0]
        found.threads[owner] = described.thread.thread_name
    else:
        owner = parent if described.HasField("counter") else described.name
        if described.HasField("counter"):
            counted[described.uuid] = described.name
            found.counters[owner, described.name] = []
            begins = {"CPU time": 1, "sampled time": 1, "page faults": 2, "sampled reads": 2}
            unit = begins.get(" ".join(described.name.split()[:2]), 3)
            assert described.counter.unit == unit
    owners[described.uuid] = owner


def happen(
    packets: list[Any], found: Picture, owners: dict[int, Any], counted: dict[int, str]
) -> None:
    began: dict[Key, tuple[int, str]] = {}
    for packet in packets:
        event, t_ns = packet.track_event, packet.timestamp
        owner = owners[event.track_uuid]
        if event.type == COUNTER:
            found.counters[owner, counted[event.track_uuid]].append((t_ns, event.counter_value))
        elif event.type == INSTANT:
            found.instants[owner].append((t_ns, event))
        elif event.type == BEGIN:
            assert owner not in began, "slices of a track do not overlap"
            began[owner] = t_ns, event.name
        else:
            assert event.type == END
            start, name = began.pop(owner)
            assert start < t_ns
            found.slices[owner].append((start, t_ns, name))
    assert not began, "every slice ends"


def details(event: Any) -> dict[str, Any]:
    return {
        each.name: getattr(each, each.ListFields()[0][0].name) for each in event.debug_annotations
    }


def drawn(path: Path, *kinds: str) -> tuple[Picture, Exported]:
    stream = io.BytesIO()
    with Trace.open(path) as trace:
        done = export(trace, "perfetto", stream, kinds)
    assert done.bytes == len(stream.getvalue())
    return picture(stream.getvalue()), done


def rows(path: Path, *kinds: str) -> pl.DataFrame:
    frame = pl.read_ipc(path).with_columns(pl.col("kind").cast(pl.String))
    return frame.filter(pl.col("kind").is_in(kinds)) if kinds else frame


# --- the wire format, against Google's encoder


@given(st.integers(-(2**63), 2**64 - 1))
def test_varints_are_googles(value: int) -> None:
    wanted: list[bytes] = []
    put = encoder._EncodeVarint if value >= 0 else encoder._EncodeSignedVarint
    put(wanted.append, value)
    assert varint(value) == b"".join(wanted)


@pytest.mark.parametrize("value", [-(2**63) - 1, 2**64])
def test_what_has_more_than_64_bits_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        varint(value)


@given(st.text(st.characters()), st.integers(0, 2**64 - 1))
def test_fields_are_read_back(name: str, uuid: int) -> None:
    track = message(60, integer(1, uuid), text(2, name))
    read = perfetto_reader.read(message(1, track)).packet[0].track_descriptor
    assert read.uuid == uuid
    assert read.name == name.encode("utf-8", "replace").decode()


# --- every fixture: what is drawn is what the trace holds


@pytest.fixture(scope="module", params=FIXTURES, ids=lambda path: path.parent.name)
def fixture(request: pytest.FixtureRequest) -> tuple[Path, Picture, Exported]:
    return request.param, *drawn(request.param)


Drawing = tuple[Path, Picture, "Exported"]


def test_every_thread_and_process_has_a_track(fixture: Drawing) -> None:
    path, found, _ = fixture
    threads = rows(path, *THREADED).select("tgid", "tid").drop_nulls().unique().rows()
    assert set(found.threads) == {key for key in threads if min(key) > 0}
    named = dict(rows(path, "process").select("tgid", "name").rows())
    assert {tgid: found.processes[tgid] for tgid in named} == named
    comms = {
        (tgid, tid): name
        for tgid, tid, name in rows(path, "thread").select("tgid", "tid", "name").rows()
    }
    assert {key: found.threads[key] for key in comms} == comms


def test_time_on_each_node_is_the_traces(fixture: Drawing) -> None:
    path, found, _ = fixture
    sums = rows(path, "oncpu").group_by("tgid", "tid", "node").agg(pl.col("oncpu_ns").sum())
    wanted = {((tgid, tid), f"CPU time on node {node}"): ns for tgid, tid, node, ns in sums.rows()}
    counters = {key: values for key, values in found.counters.items() if key[1].startswith("CPU")}
    assert wanted
    assert {key: values[-1][1] for key, values in counters.items()} == wanted
    for values in counters.values():
        assert values[0][1] == 0
        assert [value for _, value in values] == sorted(value for _, value in values)
        assert [t_ns for t_ns, _ in values] == sorted({t_ns for t_ns, _ in values})


def test_samples_were_taken_on_the_nodes_that_slices_name(fixture: Drawing) -> None:
    """An oracle of its own: samples of faults and accesses say where a thread was, too."""
    path, found, _ = fixture
    readings = rows(path, "oncpu").group_by("tgid", "tid").agg(pl.col("t_ns").max())
    last = {(tgid, tid): t_ns for tgid, tid, t_ns in readings.rows()}
    for tgid, tid, t_ns in rows(path, "exit").select("tgid", "tid", "t_ns").rows():
        last[tgid, tid] = min(t_ns, last.get((tgid, tid), 0))  # the kernel's work on it goes on
    samples = rows(path, "access", "fault").select("t_ns", "tgid", "tid", "node").drop_nulls()
    judged = 0
    for t_ns, tgid, tid, node in samples.rows():
        if t_ns > last.get((tgid, tid), 0):
            continue  # it ended before its time was read again
        judged += 1
        spans = found.slices[tgid, tid]
        assert f"node {node}" in [name for start, end, name in spans if start <= t_ns <= end]
    assert judged > 0 or path.parent.name == "S10"


def test_moves_and_faults_are_the_traces(fixture: Drawing) -> None:
    path, found, _ = fixture
    moves = rows(path, "move").select("tgid", "tid", "t_ns", "from_node", "node").rows()
    seen = [
        (*key, t_ns, details(event)["from node"], details(event)["to node"])
        for key, events in found.instants.items()
        for t_ns, event in events
        if event.name.startswith("move")
    ]
    assert sorted(seen) == sorted(moves)
    faults = rows(path, "fault").select("tgid", "tid", "t_ns", "addr", "weight").rows()
    shown = [
        (*key, t_ns, details(event)["address"], details(event)["stands for"])
        for key, events in found.instants.items()
        for t_ns, event in events
        if event.name == "page fault"
    ]
    assert sorted(shown) == sorted(faults)
    exact = rows(path, "fault_count").group_by("tgid", "tid").agg(pl.col("count").sum())
    for tgid, tid, count in exact.rows():
        assert found.last((tgid, tid), "page faults") == count


def test_memory_at_the_end_is_the_reports(fixture: Drawing) -> None:
    path, found, _ = fixture
    report = json.loads((path.parent / "report.json").read_text())
    for process in report["processes"]:
        held = {
            name.removeprefix("memory on node "): values[-1][1]
            for (owner, name), values in found.counters.items()
            if owner == process["tgid"] and name.startswith("memory") and values[-1][1]
        }
        assert held == process["present_bytes"] or process["tgid"] not in found.processes
    for node in report["machine"]["nodes"]:
        assert found.last(None, f"node {node['node']}: free memory") == node["free_bytes"]


def test_sampled_time_is_the_traces(fixture: Drawing) -> None:
    path, found, _ = fixture
    samples = rows(path, "access")
    wanted: Counter[tuple[int, str]] = Counter()
    if "time_ns" in samples.columns:
        known = samples.filter(pl.col("node") >= 0, pl.col("mem_node") >= 0)
        for tgid, node, mem_node, ns in known.select("tgid", "node", "mem_node", "time_ns").rows():
            where = "own node's" if node == mem_node else "remote"
            wanted[tgid, f"sampled time in {where} memory"] += ns
    drawn_ = {key: values for key, values in found.counters.items() if "sampled" in key[1]}
    assert {key: values[-1][1] for key, values in drawn_.items() if values[-1][1]} == wanted
    for values in drawn_.values():
        assert [value for _, value in values] == sorted(value for _, value in values)


def test_every_row_of_the_kinds_that_are_drawn_is_accounted_for(fixture: Drawing) -> None:
    path, _, done = fixture
    kinds = ("fork", "exec", "exit", "move", "balance", "oncpu", "place", "fault", "fault_count")
    memory = rows(path, "system").filter(pl.col("name") == "memory")
    remarks = rows(path, "loss", "note")
    samples = rows(path, "access").filter(pl.col("node") >= 0, pl.col("mem_node") >= 0)
    least = len(rows(path, *kinds)) + len(memory) + len(remarks) + len(samples)
    assert least <= done.written <= least + len(rows(path, "unmap"))
    assert done.rows == len(rows(path))
    assert done.nonsense == 0


def test_twice_gives_the_same_bytes() -> None:
    streams = [io.BytesIO(), io.BytesIO()]
    with Trace.open(FIXTURES[0]) as trace:
        for stream in streams:
            export(trace, "perfetto", stream)
    assert streams[0].getvalue() == streams[1].getvalue()


def test_chosen_kinds_are_drawn_alone() -> None:
    found, done = drawn(FIXTURES[0], "move")
    assert done.written == len(rows(FIXTURES[0], "move")) > 0
    assert not found.counters
    assert any(found.slices.values())


# --- slices, case by case


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """A trace of rows (kind, columns), one batch for each list."""

    return partial(write, tmp_path / "trace.arrow")


def sched(kind: str, t_ns: int, tid: int = 8, **row: object) -> tuple[str, dict[str, object]]:
    return kind, {"t_ns": t_ns, "tgid": 7, "tid": tid, "cpu": 0, **row}


def oncpu(t_ns: int, node: int, ns: int = 5, tid: int = 8) -> tuple[str, dict[str, object]]:
    return "oncpu", {"t_ns": t_ns, "tgid": 7, "tid": tid, "node": node, "oncpu_ns": ns}


START = ("rate", {"t_ns": 100, "name": "operand"})


@pytest.mark.parametrize(
    ("batches", "slices"),
    [
        # Ran all the time on one node.
        ([[START, oncpu(200, 1)], [oncpu(300, 1)]], [(100, 300, 1)]),
        # Moved: to the nanosecond, whatever the sums say when.
        (
            [[START, sched("move", 150, node=1, from_node=0), oncpu(200, 0), oncpu(200, 1)]],
            [(100, 150, 0), (150, 200, 1)],
        ),
        # Idle from one reading to the next.
        (
            [[START, oncpu(200, 0)], [oncpu(300, 0, tid=9)], [oncpu(400, 0)]],
            [(100, 200, 0), (300, 400, 0)],
        ),
        # Idle, and then on another node.
        (
            [
                [START, oncpu(200, 0)],
                [oncpu(300, 0, tid=9)],
                [sched("move", 350, node=1, from_node=0), oncpu(400, 1)],
            ],
            [(100, 200, 0), (350, 400, 1)],
        ),
        # A move that was drained after the time was read.
        (
            [[START, oncpu(200, 0)], [sched("move", 199, node=1, from_node=0), oncpu(300, 1)]],
            [(100, 199, 0), (199, 300, 1)],
        ),
        # Moves were lost: exact time tells.
        ([[START, oncpu(200, 0)], [oncpu(300, 1)]], [(100, 200, 0), (200, 300, 1)]),
        # Born and ended between readings.
        (
            [[START, oncpu(200, 0, tid=9)],
             [sched("fork", 220, ptgid=7, ptid=7), sched("exit", 280), oncpu(300, 1)]],
            [(220, 280, 1)],
        ),
        # Its number was given anew.
        (
            [[START, sched("exit", 150), oncpu(200, 0)],
             [sched("fork", 250, ptgid=7, ptid=7), oncpu(300, 1)]],
            [(100, 150, 0), (250, 300, 1)],
        ),
        # Never ran.
        ([[START, sched("exec", 150)]], []),
        # Times and nodes that cannot be.
        ([[START, oncpu(2**63, 0), oncpu(200, -1), oncpu(300, 5000), oncpu(0, 0)]], []),
    ],
)  # fmt: skip
def test_slices(
    make: Callable[..., Path],
    batches: list[list[tuple[str, dict[str, object]]]],
    slices: list[tuple[int, int, int]],
) -> None:
    found, _ = drawn(make(*batches))
    assert found.slices[7, 8] == [(start, end, f"node {node}") for start, end, node in slices]


def test_memory_follows_snapshots_and_unmapping(make: Callable[..., Path]) -> None:
    def place(t_ns: int, addr: int, node: int, held: int) -> tuple[str, dict[str, object]]:
        row = {"t_ns": t_ns, "tgid": 7, "addr": addr, "bytes": 100, "mem_node": node}
        return "place", {**row, "node_bytes": held}

    gone = ("unmap", {"t_ns": 30, "tgid": 7, "addr": 1000, "bytes": 100})
    path = make(
        [place(10, 1000, 0, 60), place(10, 1000, 1, 40), place(10, 2000, 0, 100)],
        [place(20, 1000, 1, 90), place(20, 1000, -1, 10), place(20, 1000, 0, 90)],
        [gone],
    )
    found, done = drawn(path)
    assert found.counters[7, "memory on node 0"] == [(10, 160), (20, 100)]
    assert found.counters[7, "memory on node 1"] == [(10, 40), (20, 90), (30, 0)]
    assert done.written == 7


def test_hardware_samples_count_for_events(make: Callable[..., Path]) -> None:
    def access(t_ns: int, node: int | None, mem_node: int | None, **what: int) -> Any:
        row = {"t_ns": t_ns, "tgid": 7, "tid": 8, "node": node, "mem_node": mem_node}
        return "access", row | what

    one = access(10, 0, 0, weight=5), access(20, 0, 1, weight=7), access(15, 1, 1, weight=2**64 - 1)
    unknown = access(40, None, 0, weight=9), access(40, 0, -1, weight=9)
    found, done = drawn(
        make(
            list(one),
            [access(30, 1, 0, weight=1), *unknown],
            [access(50, 0, 1, time_ns=100, weight=3)],
        )
    )
    own = found.counters[7, "sampled reads of own node's memory"]
    assert own == [(10, 0), (20, MOST), (30, MOST)]
    other = found.counters[7, "sampled reads of remote memory"]
    assert other == [(10, 0), (20, 7), (30, 8)]
    assert found.last(7, "sampled time in remote memory") == 100
    assert done.written == 5


# --- hostile, damaged, empty

HOSTILE = 'a\x1b[2J\x00"</script>\u202e=cmd|\n\N{SNOWMAN}' + "x" * 5000


def test_hostile_names_are_valid_text_without_control_characters(
    make: Callable[..., Path],
) -> None:
    found, _ = drawn(
        make(
            [
                ("process", {"t_ns": 1, "tgid": 7, "name": HOSTILE, "value": HOSTILE}),
                ("thread", {"t_ns": 1, "tgid": 7, "tid": 8, "name": HOSTILE, "value": "{"}),
                ("loss", {"t_ns": 2, "name": HOSTILE, "count": 2**64 - 1, "detail": HOSTILE}),
                ("system", {"t_ns": 2, "name": "memory", "value": HOSTILE}),
                oncpu(5, 0, 2**64 - 1), oncpu(6, 0, 2**64 - 1),
            ]
        )
    )  # fmt: skip
    ((_, event),) = found.instants["numatrace: what is missing"]
    shown = (found.processes[7], found.threads[7, 8], event.name, details(event)["why"])
    for name in shown:
        assert name.isprintable()
        assert "</script>" in name
        assert "\N{SNOWMAN}" in name
        assert len(name) <= 1024
    assert found.last((7, 8), "CPU time on node 0") == MOST


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "u64": st.sampled_from([0, 1, 5, 6, 2**63 - 1, 2**63, 2**64 - 1]),
    "s64": st.integers(-(2**63), 2**63 - 1),
    "s32": st.sampled_from([-(2**31), -1, 0, 1, 2, 2**31 - 1]),
    "u8": st.integers(0, 255),
    "text": st.sampled_from(["", "memory", "{}", '{"nodes": {"0": {"free_bytes": 5}}}', "\x1b"]),
}


@st.composite
def any_rows(draw: st.DrawFn) -> list[tuple[str, dict[str, object]]]:
    kinds = draw(st.lists(st.sampled_from(EVENTS), max_size=12))
    return [
        (
            event.kind,
            {name: draw(st.none() | VALUES[COLUMN[name].type]) for name in event.columns},
        )
        for event in kinds
    ]


@settings(max_examples=60, deadline=None)
@given(batches=st.lists(any_rows(), max_size=3))
def test_any_rows_at_all_give_a_file_that_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[str, dict[str, object]]]]
) -> None:
    path = tmp_path_factory.mktemp("t") / "trace.arrow"
    writer = TraceWriter.create(path)
    for batch in batches:
        for kind, row in batch:
            writer.add_rows(kind, [row])
        writer.flush()
    writer.close()
    found, done = drawn(path)
    count = sum(map(len, batches))
    assert done.rows == count
    assert done.written + done.nonsense <= count
    kinds = Counter(kind for batch in batches for kind, _ in batch)
    if not any(kinds[kind] for kind in THREADED):
        assert not found.threads


def test_a_cut_trace_is_drawn_as_far_as_it_goes(tmp_path: Path) -> None:
    cut = tmp_path / "cut.arrow"
    data = FIXTURES[0].read_bytes()
    cut.write_bytes(data[: len(data) * 2 // 3])
    found, done = drawn(cut)
    assert 0 < done.rows < len(rows(FIXTURES[0]))
    assert found.threads
    assert "ends early" in done.problems[0]
    last = found.instants["numatrace: what is missing"][-1][1]
    assert "ends early" in details(last)["why"]


def test_an_empty_trace_is_a_file_without_tracks(make: Callable[..., Path]) -> None:
    found, done = drawn(make())
    assert (done.rows, done.written, done.problems) == (0, 0, ())
    assert found == Picture()
