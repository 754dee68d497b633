"""GGUF tables: real files to the byte, damaged and hostile ones with a reason and without harm."""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest

from numatrace.record.memory.maps import read_maps
from numatrace.record.memory.pieces import cut
from numatrace.record.tensors import gguf_table
from numatrace.record.tensors.gguf_table import GgufFinder, GgufTable, Job, named_files, shards
from numatrace.record.tensors.gguf_worker import MAX_TENSORS, describe, printable, read_table

if TYPE_CHECKING:
    from collections.abc import Sequence

PID = os.getpid()
TYPES = ("F32", "F16", "Q4_0", "Q8_0", "I32")


def write_model(path: Path, vocabulary: int = 50, blocks: int = 3) -> dict[str, np.ndarray]:
    """A GGUF file with tensors of several types; what each has in the file."""
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_token_list([f"token {at}" for at in range(vocabulary)])
    writer.add_token_scores([0.5] * vocabulary)
    writer.add_bool("tiny.flag", True)
    arrays: dict[str, np.ndarray] = {}
    for block in range(blocks):
        for name in TYPES:
            data = random.standard_normal((3 + block, 96), np.float32)
            kind = gguf.GGMLQuantizationType[name]
            if name == "I32":
                stored = data.astype(np.int32)
                writer.add_tensor(f"blk.{block}.{name}.weight", stored)
            else:
                stored = gguf.quants.quantize(data, kind)
                writer.add_tensor(f"blk.{block}.{name}.weight", stored, raw_dtype=kind)
            arrays[f"blk.{block}.{name}.weight"] = stored
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return arrays


def look(argv: Sequence[str] = (), timeout_s: float = 60.0) -> list[GgufTable]:
    """What is found of this very process."""
    finder = GgufFinder()
    finder.look(PID, read_maps(PID) or (), argv)
    return finder.finish(timeout_s)


def only(tables: list[GgufTable], name: str) -> GgufTable:
    (table,) = (each for each in tables if Path(each.path).name.startswith(name))
    return table


def only_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what this process happens to have open or mapped."""
    monkeypatch.setattr(gguf_table, "mapped_files", lambda pid, mappings: ())
    monkeypatch.setattr(gguf_table, "open_files", lambda pid: ())


def in_process(path: Path) -> dict[str, Any]:
    file = os.open(path, os.O_RDONLY)
    try:
        return read_table(file)
    finally:
        os.close(file)


# --- real files


def test_a_mapped_model_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    arrays = write_model(path, vocabulary=5000)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert len(mapped) > gguf_table.MIN_MAPPED_BYTES
        finder = GgufFinder()
        mappings = read_maps(PID) or ()
        finder.look(PID, mappings, ["llama-server", "--model", str(path)])
        (table,) = finder.finish(60)
        pieces = cut(mappings, finder.tables)
        status = os.fstat(file.fileno())
    assert (table.path, table.problem) == (str(path), None)
    assert (table.dev, table.inode) == (status.st_dev, status.st_ino)
    assert (table.model, table.architecture) == ("tiny", "llama")
    assert table.file_bytes == path.stat().st_size
    content = path.read_bytes()
    assert {tensor.name for tensor in table.tensors} == set(arrays)
    for tensor in table.tensors:
        stored = arrays[tensor.name]
        assert content[tensor.offset : tensor.offset + tensor.bytes] == stored.tobytes()
        assert tensor.type in tensor.name
        assert tensor.shape == (96, len(stored))
    reader = gguf.GGUFReader(path)
    assert sum(tensor.bytes for tensor in table.tensors) == sum(
        int(tensor.n_bytes) for tensor in reader.tensors
    )
    assert table.data_offset == reader.data_offset
    for tensor in table.tensors:
        mine = [piece for piece in pieces if piece.name == tensor.name]
        assert [(piece.offset, piece.bytes) for piece in mine] == [(tensor.offset, tensor.bytes)]
    assert sum(piece.bytes for piece in pieces if piece.path == str(path)) >= len(content)


def test_the_file_that_is_mapped_counts_not_what_has_its_path_now(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    arrays = write_model(path, vocabulary=5000)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        status = os.fstat(file.fileno())
        path.unlink()
        write_model(path, vocabulary=5000, blocks=1)
        mapped = next(each for each in read_maps(PID) or () if each.inode == status.st_ino)
        (table,) = look()
    if table.problem == "cannot be opened":
        pytest.skip("/proc/PID/map_files and /proc/PID/fd are closed to us")
    assert {tensor.name for tensor in table.tensors} == set(arrays)
    assert (table.inode, table.path) == (status.st_ino, mapped.path)
    assert table.path.endswith("model.gguf (deleted)")


def test_a_path_that_leads_elsewhere_is_not_taken_for_the_mapped_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where map_files is closed to us, the path must lead to the same inode."""
    candidates = gguf_table.mapped_files
    monkeypatch.setattr(gguf_table, "open_files", lambda pid: iter(()))
    monkeypatch.setattr(
        gguf_table,
        "mapped_files",
        lambda pid, mappings: [
            gguf_table.Candidate(each.path, each.paths[-1:], each.dev, each.inode)
            for each in candidates(pid, mappings)
        ],
    )
    path = tmp_path / "model.gguf"
    write_model(path, vocabulary=5000)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        assert only(look(), "model").problem is None
        write_model(tmp_path / "other.gguf")
        (tmp_path / "other.gguf").rename(path)
        assert only(look(), "model").problem == "cannot be opened"


def test_a_model_that_is_open_or_named_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "opened.bin")
    write_model(tmp_path / "named.gguf")
    for part in (1, 2):
        write_model(tmp_path / f"split-0000{part}-of-00002.gguf", blocks=part)
    (tmp_path / "text.txt").write_text("GG, not a model")
    monkeypatch.chdir(tmp_path)
    argv = ["x", "-m", "named.gguf", f"--model={tmp_path}/split-00001-of-00002.gguf", "--mmproj"]
    with (tmp_path / "opened.bin").open("rb"), (tmp_path / "text.txt").open("rb"):
        tables = look(argv)
    names = [Path(table.path).name for table in tables]
    assert names == [
        "opened.bin", "named.gguf", "split-00001-of-00002.gguf", "split-00002-of-00002.gguf",
    ]  # fmt: skip
    assert [len(table.tensors) // len(TYPES) for table in tables] == [3, 3, 1, 2]
    for table in tables:
        status = (tmp_path / Path(table.path).name).stat()
        assert (table.dev, table.inode) == (status.st_dev, status.st_ino)
        assert Path(table.path).parent == tmp_path


def test_each_file_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, vocabulary=5000)
    finder = GgufFinder()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        for _ in range(2):
            finder.look(PID, read_maps(PID) or (), ["x", "-m", str(path)])
        assert finder.busy
        tables = finder.poll()
        while finder.busy:
            tables += finder.poll()
            time.sleep(0.01)
        finder.look(PID, read_maps(PID) or (), ["x", "-m", str(path)])
        assert not finder.busy
    assert len(tables) == 1
    assert finder.tables[tables[0].dev, tables[0].inode] is tables[0]


def test_a_large_vocabulary_is_skipped_quickly(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    arrays = write_model(path, vocabulary=150_000)
    started = time.process_time()
    with path.open("rb") as file:
        found = describe(file)
    assert time.process_time() - started < 1.0  # 0.05 s; GGUFReader itself takes 5 s and 400 MB
    assert len(found["tensors"]) == len(arrays)


def test_a_big_endian_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama", False, gguf.GGUFEndian.BIG)
    writer.add_token_list(["one", "three"])
    writer.add_tensor("a", np.zeros((4, 8), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = in_process(path)
    assert found["problem"] is None
    assert [row[1:2] + row[3:] for row in found["tensors"]] == [["F16", 64, [8, 4]]]


# --- damaged and hostile files


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def tensor(
    name: str | bytes, dims: Sequence[int] = (32,), kind: int = 0, offset: int = 0,
    n_dims: int | None = None,
) -> bytes:  # fmt: skip
    count = len(dims) if n_dims is None else n_dims
    shape = b"".join(struct.pack("<Q", dim & (2**64 - 1)) for dim in dims)
    return text(name) + struct.pack("<I", count) + shape + struct.pack("<IQ", kind, offset)


def model(
    *tensors: bytes, fields: Sequence[bytes] = (), counts: tuple[int, int] | None = None,
    version: int = 3, data: int = 128,
) -> bytes:  # fmt: skip
    n_tensors, n_fields = counts or (len(tensors), len(fields))
    head = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_fields)
    body = head + b"".join(fields) + b"".join(tensors)
    return body + bytes(-len(body) % 32 + data)


HUGE = 2**63 + 5
GOOD = tensor("good", offset=0)
HOSTILE: dict[str, tuple[bytes, str, int]] = {
    # name: (file, what the reason says, tensors that are kept)
    "only magic": (b"GGUF", "cut off", 0),
    "version 1": (model(version=1), "version 1", 0),
    "version 99": (model(version=99), "version 99", 0),
    "absurd tensor count": (model(GOOD, counts=(2**60, 0)), "tensors", 0),
    "one tensor too many": (model(GOOD, counts=(MAX_TENSORS + 1, 0)), "tensors", 0),
    "more tensors than there are": (model(GOOD, counts=(9000, 0)), "", 0),
    "absurd field count": (model(GOOD, counts=(1, 2**60)), "", 0),
    "long key": (model(fields=[struct.pack("<Q", HUGE)]), "cut off", 0),
    "unknown field type": (model(fields=[text("k") + struct.pack("<I", 77)]), "77", 0),
    "absurd array": (
        model(fields=[text("k") + struct.pack("<IIQ", 9, 4, HUGE)]), "cut off", 0),
    "absurd array of texts": (
        model(fields=[text("k") + struct.pack("<IIQ", 9, 8, 2**62)]), "array of", 0),
    "array of texts past the end": (
        model(fields=[text("k") + struct.pack("<IIQQ", 9, 8, 3, HUGE)]), "cut off", 0),
    "array of arrays": (
        model(fields=[text("k") + struct.pack("<IIQ", 9, 9, 4)]), "array of", 0),
    "key twice": (model(fields=[text("k") + struct.pack("<IB", 0, 1)] * 2), "Duplicate", 0),
    "key that is no UTF-8": (
        model(fields=[text(b"\xff\x1b[31m") + struct.pack("<IB", 0, 1)]), "utf-8", 0),
    "alignment 0": (
        model(fields=[text("general.alignment") + struct.pack("<II", 4, 0)]), "alignment", 0),
    "alignment of type text": (
        model(fields=[text("general.alignment") + struct.pack("<I", 8) + text("x")]),
        "alignment", 0),
    "alignment 2^31": (
        model(GOOD, fields=[text("general.alignment") + struct.pack("<II", 4, 2**31)]), "past", 0),
    "name of another type": (
        model(GOOD, fields=[text("general.name") + struct.pack("<II", 4, 7)]), "", 1),
    "long tensor name": (model(GOOD, tensor("x" * 257)), "name", 1),
    "endless tensor name": (model(struct.pack("<Q", HUGE)), "cut off", 0),
    "same name twice": (model(GOOD, tensor("good", offset=128), data=512), "name", 1),
    "name with control characters": (model(tensor("a\x1b[2J\nb\u202e")), "", 1),
    "name that is no UTF-8": (model(tensor(b"\xff\xfe")), "utf-8", 0),
    "2^32 dimensions": (model(tensor("x", n_dims=2**32 - 1)), "cut off", 0),
    "nine dimensions": (model(tensor("x", dims=[1] * 9)), "9 dimensions", 0),
    "negative dimension": (model(GOOD, tensor("x", dims=(-1,))), "past the end", 1),
    "dimensions whose product wraps": (
        model(GOOD, tensor("x", dims=(2**32, 2**32))), "past the end", 1),
    "offset past the end": (model(GOOD, tensor("x", offset=4096)), "past the end", 1),
    "absurd offset": (model(GOOD, tensor("x", offset=2**64 - 32)), "past the end", 1),
    "overlapping tensors": (
        model(GOOD, tensor("x", offset=96), tensor("y", offset=128), data=512), "over another", 2),
    "the same bytes twice": (model(GOOD, tensor("x")), "over another", 1),
    "unknown type": (model(GOOD, tensor("x", kind=12345)), "12345", 1),
    "half a block": (model(GOOD, tensor("x", dims=(33,), kind=8)), "blocks", 1),
    "data cut off": (model(GOOD, tensor("x", offset=128), data=130), "past the end", 1),
    "no elements": (model(GOOD, tensor("x", dims=(32, 0), offset=64)), "", 2),
    "no tensors": (model(), "", 0),
}  # fmt: skip


def check_sound(found: dict[str, Any], size: int) -> None:
    """Whatever the file: what is kept lies within it, in order, none over another."""
    end = 0
    for name, kind, offset, length, shape in found.get("tensors", ()):
        assert name.isprintable() or not name
        assert isinstance(kind, str)
        assert length == 0 or offset >= end
        end = max(end, offset + length)
        assert end <= size
        assert all(dim >= 0 for dim in shape)
    problem = found["problem"]
    assert problem is None or (problem.isprintable() and 0 < len(problem) < 1000)


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_has_a_reason(case: str, tmp_path: Path) -> None:
    content, reason, kept = HOSTILE[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    found = in_process(path)
    check_sound(found, len(content))
    assert len(found.get("tensors", ())) == kept
    if reason:
        assert reason in found["problem"]
    elif kept:
        assert found["problem"] is None


def small() -> bytes:
    fields = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("v") + struct.pack("<IIQ", 9, 8, 2) + text("ab") + text("c"),
        text("n") + struct.pack("<IIQ3i", 9, 5, 3, 1, 2, 3),
        text("f") + struct.pack("<If", 6, 1.0),
    ]
    return model(GOOD, tensor("q", dims=(32, 2), kind=8, offset=128), fields=fields, data=256)


def test_cut_at_every_byte(tmp_path: Path) -> None:
    content = small()
    path = tmp_path / "model.gguf"
    kept = set()
    for length in range(4, len(content)):
        path.write_bytes(content[:length])
        found = in_process(path)
        check_sound(found, length)
        whole = len(found.get("tensors", ())) == 2
        assert whole == (found["problem"] is None)
        kept.add(len(found.get("tensors", ())))
    assert kept == {0, 1, 2}


@pytest.mark.parametrize("value", [0x00, 0x7F, 0xFF])
def test_every_byte_of_the_header_changed(value: int, tmp_path: Path) -> None:
    content = small()
    path = tmp_path / "model.gguf"
    for at in range(4, len(content) - 256):
        path.write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
        check_sound(in_process(path), len(content))


def sparse(path: Path, content: bytes, size: int) -> Path:
    path.write_bytes(content)
    os.truncate(path, size)
    return path


def test_the_reader_as_a_process_survives_them_all(tmp_path: Path) -> None:
    """As the recorder runs it: limits hold, nothing hangs, and one bad file costs no other."""
    for number, (content, _, _) in enumerate(HOSTILE.values()):
        (tmp_path / f"{number:02}.gguf").write_bytes(content)
    zeros = struct.pack("<IQQ", 3, 9000, 0)
    sparse(tmp_path / "zero-tensors.gguf", b"GGUF" + zeros, 1 << 40)
    key = struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 8 << 30)
    sparse(tmp_path / "endless-key.gguf", b"GGUF" + key, 1 << 40)
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "loop.gguf").symlink_to("loop.gguf")
    (tmp_path / "good.gguf").write_bytes(small())
    files = sorted(str(each) for each in tmp_path.iterdir())
    argv = [word for each in [*files, "/dev/zero", "\udcff\0.gguf"] for word in ("-m", each)]
    started = time.monotonic()
    tables = {Path(table.path).name: table for table in look(argv)}
    assert time.monotonic() - started < 60  # some 2 s on a quiet machine
    for number, (case, (_, reason, kept)) in enumerate(HOSTILE.items()):
        table = tables[f"{number:02}.gguf"]
        assert len(table.tensors) == kept, case
        assert reason in (table.problem or ""), case
    assert tables["good.gguf"].problem is None
    assert len(tables["good.gguf"].tensors) == 2
    assert "name" in (tables["zero-tensors.gguf"].problem or "")
    assert "MiB" in (tables["endless-key.gguf"].problem or "")
    for name in ("pipe.gguf", "folder.gguf", "loop.gguf"):
        assert tables[name].problem == "cannot be opened"
    assert "zero" not in tables


def test_a_reader_that_dies_costs_one_file_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.gguf").write_bytes(small())
    interpreter = tmp_path / "python"
    interpreter.write_text(
        f"#!/bin/sh\n[ -e '{tmp_path}/died' ] && exec '{sys.executable}' \"$@\"\n"
        f": > '{tmp_path}/died'\n"
        'echo \'{"begin": 0}\'; echo \'{"file": 0, "table": null}\'; echo \'{"begin": 1}\'\n'
        'printf \'{"file": 1, "ta\'; kill -SEGV $$\n'
    )
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    only_named(monkeypatch)
    argv = [word for name in "abc" for word in ("-m", f"{tmp_path}/{name}.gguf")]
    tables = look(argv)
    assert [Path(table.path).name for table in tables] == ["b.gguf", "c.gguf"]
    assert "signal 11" in (tables[0].problem or "")
    assert tables[1].problem is None


def test_a_reader_that_does_not_answer_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\nexec sleep 1000\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    monkeypatch.setattr(gguf_table, "WALL_SECONDS", 0.2)
    only_named(monkeypatch)
    tables = look(["-m", str(tmp_path / "x.gguf")], timeout_s=20)
    assert [table.problem is not None and "signal 9" in table.problem for table in tables] == [True]
    monkeypatch.setattr(gguf_table, "WALL_SECONDS", 1000)
    finder = GgufFinder()
    finder.look(PID, (), ["-m", str(tmp_path / "x.gguf")])
    finder.poll()
    job = finder._job
    assert isinstance(job, Job)
    finder.close()
    assert job.process.returncode == -9
    assert not finder.busy


def test_words_of_a_command_line() -> None:
    argv = ["s", "--model", "/a.gguf", "-md=/b.gguf", "--port", "-m", "", "--mmproj"]
    assert [each.path for each in named_files(PID, argv)] == ["/a.gguf", "/b.gguf"]
    assert list(shards("/m-00002-of-00003.gguf")) == [
        "/m-00001-of-00003.gguf", "/m-00002-of-00003.gguf", "/m-00003-of-00003.gguf",
    ]  # fmt: skip
    assert len(list(shards("/m-00001-of-99999.gguf"))) == gguf_table.MAX_SHARDS
    assert next(iter(named_files(2**22 + 1, ["-m", "relative"]))).path == "relative"


def test_printable_text() -> None:
    assert printable("a\x1b[31m\n\u202eb" + "x" * 999, 9) == "a\ufffd[31m\ufffd\ufffdb"
