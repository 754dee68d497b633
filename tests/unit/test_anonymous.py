"""Names of private memory: traced, estimated by size, and what a later load leaves of them."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numatrace.analyze.documents import Tensor
from numatrace.analyze.memory.anonymous import NamedMemory, Span
from numatrace.analyze.memory.buffer_layout import Model
from numatrace.analyze.rows import split
from numatrace.model.events import EVENT
from numatrace.trace.schema import KINDS, arrow_schema

SERVER, OTHER = 1000, 1001
BASE = 0x7F00_0000_0000
MIB = 1 << 20
MODEL = "/models/m.gguf"
BLOCK = {"F32": (1, 4), "F16": (1, 2), "Q4_0": (32, 18), "Q4_K": (256, 144), "Q6_K": (256, 210)}


def batch(*rows: tuple[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Rows as analysis gets them: one Arrow batch, split by kind."""
    flat = [(EVENT[kind].code, row) for kind, of_kind in rows for row in of_kind]
    schema = arrow_schema()
    codes = pa.array([code for code, _ in flat], pa.int32())
    columns = [
        pa.array([row.get(field.name) for _, row in flat], field.type) for field in list(schema)[1:]
    ]
    kinds = pa.DictionaryArray.from_arrays(codes, KINDS)
    return split(pa.RecordBatch.from_arrays([kinds, *columns], schema=schema))


def at(t_ns: int, addr: int, size: int, name: str, path: str = MODEL, kind: str = "Q4_0") -> Any:
    row = {"t_ns": t_ns, "tgid": SERVER, "tid": SERVER, "addr": addr, "bytes": size}
    return row | {"name": name, "path": path, "detail": kind}


def mapping(t_ns: int, start: int, size: int, path: str = "", inode: int = 0) -> dict[str, Any]:
    perms = "r--s" if inode else "rw-p"
    row = {"t_ns": t_ns, "tgid": SERVER, "addr": start, "bytes": size, "offset": 0}
    return row | {"inode": inode, "path": path or None, "detail": perms}


def gone(t_ns: int, start: int, size: int) -> dict[str, Any]:
    return {"t_ns": t_ns, "tgid": SERVER, "addr": start, "bytes": size}


def buffer(t_ns: int, addr: int, size: int, detail: str = "malloc chunk") -> dict[str, Any]:
    return {"t_ns": t_ns, "tgid": SERVER, "addr": addr, "bytes": size, "detail": detail}


def check(spans: list[Span]) -> None:
    """What always holds: ascending, none empty, none over another."""
    assert all(span.start < span.end for span in spans)
    assert all(first.end <= second.start for first, second in pairwise(spans))


# --- what the server was seen to do


def test_a_traced_tensor_has_its_name_layer_file_and_experts() -> None:
    table = {"t_ns": 1, "path": MODEL, "inode": 7, "offset": 0, "bytes": 640, "detail": "Q4_0"}
    memory = NamedMemory()
    memory.take(
        batch(
            ("map", [mapping(1, BASE, MIB)]),
            ("tensor", [table | {"name": "blk.3.ffn_up_exps.weight", "value": "[32, 8, 4]"}]),
            ("tensor_at", [at(2, BASE + 64, 640, "blk.3.ffn_up_exps.weight")]),
            ("tensor_at", [at(3, BASE + 4096, 2048, "cache_v_l12", "", "F16")]),
            ("buffer", [buffer(3, BASE + 8192, 4096, "ggml compute CPU")]),
        )
    )
    assert memory.spans(SERVER) == [
        Span(
            *(BASE + 64, BASE + 704, "weights", "blk.3.ffn_up_exps.weight"),
            *(3, MODEL, "traced", 4),
        ),
        Span(BASE + 4096, BASE + 6144, "KV cache", "cache_v_l12", 12, "", "traced"),
        Span(BASE + 8192, BASE + 12288, "compute", "", None, "", "traced"),
    ]
    found = memory.locate(
        SERVER, np.array([BASE, BASE + 64, BASE + 703, BASE + 704, BASE + 12287], np.uint64)
    )
    assert found.tolist() == [-1, 0, 0, -1, 2]
    assert memory.locate(OTHER, np.array([BASE + 64], np.uint64)).tolist() == [-1]


@pytest.mark.parametrize(
    ("detail", "mapped", "kind", "cls"),
    [
        ("ggml weights CPU_REPACK", False, "Q4_0", "repacked weights"),
        ("ggml weights AMX", True, "Q4_0", "repacked weights"),
        ("ggml weights CPU", True, "Q4_0", "weights"),
        ("ggml weights", True, "Q4_0", "repacked weights"),
        ("ggml weights", False, "Q4_0", "weights"),
        ("ggml weights", True, "F32", "weights"),
    ],
)
def test_repacked_or_not(detail: str, mapped: bool, kind: str, cls: str) -> None:
    table = {"t_ns": 1, "path": MODEL, "inode": 7, "offset": 0, "bytes": 640, "detail": kind}
    maps = [mapping(1, BASE, MIB)] + [mapping(1, BASE + MIB, MIB, MODEL, 7)] * mapped
    memory = NamedMemory()
    memory.take(
        batch(
            ("map", maps),
            ("tensor", [table | {"name": "blk.0.attn_q.weight", "value": "[32, 8]"}]),
            ("buffer", [buffer(1, BASE, 4096, detail)]),
            ("tensor_at", [at(2, BASE + 64, 640, "blk.0.attn_q.weight", kind=kind)]),
        )
    )
    assert [span.cls for span in memory.spans(SERVER)] == [cls]


def test_a_tensor_in_the_file_itself_is_not_private_memory() -> None:
    memory = NamedMemory()
    memory.take(
        batch(
            ("map", [mapping(1, BASE, MIB, MODEL, 7), mapping(1, BASE + MIB, MIB)]),
            ("tensor_at", [at(2, BASE + 64, 640, "token_embd.weight")]),
            ("tensor_at", [at(2, BASE + MIB, 640, "output.weight")]),
            ("tensor_at", [at(2, BASE + 9 * MIB, 640, "on.the.gpu")]),
        )
    )
    assert [span.tensor for span in memory.spans(SERVER)] == ["output.weight"]


def test_a_second_load_replaces_the_first_where_it_lies() -> None:
    memory = NamedMemory()
    first = [at(10 + n, BASE + n * 1000, 1000, f"blk.{n}.attn_q.weight") for n in range(8)]
    memory.take(batch(("map", [mapping(1, BASE, MIB)]), ("tensor_at", first)))
    before = memory.version(SERVER)
    assert len(memory.spans(SERVER)) == 8
    second = [at(50 + n, BASE + n * 1500, 1500, f"blk.{n}.attn_k.weight") for n in range(3)]
    memory.take(batch(("tensor_at", second)))
    spans = memory.spans(SERVER)
    check(spans)
    assert memory.version(SERVER) > before
    assert [span.tensor for span in spans] == [
        *(f"blk.{n}.attn_k.weight" for n in range(3)),
        *(f"blk.{n}.attn_q.weight" for n in range(5, 8)),
    ]


def test_a_new_buffer_clears_what_was_there_before() -> None:
    memory = NamedMemory()
    weights = [at(10 + n, BASE + n * 1000, 1000, f"blk.{n}.attn_q.weight") for n in range(8)]
    memory.take(batch(("map", [mapping(1, BASE, MIB)]), ("tensor_at", weights)))
    memory.take(batch(("buffer", [buffer(30, BASE + 1500, 4096, "ggml compute CPU")])))
    assert [span.tensor for span in memory.spans(SERVER)] == [
        *("blk.0.attn_q.weight", "", "blk.6.attn_q.weight", "blk.7.attn_q.weight")
    ]


def test_unmapped_memory_has_no_names_and_grown_memory_keeps_them() -> None:
    memory = NamedMemory()
    tensors = [at(2, BASE + 64, 640, "a.weight"), at(2, BASE + 2 * MIB, 640, "b.weight")]
    memory.take(
        batch(
            ("map", [mapping(1, BASE, MIB), mapping(1, BASE + 2 * MIB, MIB)]),
            ("tensor_at", tensors),
        )
    )
    # The first grows, which the recorder tells as gone and there; the second goes.
    memory.take(
        batch(
            ("unmap", [gone(5, BASE, MIB), gone(5, BASE + 2 * MIB, MIB)]),
            ("map", [mapping(5, BASE - MIB, 2 * MIB)]),
        )
    )
    assert [span.tensor for span in memory.spans(SERVER)] == ["a.weight"]
    memory.take(batch(("map", [mapping(9, BASE + 2 * MIB, MIB)])))
    assert [span.tensor for span in memory.spans(SERVER)] == ["a.weight"]


@pytest.mark.parametrize("kind", ["exec", "fork"])
def test_another_program_under_the_same_number_starts_without_names(kind: str) -> None:
    memory = NamedMemory()
    memory.take(
        batch(("map", [mapping(1, BASE, MIB)]), ("tensor_at", [at(2, BASE, 640, "a.weight")]))
    )
    row = {"t_ns": 5, "tgid": SERVER, "tid": SERVER}
    if kind == "fork":
        thread = {"t_ns": 3, "tgid": SERVER, "tid": 9, "ptgid": SERVER, "ptid": SERVER}
        memory.take(batch(("fork", [thread])))
        assert len(memory.spans(SERVER)) == 1, "a thread is not a process"
        row |= {"ptgid": 1, "ptid": 1}
    memory.take(batch((kind, [row]), ("tensor_at", [at(6, BASE + 4096, 640, "b.weight")])))
    assert [span.tensor for span in memory.spans(SERVER)] == ["b.weight"]


TENSOR_ROWS = st.lists(
    st.tuples(
        st.integers(0, 50),
        st.integers(0, 40).map(lambda page: BASE + page * 256),
        st.integers(0, 2000),
        st.sampled_from(["blk.1.a.weight", "cache_k_l2", "x", ""]),
    ),
    max_size=30,
)
BUFFER_ROWS = st.lists(
    st.tuples(
        st.integers(0, 50),
        st.integers(0, 40).map(lambda page: BASE + page * 256),
        st.sampled_from([0, 100, 5000, 2**64 - 1]),
        st.sampled_from(["ggml compute CPU", "ggml any", "malloc chunk", "ggml \x00"]),
    ),
    max_size=10,
)
MAP_ROWS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 4), st.integers(1, 4), st.booleans()), max_size=6
)


@settings(deadline=None)
@given(st.lists(st.tuples(TENSOR_ROWS, BUFFER_ROWS, MAP_ROWS), min_size=1, max_size=3))
def test_spans_never_overlap_and_lie_in_private_memory(history: list[Any]) -> None:
    memory = NamedMemory()
    memory.take(batch(("map", [mapping(1, BASE, 16 * 1024)])))
    for tensors, buffers, maps in history:
        memory.take(
            batch(
                ("tensor_at", [at(t, addr, size, name) for t, addr, size, name in tensors]),
                ("buffer", [buffer(*row) for row in buffers]),
                ("unmap", [gone(t, BASE + p * 4096, n * 4096) for t, p, n, up in maps if up]),
                ("map", [mapping(t, BASE + p * 4096, n * 4096) for t, p, n, up in maps if not up]),
            )
        )
        spans = memory.spans(SERVER)
        check(spans)
        assert all(span.start >= BASE and span.end <= BASE + 8 * 4096 for span in spans)
        if spans:
            inner = np.array([(span.start + span.end) // 2 for span in spans], np.uint64)
            assert memory.locate(SERVER, inner).tolist() == list(range(len(spans)))


# --- what sizes say


def tensor(name: str, kind: str, *shape: int, path: str = MODEL, inode: int = 7) -> Tensor:
    elements, size = BLOCK[kind]
    return Tensor(path, inode, name, 0, int(np.prod(shape)) * size // elements, kind, shape)


def llama(
    layers: int = 4, kind: str = "Q4_K", down: str = "Q6_K", **more: Any
) -> dict[str, Tensor]:
    """A model in the order in which llama.cpp creates its tensors, with odd sizes of layers."""
    found = [tensor("token_embd.weight", kind, 256, 1024, **more)]
    found += [tensor("output_norm.weight", "F32", 256, **more)]
    found += [tensor("output.weight", "Q6_K", 256, 1024, **more)]
    for n in range(layers):
        prefix, wide = f"blk.{n}.", 768 + 256 * (n % 2)
        found += [
            tensor(f"{prefix}attn_norm.weight", "F32", 256, **more),
            tensor(f"{prefix}attn_q.weight", kind, 256, 256, **more),
            tensor(f"{prefix}attn_k.weight", kind, 256, 64, **more),
            tensor(f"{prefix}attn_v.weight", kind, 256, 64, **more),
            tensor(f"{prefix}attn_output.weight", kind, 256, 256, **more),
            tensor(f"{prefix}ffn_norm.weight", "F32", 256, **more),
            tensor(f"{prefix}ffn_gate.weight", kind, 256, wide, **more),
            tensor(f"{prefix}ffn_down.weight", down, wide, 256, **more),
            tensor(f"{prefix}ffn_up.weight", kind, 256, wide, **more),
        ]
    return {each.name: each for each in found}


def laid_out(tensors: list[Tensor]) -> dict[str, tuple[int, int]]:
    """Where ggml puts them: one after the other, padded to 32 bytes."""
    found, end = {}, 0
    for each in tensors:
        found[each.name] = (end, end + each.bytes)
        end += each.bytes + -each.bytes % 32
    return found


def size_of(tensors: list[Tensor]) -> int:
    return sum(each.bytes + -each.bytes % 32 for each in tensors)


def agree(spans: list[Span], truth: dict[str, tuple[int, int]], base: int) -> int:
    """Check every span against the truth; returns the bytes of those with a tensor's name."""
    check(spans)
    named = 0
    for span in spans:
        assert span.exactness == "estimated"
        for name, (start, end) in truth.items():
            overlap = min(span.end, base + end) - max(span.start, base + start)
            if overlap <= 0:
                continue
            assert span.tensor in ("", name)
            layer = name.split(".")[1] if name.startswith("blk") else None
            assert str(span.layer) == str(layer)
        named += (span.end - span.start) * bool(span.tensor)
    return named


@pytest.mark.parametrize("types", [("Q4_K",), ("Q4_K", "Q6_K"), ("Q6_K",)])
def test_a_buffer_of_repacked_weights_is_laid_out(types: tuple[str, ...]) -> None:
    model = llama()
    repacked = [
        each for each in model.values() if each.type in types and each.name != "token_embd.weight"
    ]
    memory = NamedMemory(model.values())
    size = size_of(repacked)
    memory.take(
        batch(
            ("map", [mapping(1, BASE, 64 * MIB), mapping(1, BASE + 64 * MIB, MIB, MODEL, 7)]),
            ("buffer", [buffer(1, BASE + 64, size + 2000)]),
        )
    )
    spans = memory.spans(SERVER)
    named = agree(spans, laid_out(repacked), BASE + 64)
    assert {span.cls for span in spans} == {"repacked weights"}
    assert sum(span.end - span.start for span in spans) >= sum(each.bytes for each in repacked)
    assert named > 0


def test_tied_embeddings_are_there_once_more_as_the_output() -> None:
    model = llama()
    del model["output.weight"]
    repacked = [each for each in model.values() if each.type == "Q4_K"]
    assert repacked[0].name == "token_embd.weight"
    memory = NamedMemory(model.values())
    rows = [buffer(1, BASE + 64, size_of(repacked) + 100)]
    maps = [mapping(1, BASE, 64 * MIB), mapping(1, BASE + 64 * MIB, MIB, MODEL, 7)]
    memory.take(batch(("map", maps), ("buffer", rows)))
    spans = memory.spans(SERVER)
    agree(spans, laid_out(repacked), BASE + 64)
    assert spans[0].tensor == "token_embd.weight"


def test_experts_alone_where_a_gpu_has_the_rest() -> None:
    model = llama()
    for n in range(4):
        for part in ("gate", "down", "up"):
            name = f"blk.{n}.ffn_{part}_exps.weight"
            model[name] = tensor(name, "Q4_K", 256, 512, 8)
    experts = [each for each in model.values() if "_exps" in each.name]
    memory = NamedMemory(model.values())
    rows = [buffer(1, BASE + 64, size_of(experts) + 100)]
    memory.take(batch(("map", [mapping(1, BASE, 64 * MIB)]), ("buffer", rows)))
    spans = memory.spans(SERVER)
    experts.sort(key=lambda each: (each.name.split(".")[1], "gate" not in each.name))
    agree(spans, laid_out(experts), BASE + 64)
    assert {span.experts for span in spans if span.tensor} == {8}
    assert {span.layer for span in spans} == {0, 1, 2, 3}


@pytest.mark.parametrize("slack", [0, 32, 4096])
def test_all_weights_in_one_buffer(slack: int) -> None:
    model = llama()
    memory = NamedMemory(model.values())
    size = size_of(list(model.values()))
    memory.take(
        batch(
            ("map", [mapping(1, BASE, 64 * MIB)]), ("buffer", [buffer(1, BASE + 64, size + slack)])
        )
    )
    spans = memory.spans(SERVER)
    assert agree(spans, laid_out(list(model.values())), BASE + 64) > size / 3
    assert {span.cls for span in spans} == {"weights"}


@pytest.mark.parametrize("wrong", [-1, 4096 + 200, 3 * MIB])
def test_another_size_is_not_named(wrong: int) -> None:
    model = llama()
    memory = NamedMemory(model.values())
    size = size_of(list(model.values())) + wrong
    rows = [buffer(1, BASE + 64, size)]
    memory.take(batch(("map", [mapping(1, BASE, 64 * MIB)]), ("buffer", rows)))
    assert memory.spans(SERVER) == []


def test_the_layers_that_are_not_on_a_gpu() -> None:
    model = llama(layers=6)
    first = [
        each
        for each in model.values()
        if each.type == "Q4_K" and each.name.startswith(("blk.0.", "blk.1.", "blk.2."))
    ]
    memory = NamedMemory(model.values())
    rows = [buffer(1, BASE + 64, size_of(first) + 100)]
    memory.take(batch(("map", [mapping(1, BASE, 64 * MIB)]), ("buffer", rows)))
    spans = memory.spans(SERVER)
    agree(spans, laid_out(first), BASE + 64)
    assert {span.layer for span in spans} == {0, 1, 2}


@pytest.mark.parametrize(("kind", "context"), [("F16", 4096), ("Q8_0", 8192), ("F32", 256)])
def test_a_cache_is_known_by_its_size(kind: str, context: int) -> None:
    model = llama(layers=5)
    elements, size = {"F16": (1, 2), "Q8_0": (32, 34), "F32": (1, 4)}[kind]
    row = 64 * size // elements * context
    memory = NamedMemory(model.values())
    rows = [buffer(1, BASE + 64, 10 * row + 4000)]
    memory.take(batch(("map", [mapping(1, BASE, 64 * MIB)]), ("buffer", rows)))
    spans = memory.spans(SERVER)
    assert [(span.start, span.end, span.tensor, span.layer) for span in spans] == [
        (
            BASE + 64 + (2 * layer + value) * row,
            BASE + 64 + (2 * layer + value + 1) * row,
            f"cache_{'kv'[value]}_l{layer}",
            layer,
        )
        for layer in range(5)
        for value in range(2)
    ]
    assert {(span.cls, span.exactness, span.path) for span in spans} == {
        ("KV cache", "estimated", MODEL)
    }


def test_two_models_of_the_same_size_leave_a_buffer_without_a_name() -> None:
    one, two = llama(), llama(path="/models/n.gguf", inode=8)
    size = size_of(list(one.values()))
    memory = NamedMemory([*one.values(), *two.values()])
    rows = [buffer(1, BASE + 64, size)]
    memory.take(batch(("map", [mapping(1, BASE, 64 * MIB)]), ("buffer", rows)))
    assert memory.spans(SERVER) == []


def test_unknown_matrices_leave_the_layer_only() -> None:
    """DeepSeek's attention has other matrices: the layer is certain, nothing in it is."""
    model = llama(layers=3)
    for n in range(3):
        model[f"blk.{n}.attn_kv_b.weight"] = tensor(f"blk.{n}.attn_kv_b.weight", "Q4_K", 256, 512)
    found = Model(MODEL, model.values()).guesses(size_of(list(model.values())), mapped=False)
    assert len(found) == 1
    inside = [part for part in found[0].parts if part.layer is not None]
    assert [(part.layer, part.tensor) for part in inside] == [(0, ""), (1, ""), (2, "")]


def test_what_was_traced_stands_and_estimates_fill_the_rest() -> None:
    """The probe came late: it saw the last tensors of a buffer only."""
    model = llama()
    truth = laid_out(list(model.values()))
    late = [name for name in truth if name.startswith("blk.3.")]
    memory = NamedMemory(model.values())
    size = size_of(list(model.values()))
    rows = [
        at(n, BASE + 64 + truth[name][0], truth[name][1] - truth[name][0], name)
        for n, name in enumerate(late)
    ]
    memory.take(
        batch(
            ("map", [mapping(1, BASE, 64 * MIB)]),
            ("tensor_at", rows),
            ("buffer", [buffer(90, BASE + 64, size)]),
        )
    )
    spans = memory.spans(SERVER)
    check(spans)
    assert [span.tensor for span in spans if span.exactness == "traced"] == late
    agree([span for span in spans if span.exactness == "estimated"], truth, BASE + 64)
    assert sum(span.end - span.start for span in spans) >= size - 32 * len(model)
    # One that contradicts the layout: then there is no estimate.
    memory.take(batch(("tensor_at", [at(200, BASE + 96, 640, "blk.0.attn_q.weight")])))
    assert {span.exactness for span in memory.spans(SERVER)} == {"traced"}


def test_a_block_that_is_gone_is_no_longer_named() -> None:
    model = llama()
    size = size_of(list(model.values()))
    memory = NamedMemory(model.values())
    rows = [buffer(1, BASE + 64, size)]
    memory.take(batch(("map", [mapping(1, BASE, 64 * MIB)]), ("buffer", rows)))
    assert memory.spans(SERVER)
    memory.take(batch(("buffer", [buffer(2, BASE + 64, 0)])))
    assert memory.spans(SERVER) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["blk.0.attn_q.weight", "blk.999999.x", "output.weight", "blk.1.a_exps"]
            ),
            st.sampled_from(["Q4_0", "F32", "?", ""]),
            st.integers(0, 2**63),
            st.lists(st.integers(0, 2**62), max_size=4),
        ),
        max_size=8,
    ),
    st.integers(0, 2**63),
)
def test_no_table_breaks_the_guess(tensors: list[Any], size: int) -> None:
    table = [Tensor(MODEL, 7, name, 0, n, kind, tuple(dims)) for name, kind, n, dims in tensors]
    for guess in Model(MODEL, table).guesses(size, mapped=False):
        ends = [part.offset + part.bytes for part in guess.parts]
        assert all(end <= size for end in ends)
        assert json.dumps(guess)
