"""Heads of tensors from builds that lay their struct out in any way, with and without tables."""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from numatrace.record.tensors.ggml_buffer import parse
from numatrace.record.tensors.gguf_table import GgufTable, Tensor
from numatrace.record.tensors.heads import HEAD_BYTES, NUMBERS, Layout, padded, read, study
from numatrace.record.tensors.names import MAX_WAITING, Namer, NameTable
from numatrace.trace.schema import ring_dtype

SIZES = {"F32": (1, 4), "F16": (1, 2), "Q4_0": (32, 18)}


def tensor(name: str, kind: str, shape: tuple[int, ...]) -> Tensor:
    elements, size = SIZES[kind]
    count = int(np.prod(shape))
    return Tensor(name, kind, 0, count * size // elements, shape)


def model(layers: int = 3, width: int = 64, kind: str = "Q4_0") -> list[Tensor]:
    found = [tensor("token_embd.weight", kind, (width, 320))]
    for layer in range(layers):
        found += [
            tensor(f"blk.{layer}.attn_norm.weight", "F32", (width,)),
            tensor(f"blk.{layer}.attn_q.weight", kind, (width, width)),
            tensor(f"blk.{layer}.ffn_up_exps.weight", kind, (width, 3 * width, 4)),
        ]
    return found


def table(tensors: list[Tensor], path: str = "/m.gguf", inode: int = 5) -> GgufTable:
    return GgufTable(path, 1, inode, tensors=tuple(tensors))


def head(each: Tensor, layout: Layout, noise: bytes = b"") -> bytes:
    """What a build with this layout has in memory."""
    data = bytearray(noise.ljust(HEAD_BYTES, b"\xff"))
    elements, size = SIZES[each.type]
    shape = padded(each.shape)
    strides = [size, shape[0] // elements * size]
    strides += [strides[1] * shape[1], strides[1] * shape[1] * shape[2]]
    name = each.name.encode() + b"\0"
    data[layout.name - 1 : layout.name + len(name)] = b"\0" + name
    assert None not in layout
    struct.pack_into("<4Q", data, layout.shape, *shape)
    struct.pack_into("<4Q", data, layout.strides, *strides)
    struct.pack_into("<I", data, layout.type, NUMBERS[each.type])
    return bytes(data)


LAYOUTS = st.permutations([0, 1, 2, 3]).flatmap(
    lambda order: st.tuples(*[st.integers(0, 3)] * 4).map(lambda gaps: place(order, gaps))
)


def place(order: list[int], gaps: tuple[int, ...]) -> Layout:
    sizes = (72, 32, 32, 8)
    at, found = 8, [0, 0, 0, 0]
    for member, gap in zip(order, gaps, strict=True):
        at += 8 * gap
        found[member] = at
        at += sizes[member]
    return Layout(*found)


@given(LAYOUTS, st.binary(max_size=HEAD_BYTES))
def test_any_layout_is_found_from_names_shapes_and_types(layout: Layout, noise: bytes) -> None:
    tensors = model()
    heads = [head(each, layout, noise) for each in tensors]
    found = study(heads, {each.name: [each] for each in tensors})
    assert found is not None
    assert found.name == layout.name
    for each, raw in zip(tensors, heads, strict=True):
        told = read(raw, found)
        assert told.name == each.name
        # Noise may look like a second place for a member: then it is not used.
        assert told.shape in (None, padded(each.shape))
        assert told.bytes in (None, each.bytes)
    clean = study([head(each, layout) for each in tensors], {each.name: [each] for each in tensors})
    assert clean == layout


@given(st.lists(st.binary(min_size=HEAD_BYTES, max_size=HEAD_BYTES), max_size=12), LAYOUTS)
def test_whatever_the_target_holds_names_are_printable(heads: list[bytes], layout: Layout) -> None:
    tensors = model()
    found = study(heads, {each.name: [each] for each in tensors})
    for raw in heads:
        for each in (layout, found):
            if each is not None:
                name = read(raw, each).name
                assert name.isascii()
                assert name == "" or name.isprintable()


def test_without_a_table_names_are_found_where_all_heads_have_another() -> None:
    layout = Layout(256, 16, 48, 0)
    heads = [head(each, layout) for each in model()]
    assert study(heads, {}) == Layout(256)
    assert study(heads[:3], {}) is None


def records(tensors: list[Tensor], layout: Layout, base: int = 0x7F0000000000) -> np.ndarray:
    found = np.zeros(len(tensors), ring_dtype("tensor"))
    for number, each in enumerate(tensors):
        found[number]["head"] = np.frombuffer(head(each, layout), "<u8")
        found[number]["addr"] = base + (number << 20)
        found[number]["t_ns"] = number + 1
    return found


LAYOUT = Layout(256, 16, 48, 0)


def test_heads_wait_for_their_table_and_then_are_all_there() -> None:
    tables: dict[tuple[int, int], GgufTable] = {}
    names, namer = NameTable(tables), Namer()
    tensors = model()
    assert namer.take(records(tensors[:4], LAYOUT), names) == []
    assert namer.take(records(tensors[4:], LAYOUT), names) == []
    tables[1, 5] = table(tensors)
    assert names.refresh()
    named = namer.retry(names)
    assert [(each.name, each.bytes, each.path, each.type) for each in named] == [
        (each.name, each.bytes, "/m.gguf", each.type) for each in tensors
    ]
    assert namer.n_waiting == 0


def test_no_more_heads_wait_than_there_is_room_for() -> None:
    namer, names = Namer(), NameTable({})
    stranger = records(model(), LAYOUT)
    for _ in range(MAX_WAITING // len(stranger) + 5):
        namer.take(stranger, names)
    assert namer.n_waiting == MAX_WAITING


def test_the_cache_has_its_own_size_and_graphs_have_no_name() -> None:
    tensors = model()
    names, namer = NameTable({(1, 5): table(tensors)}), Namer()
    names.refresh()
    cache = tensor("cache_k_l1", "F16", (64, 1024))
    graph = tensor("ffn_out-1", "F32", (64, 2))
    named = namer.take(records([*tensors, cache, graph], LAYOUT), names)
    assert [each.name for each in named] == [each.name for each in tensors] + ["cache_k_l1"]
    assert (named[-1].bytes, named[-1].path, named[-1].type) == (64 * 1024 * 2, "", "F16")


def test_two_models_of_one_family_are_told_apart_by_what_only_one_has() -> None:
    large, small = model(layers=4), model(layers=2)
    tables = {(1, 5): table(large, "/large.gguf"), (1, 6): table(small, "/small.gguf", 6)}
    names = NameTable(tables)
    names.refresh()
    assert {each.path for each in Namer().take(records(large, LAYOUT), names)} == {"/large.gguf"}
    # Nothing that the small one has is not in the large one, too: then no file is claimed.
    assert {each.path for each in Namer().take(records(small, LAYOUT), names)} == {""}
    other = model(layers=2, kind="F16")
    tables[1, 7] = table(other, "/f16.gguf", 7)
    names.refresh()
    assert "/f16.gguf" in {each.path for each in Namer().take(records(other, LAYOUT), names)}


# --- struct ggml_backend_buffer


def memory(pieces: dict[int, bytes]):
    def look(addr: int, size: int) -> bytes:
        for start, data in pieces.items():
            if start <= addr < start + len(data):
                return data[addr - start : addr - start + size]
        return b""

    return look


def test_a_buffer_says_where_it_lies_and_of_what_type_it_is() -> None:
    code = 0x400000
    function = b"\xf3\x0f\x1e\xfa\x48\x8d\x05" + struct.pack("<i", 0x1000 - 11) + b"\xc3"
    base, size = 0x7F1234567040, 64 << 20
    members = [*range(0x400000, 0x400050, 8), 0x5000, base, size, (9 << 32) | 2, 0]
    pieces = {
        code: function.ljust(0x1000, b"\0") + b"CPU_REPACK\0",
        0x5000: struct.pack("<Q", code),
        0x9000: struct.pack(f"<{len(members)}Q", *members),
    }
    found = parse(memory(pieces), 0x9000, [base + 96, base])
    assert found is not None
    assert found == (base, size, "compute", "CPU_REPACK")
    assert found.detail == "ggml compute CPU_REPACK"
    assert parse(memory(pieces), 0x9000, [base + size]) is None


@given(st.binary(max_size=256), st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5))
def test_a_buffer_found_anywhere_holds_all_addresses(data: bytes, addrs: list[int]) -> None:
    found = parse(memory({0x9000: data}), 0x9000, addrs)
    if found is not None:
        assert all(found.addr <= addr < found.addr + found.bytes for addr in addrs)
