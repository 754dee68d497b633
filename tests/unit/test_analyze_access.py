"""Access samples to threads, places and nodes: known answers, and a plain count as the oracle."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numatrace.analyze import load as loading
from numatrace.analyze.cells import Cells
from numatrace.analyze.documents import Tensor
from numatrace.analyze.memory.locate import Locator, Place
from numatrace.analyze.memory.modelfiles import ModelFiles, TensorTable
from numatrace.analyze.packing import Packing
from numatrace.analyze.phases.phases import Phases, PhaseSpan
from numatrace.analyze.samples.access import CELL, Access, merge
from numatrace.model.access import HOW, KERNEL
from numatrace.trace.reader import Trace
from tests.unit.test_analyze_faults import A, B, mapped, unmapped
from tests.unit.test_analyze_threads import born, sched
from tests.unit.test_analyze_world import (
    INODE,
    MIB,
    MODEL,
    PAGE,
    PRIVATE_AT,
    SECOND,
    SERVER,
    WEIGHTS_AT,
    World,
    map_row,
)

if TYPE_CHECKING:
    from numatrace.model.report import Report

Row = dict[str, object]
MS = 1_000_000


def survey_of(*spans: PhaseSpan) -> type:
    """A survey that finds these phases, whatever there is."""

    class Survey:
        def take(self, rows: object) -> None:
            pass

        def finish(self) -> Phases:
            return Phases(spans)

    return Survey


@pytest.fixture(autouse=True)
def always_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """How phases are told is tested elsewhere."""
    monkeypatch.setattr(loading, "Survey", survey_of(PhaseSpan(0, 1 << 62, "compute")))


def access(t_ns: int = 3 * SECOND, addr: int | None = WEIGHTS_AT, **columns: object) -> Row:
    """An operand sample of the server's first thread: a local read of the first weight."""
    how = "none" if addr is None else "operand"
    usual = {"tgid": SERVER, "tid": SERVER, "cpu": 0, "node": 0, "ip": 7, "access": 0, "weight": 1}
    mem_node = None if addr is None else 0
    return {
        "t_ns": t_ns, "addr": addr, "mem_node": mem_node, "time_ns": MS, "name": "operand",
        "detail": how, **usual, **columns,
    }  # fmt: skip


def report_of(*rows: Row, extra: tuple[tuple[str, list], ...] = (), **world: object) -> Report:
    return World(extra=[*extra, ("access", list(rows))], **world).report()  # type: ignore[arg-type]


def account(report: Report) -> tuple[int, int, int, int]:
    loss = next(loss for loss in report.losses if loss.family == "access")
    loss.check()
    return loss.recorded, loss.attributed, loss.unattributed, loss.lost


def found(report: Report) -> Counter[tuple[object, ...]]:
    """Samples of the matrix by thread, what was read, and nodes."""
    counted: Counter[tuple[object, ...]] = Counter()
    for row in report.reads:
        what = row.layer if row.layer is not None else row.region
        counted[row.tid, what, row.cpu_node, row.mem_node] += row.samples
    return counted


def unplaced(report: Report) -> dict[str, int]:
    assert report.access is not None
    views = (*report.access.unplaced, *report.access.kernel, report.access.waiting)
    return {view.reason: view.samples for view in views if view.samples}


# --- one sample after the other


def test_a_sample_is_found_in_its_layer_with_thread_and_nodes() -> None:
    report = report_of(
        access(),
        access(addr=WEIGHTS_AT + 33 * MIB, tid=SERVER + 1, node=1, mem_node=0),
        access(addr=PRIVATE_AT + 5, mem_node=1),
        private={1: 32 * MIB},
    )
    label = f"private memory at {PRIVATE_AT:#x}"
    assert found(report) == {
        (SERVER, 0, 0, 0): 1,
        (SERVER + 1, 1, 1, 0): 1,
        (SERVER, label, 0, 1): 1,
    }
    assert account(report) == (3, 3, 0, 0)
    assert {row.time_ns for row in report.reads} == {MS}


@pytest.mark.parametrize("how", HOW)
def test_without_an_address_the_time_goes_to_the_kernel_or_to_nothing(how: str) -> None:
    report = report_of(access(addr=None, detail=how))
    kernel = how.startswith("kernel")
    known = kernel or how == "spin"
    assert account(report) == (1, int(known), int(not known), 0)
    assert report.reads == ()
    assert report.access is not None
    assert bool(report.access.kernel) == kernel
    if how not in ("operand", "neighbour", "vector"):
        assert unplaced(report) == {how: 1}


def test_in_kernel_mode_the_kernel_has_the_time_whatever_the_address() -> None:
    report = report_of(
        access(access=KERNEL, detail="operand"), access(access=KERNEL, detail="kernel copy")
    )
    assert unplaced(report) == {"kernel": 1, "kernel copy": 1}
    assert account(report) == (2, 2, 0, 0)


def test_waiting_for_another_thread_is_no_read_of_the_polled_word() -> None:
    report = report_of(access(detail="spin"), access())
    assert unplaced(report) == {"spin": 1}
    assert sum(found(report).values()) == 1
    assert account(report) == (2, 2, 0, 0)


@pytest.mark.parametrize(
    "columns",
    [{"tgid": 0}, {"tgid": -5}, {"tid": 0}, {"tid": None}, {"name": "nonsense"}, {"name": None}],
)
def test_rows_that_make_no_sense_are_counted_and_used_for_nothing(columns: Row) -> None:
    report = report_of(access(**columns))
    assert unplaced(report) == {"the row makes no sense": 1}
    assert all(thread.tid >= SERVER for thread in report.threads)
    assert account(report) == (1, 0, 1, 0)


def test_absurd_numbers_are_cut_to_what_a_sample_can_be() -> None:
    report = report_of(access(time_ns=(1 << 64) - 1, node=5000, mem_node=1 << 30))
    (row,) = report.reads
    assert (row.cpu_node, row.mem_node) == (None, None)
    assert row.time_ns == 1 << 36


def test_an_unknown_node_stays_unknown() -> None:
    report = report_of(access(mem_node=None), access(mem_node=-1), access(node=None))
    assert found(report) == {
        (SERVER, 0, 0, None): 2,
        (SERVER, 0, None, 0): 1,
    }
    assert report.access is not None
    assert report.access.unknown_node.samples == 3


# --- addresses over time


def test_an_address_in_no_mapping_is_unattributed() -> None:
    report = report_of(access(addr=A))
    assert account(report) == (1, 0, 1, 0)
    assert unplaced(report) == {"no mapping held the address": 1}


def test_a_sample_waits_for_the_mapping_that_is_seen_later() -> None:
    report = World(extra=[("access", [access(10, A)]), mapped(20, A, "[heap]")]).report()
    assert found(report) == {(SERVER, "heap", 0, 0): 1}
    assert account(report) == (1, 1, 0, 0)


def test_a_mapping_that_appears_long_after_is_another_one() -> None:
    late = 3 * SECOND + 60 * SECOND
    rows = [("access", [access(addr=A)]), ("access", [access(late)])]
    report = World(extra=[*rows, mapped(late + 1, A, "[heap]")]).report()
    assert found(report) == {(SERVER, 0, 0, 0): 1}
    assert account(report) == (2, 1, 1, 0)


def test_a_reused_address_is_told_apart_by_time_within_a_batch() -> None:
    rows = [access(25, A), access(15, A), access(25, A + PAGE)]
    extra = [("access", rows), mapped(20, A, "[stack]"), mapped(10, A, "[heap]"), unmapped(20, A)]
    report = World(extra=extra, together=True).report()
    assert found(report) == {(SERVER, "heap", 0, 0): 1, (SERVER, "stack", 0, 0): 2}


def test_a_sample_that_arrives_after_the_unmapping_finds_what_was_there() -> None:
    extra = [mapped(10, A, "[heap]"), unmapped(20, A), ("access", [access(15, A)])]
    assert found(World(extra=extra).report()) == {(SERVER, "heap", 0, 0): 1}


def test_a_second_model_and_a_reload_at_another_address_keep_their_names() -> None:
    other = "/models/other.gguf"
    tensor = {"t_ns": 2, "path": other, "inode": 99, "name": "blk.7.attn_q.weight", "offset": 0,
              "bytes": 16 * PAGE, "detail": "F16", "value": "[8, 8]"}  # fmt: skip
    again = [
        {**map_row(B, 64 * MIB, MODEL, INODE, "r--s"), "t_ns": 5 * SECOND},
        {**map_row(A, 16 * PAGE, other, 99, "r--s"), "t_ns": 5 * SECOND},
    ]
    gone = {"t_ns": 4 * SECOND, "tgid": SERVER, "addr": WEIGHTS_AT, "bytes": 64 * MIB}
    rows = [access(), access(6 * SECOND, B + 40 * MIB), access(6 * SECOND, A + 3)]
    report = report_of(*rows, extra=(("unmap", [gone]), ("map", again), ("tensor", [tensor])))
    paths = {(row.path, row.layer) for row in report.reads}
    assert paths == {(MODEL, 0), (MODEL, 1), (other, 7)}
    assert {layer.layer: layer.read_ns for layer in report.layers if layer.read_ns} == {
        0: MS, 1: MS, 7: MS,
    }  # fmt: skip


def test_samples_that_come_before_the_tensor_table_still_find_their_tensor() -> None:
    """The table of a large file takes its time to be read."""
    rows = [access(addr=A + 5)]
    other = "/models/late.gguf"
    tensor = {"t_ns": 9 * SECOND, "path": other, "inode": 99, "name": "blk.3.x", "offset": 0,
              "bytes": 16 * PAGE, "detail": "F16", "value": "[8]"}  # fmt: skip
    mapping = {**map_row(A, 16 * PAGE, other, 99, "r--s")}
    world = World(extra=[("map", [mapping]), ("access", rows), ("tensor", [tensor])])
    assert found(world.report()) == {(SERVER, 3, 0, 0): 1}


# --- threads


def test_workers_that_are_made_anew_are_one_slot() -> None:
    extra: list[tuple[str, list]] = []
    for token in range(30):
        begin = 100 * (token + 1)
        extra += [born(2000 + token, begin), sched("exit", 2000 + token, begin + 60)]
        extra += [("access", [access(begin + 50, tid=2000 + token)])]
    report = World(extra=extra).report()
    assert found(report) == {(2000, 0, 0, 0): 30}
    slot = next(thread for thread in report.threads if thread.tid == 2000)
    assert (slot.members, slot.read_ns) == (30, 30 * MS)


# --- private memory with a name


def test_tensors_that_the_server_was_seen_to_place_have_their_names() -> None:
    """A private copy of the second layer, and the KV cache of the first."""
    seen = [
        {"t_ns": 2 * SECOND, "tgid": SERVER, "tid": SERVER, "addr": PRIVATE_AT + MIB * n,
         "bytes": MIB, "name": name, "path": path, "detail": "F16"}
        for n, name, path in ((0, "blk.1.ffn_up.weight", MODEL), (4, "cache_k_l0", ""))
    ]  # fmt: skip
    rows = [
        *(access(addr=PRIVATE_AT + 5 + n, mem_node=1) for n in range(3)),
        access(addr=PRIVATE_AT + 4 * MIB),
        access(addr=PRIVATE_AT + 20 * MIB),
    ]
    report = report_of(*rows, extra=(("tensor_at", seen),), private={1: 32 * MIB})
    assert account(report) == (5, 5, 0, 0)
    layers = {layer.layer: layer.read_ns for layer in report.layers}
    assert layers == {0: 0, 1: 3 * MS}
    read = {region.cls: (region.label, region.read_ns) for region in report.regions
            if region.read_ns}  # fmt: skip
    label, time_ns = read.pop("KV cache")
    assert ("KV cache" in label, time_ns) == (True, MS)
    assert sorted(time_ns for _, time_ns in read.values()) == [MS, 3 * MS]
    loss = next(loss for loss in report.losses if loss.family == "map")
    assert loss.unattributed == 0


def test_private_memory_that_is_read_for_longer_than_the_mapped_weights_counts_as_weights() -> None:
    """A repacked copy whose tensors nobody saw: the mapped file is hardly read any more."""
    rows = [access(SECOND + n * 10 * MS, PRIVATE_AT + n, mem_node=1) for n in range(200)]
    report = report_of(access(), *rows, private={1: 32 * MIB}, type="Q4_0")
    assert report.access is not None
    assert report.access.unnamed_weights
    assert report.access.remote_share is not None
    assert report.access.remote_share.value > 0.99
    for hit in ([access()], []):  # whether a sample hit the file or not
        report = report_of(*hit, *rows, private={1: 32 * MIB}, type="F16")
        assert report.access is not None
        assert not report.access.unnamed_weights, "F16 is read where it lies"
    report = report_of(*(access(addr=WEIGHTS_AT + n) for n in range(201)), *rows,
                       private={1: 32 * MIB}, type="Q4_0")  # fmt: skip
    assert report.access is not None
    assert not report.access.unnamed_weights
    assert report.access.remote_share is not None
    assert report.access.remote_share.value == 0.0


# --- experts


def tensor(name: str, offset: int, size: int, shape: tuple[int, ...] = (4,)) -> Tensor:
    return Tensor(MODEL, INODE, name, offset, size, "F16", shape)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9), st.sampled_from([1, 2, 8])),
             min_size=1, max_size=12),
    st.lists(st.integers(0, 600), min_size=1, max_size=30),
)  # fmt: skip
def test_tensors_and_experts_agree_with_a_plain_search(
    sizes: list[tuple[int, int, int]], asked: list[int]
) -> None:
    tensors, offset = [], 0
    for number, (size, gap, experts) in enumerate(sizes):
        name = f"blk.{number}.ffn_up_exps.weight"
        tensors.append(tensor(name, offset, size * experts, (2, 2, experts)))
        offset += size * experts + gap
    table = TensorTable(tensors)
    parts = table.locate(np.array(asked, np.uint64)).tolist()
    for place, part in zip(asked, parts, strict=True):
        inside = [each for each in tensors if each.offset <= place < each.offset + each.bytes]
        if not inside:
            assert part == -1
            continue
        count = inside[0].shape[2]
        expert = (place - inside[0].offset) * count // inside[0].bytes
        assert table.part(part) == (inside[0], expert)


def test_what_is_no_expert_tensor_has_no_experts() -> None:
    tensors = [
        tensor("blk.0.ffn_up.weight", 0, 64, (2, 2, 8)),
        tensor("blk.0.ffn_up_exps.weight", 64, 64, (2, 8)),
        tensor("blk.1.ffn_up_exps.weight", 128, 63, (2, 2, 8)),
        tensor("blk.2.ffn_up_exps.weight", 192, 64, (2, 2, 1 << 60)),
    ]
    table = TensorTable(tensors)
    assert table.parts == 4
    assert [table.part(n)[1] for n in range(4)] == [None] * 4


def test_every_expert_is_a_place_of_its_own_and_they_add_up_to_the_tensor() -> None:
    size, experts = 8 * PAGE, 8
    row = {"t_ns": 2, "path": "/m.gguf", "inode": 99, "name": "blk.0.ffn_up_exps.weight",
           "offset": 0, "bytes": size, "detail": "F16", "value": "[64, 8, 8]"}  # fmt: skip
    mapping = map_row(A, size, "/m.gguf", 99, "r--s")
    rows = [access(addr=A + expert * PAGE + 7) for expert in range(experts)]
    world = World(extra=[("tensor", [row]), ("map", [mapping]), ("access", rows)])
    loaded = loading.load(batches_of(world))
    places = [loaded.locator.places[n] for n in CELL.field(loaded.access.cells.keys, "place")]
    assert sorted(place.expert for place in places if place.expert is not None) == [*range(8)]
    report = world.report()
    read = {each.name: each.read_ns for each in report.tensors if each.path == "/m.gguf"}
    assert read == {"blk.0.ffn_up_exps.weight": 8 * MS}


def batches_of(world: World) -> list:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.arrow"
        world.write(path)
        with Trace.open(path) as trace:
            return list(trace.batches())


# --- all of it against a plain count

LAYER = 32 * MIB
SPOTS: dict[object, int] = {0: WEIGHTS_AT, 1: WEIGHTS_AT + LAYER, "heap": A, "stack": B}

samples = st.lists(
    st.tuples(
        st.sampled_from([*SPOTS, "nowhere", *HOW]),
        st.integers(0, 3),
        st.sampled_from([0, 1, None]),
        st.sampled_from([0, 1, -1, None]),
        st.integers(0, 16 * PAGE - 1),
        st.integers(1, 1 << 30),
    ),
    max_size=60,
)


@given(samples, st.lists(st.integers(0, 60), max_size=4), st.integers(0, 50))
@settings(deadline=None, max_examples=30)
def test_the_matrix_is_what_counting_one_by_one_gives(
    drawn: list[tuple], cuts: list[int], lost: int
) -> None:
    expected: Counter[tuple[object, ...]] = Counter()
    times: Counter[tuple[object, ...]] = Counter()
    reasons: Counter[str] = Counter()
    rows = []
    for what, thread, node, memory, offset, time_ns in drawn:
        mem_node = None if memory in (None, -1) else memory
        key = (SERVER + thread, what, node, mem_node)
        columns = {"tid": SERVER + thread, "node": node, "mem_node": memory, "time_ns": time_ns}
        if what in SPOTS:
            rows.append(access(addr=SPOTS[what] + offset, **columns))
            expected[key] += 1
            times[key] += time_ns
        elif what == "nowhere":
            rows.append(access(addr=PAGE, **columns))
            reasons["no mapping held the address"] += 1
        else:
            rows.append(access(addr=None, detail=what, **columns))
            without = what not in ("operand", "neighbour", "vector")
            reasons[what if without else "the sample has no address"] += 1
    edges = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    parts = [("access", rows[a:b]) for a, b in pairwise(edges)]
    maps = [mapped(2, A, "[heap]"), mapped(2, B, "[stack]")]
    report = World(extra=[*maps, *parts], losses={"access": lost}).report()
    assert found(report) == expected
    spent: Counter[tuple[object, ...]] = Counter()
    for row in report.reads:
        what = row.layer if row.layer is not None else row.region
        spent[row.tid, what, row.cpu_node, row.mem_node] += row.time_ns
    assert spent == times
    assert unplaced(report) == reasons
    kernel = sum(
        count
        for reason, count in reasons.items()
        if reason.startswith("kernel") or reason == "spin"
    )
    placed = sum(expected.values())
    if rows or lost:
        assert account(report) == (
            len(rows) + lost, placed + kernel, len(rows) - placed - kernel, lost
        )  # fmt: skip
    by_thread = Counter({thread.tid: thread.read_ns for thread in report.threads})
    assert +by_thread == +Counter(
        {tid: sum(t for key, t in times.items() if key[0] == tid) for tid in by_thread}
    )
    layers = {layer.layer: layer.read_ns for layer in report.layers}
    assert layers == {n: sum(t for key, t in times.items() if key[1] == n) for n in (0, 1)}
    assert sum(region.read_ns for region in report.regions) == sum(times.values())


# --- phases


@pytest.fixture
def loads_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server loads up to the fifth second and decodes from then on."""
    spans = (PhaseSpan(0, 5 * SECOND, "load"), PhaseSpan(5 * SECOND, 1 << 62, "decode"))
    monkeypatch.setattr(loading, "Survey", survey_of(*spans))


@pytest.mark.usefixtures("loads_first")
def test_what_was_remote_while_loading_is_not_blamed_on_decoding() -> None:
    remote = [access(4 * SECOND + n, node=1, mem_node=0) for n in range(300)]
    local = [access(6 * SECOND + n * 10 * MS) for n in range(300)]
    report = report_of(*remote, *local)
    shares = {phase.phase: phase.remote_share for phase in report.phases}
    assert {name: share.value for name, share in shares.items() if share is not None} == {
        "load": 1.0, "decode": 0.0,
    }  # fmt: skip
    assert report.verdict.kind == "healthy"
    assert report.access is not None
    assert report.access.remote_share is not None
    assert report.access.remote_share.value == 0.0
    (thread,) = [thread for thread in report.threads if thread.read_ns]
    assert (thread.read_ns, thread.lost_ns) == (300 * MS, 0)
    assert sum(row.samples for row in report.reads) == 600, "the matrix has loading, too"
    assert report.hot == ()


# --- bounds


def cells_of(keys: list[tuple[int, int]]) -> Cells:
    cells = Cells(4, 2)
    place, slot = (np.array(column) for column in zip(*keys, strict=True))
    zero = np.zeros(len(keys), np.int64)
    packed = CELL.pack(place=place, slot=slot, pair=zero, phase=zero, served=zero)
    weights = np.arange(1, len(keys) + 1)
    cells.add(packed, np.stack([weights] * 4, axis=1), np.ones((len(keys), 2)))
    cells.settle()
    return cells


def a_locator(layers: int = 8, experts: int = 8) -> Locator:
    locator = Locator(ModelFiles([]), named=None)  # type: ignore[arg-type]
    for layer in range(layers):
        for expert in range(experts):
            name = f"blk.{layer}.ffn_up_exps.weight"
            locator.id(Place(SERVER, "weights", MODEL, 0, MODEL, name, layer, expert, "mapped"))
    return locator


@given(st.lists(st.tuples(st.integers(0, 63), st.integers(0, 5)), min_size=1, max_size=200,
                unique=True), st.integers(1, 100))  # fmt: skip
def test_merging_keeps_every_sum_and_goes_up_step_by_step(
    keys: list[tuple[int, int]], goal: int
) -> None:
    locator, cells = a_locator(), cells_of(keys)
    before = sums(cells, locator)
    merge(cells, locator, goal)
    assert len(cells.keys) <= max(goal, 1)
    after = sums(cells, locator)
    assert after["all"] == before["all"]
    if goal >= 6 * 2:
        assert after["thread"] == before["thread"], "threads are merged only where it must be"
    if goal >= 6 * 8 * 2:
        assert after["layer"] == before["layer"]


def sums(cells: Cells, locator: Locator) -> dict[str, Counter[object]]:
    found: dict[str, Counter[object]] = {"all": Counter(), "thread": Counter(), "layer": Counter()}
    places = CELL.field(cells.keys, "place").tolist()
    slots = CELL.field(cells.keys, "slot").tolist()
    for place, slot, count in zip(places, slots, cells.integers[:, 0].tolist(), strict=True):
        found["all"][0] += count
        found["thread"][slot] += count
        found["layer"][slot, locator.places[place].layer] += count
    return found


def test_too_many_cells_are_merged_and_the_report_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chance = np.random.default_rng(5)
    rows = [
        access(addr=WEIGHTS_AT + int(offset), tid=SERVER + int(thread))
        for offset, thread in zip(
            chance.integers(0, 64 * MIB, 3000), chance.integers(0, 4, 3000), strict=True
        )
    ]
    whole = report_of(*rows)
    monkeypatch.setattr(loading, "Access", lambda residency: Access(residency, 4))
    monkeypatch.setattr("numatrace.analyze.cells.SPARE", 100)
    small = World(extra=[("access", rows[n : n + 500]) for n in range(0, 3000, 500)]).report()
    assert whole.access is not None
    assert small.access is not None
    assert (whole.access.merged, small.access.merged) == (False, True)
    assert sum(row.samples for row in small.reads) == 3000
    assert len(small.reads) < len(whole.reads)
    assert account(small) == account(whole)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 31), st.integers(0, 255)), max_size=20))
def test_packed_fields_come_out_as_they_went_in(fields: list[tuple[int, int, int]]) -> None:
    packing = Packing(a=1, b=5, c=58)
    columns = [np.array([row[n] for row in fields], np.int64) for n in range(3)]
    keys = packing.pack(a=columns[0], b=columns[1], c=columns[2])
    for name, column in zip("abc", columns, strict=True):
        assert packing.field(keys, name).tolist() == column.tolist()
    other = packing.with_field(keys, "b", 31 - columns[1])
    assert packing.field(other, "b").tolist() == (31 - columns[1]).tolist()
    assert packing.field(other, "a").tolist() == columns[0].tolist()
    assert packing.field(other, "c").tolist() == columns[2].tolist()
    with pytest.raises(ValueError, match="65 bits"):
        Packing(a=60, b=5)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-5, 1 << 40)), max_size=50),
       st.integers(1, 8))  # fmt: skip
def test_cells_add_up_whatever_the_batches(pairs: list[tuple[int, int]], size: int) -> None:
    cells = Cells(1, 1)
    for begin in range(0, len(pairs), size):
        part = pairs[begin : begin + size]
        keys = np.array([key for key, _ in part], np.uint64)
        values = np.array([[value] for _, value in part], np.int64)
        cells.add(keys, values, values.astype(float))
        if begin % 3 == 0:
            cells.settle()
    count = cells.settle()
    expected: Counter[int] = Counter()
    for key, value in pairs:
        expected[key] += value
    assert count == len(expected)
    assert dict(zip(cells.keys.tolist(), cells.integers[:, 0].tolist(), strict=True)) == expected
    assert cells.floats[:, 0].tolist() == cells.integers[:, 0].tolist()


def test_a_million_samples_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is bounded by the number of cells, not by the samples."""
    kept = []
    real = Cells.settle

    def settle(self: Cells) -> int:
        count = real(self)
        kept.append(count)
        return count

    monkeypatch.setattr(Cells, "settle", settle)
    offsets = np.random.default_rng(3).integers(0, 64 * MIB, 10_000).tolist()
    rows = [access(addr=WEIGHTS_AT + offset) for offset in offsets]
    many = batches_of(World(extra=[("access", rows)]))
    loaded = loading.load(many * 100)
    assert loaded.access.recorded == loaded.access.attributed == 1_000_000
    assert max(kept) < 100
