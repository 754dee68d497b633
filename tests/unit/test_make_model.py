"""The written model is read back by `gguf`'s own reader, and served by llama.cpp."""

import importlib.util
import json
import math
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st

SCRIPTS = Path(__file__).parents[2] / "scripts"
SMALL = ("--layers", "2", "--width", "64", "--ff", "96", "--vocab", "320")
# Bytes of a block and weights in it, from ggml's block_q4_0 (fp16 scale + 16 bytes of nibbles) and
# block_q8_0 (fp16 scale + 32 bytes); written out here so as not to ask the package under test.
BLOCKS = {"F32": (4, 1), "F16": (2, 1), "Q8_0": (34, 32), "Q4_0": (18, 32)}


def script(name):
    loader = SourceFileLoader(name.replace("-", "_"), str(SCRIPTS / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)
    # dataclass looks its module up by name.
    sys.modules[loader.name] = module
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = bytecode
    return module


make_model = script("make-model")


def write(path, *options):
    parsed = make_model.parse([str(path), *options])
    make_model.write_model(path, make_model.shape_of(parsed), parsed.seed)
    return path


def expected_tensors(kind, layers=2, width=64, ff=96, vocab=320):
    """Name -> (dimensions as GGUF has them, rows last; bytes), from the llama architecture."""

    def matrix(columns, rows):
        block_bytes, block = BLOCKS[kind]
        return (columns, rows), columns * rows // block * block_bytes

    found = {"token_embd": matrix(width, vocab), "output": matrix(width, vocab)}
    found["output_norm"] = ((width,), 4 * width)
    for layer in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            found[f"blk.{layer}.{name}"] = matrix(width, width)
        for name in ("attn_norm", "ffn_norm"):
            found[f"blk.{layer}.{name}"] = ((width,), 4 * width)
        found[f"blk.{layer}.ffn_gate"] = found[f"blk.{layer}.ffn_up"] = matrix(width, ff)
        found[f"blk.{layer}.ffn_down"] = matrix(ff, width)
    return {f"{name}.weight": size for name, size in found.items()}


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_file_has_the_tensors_of_the_llama_architecture_to_the_byte(tmp_path, kind):
    path = write(tmp_path / "m.gguf", "--type", kind, *SMALL)
    reader = GGUFReader(path)
    found = {t.name: (tuple(int(dim) for dim in t.shape), int(t.n_bytes)) for t in reader.tensors}
    assert found == expected_tensors(kind)
    padded = sum(-(-int(t.n_bytes) // 32) * 32 for t in reader.tensors)
    assert path.stat().st_size == reader.data_offset + padded


def test_the_table_of_the_file_adds_up_to_what_the_shape_says(tmp_path):
    path = write(tmp_path / "m.gguf", *SMALL, "--experts", "4")
    shape = make_model.shape_of(make_model.parse(["m", *SMALL, "--experts", "4"]))
    reader = GGUFReader(path)
    assert sum(int(t.n_bytes) for t in reader.tensors) == make_model.tensor_bytes(shape)
    up = next(t for t in reader.tensors if t.name == "blk.1.ffn_up_exps.weight")
    assert tuple(up.shape) == (64, 96, 4)
    assert reader.get_field("llama.expert_count").contents() == 4


def test_the_same_arguments_write_the_same_bytes_and_another_seed_others(tmp_path):
    first = write(tmp_path / "a", *SMALL).read_bytes()
    assert write(tmp_path / "b", *SMALL).read_bytes() == first
    other = write(tmp_path / "c", *SMALL, "--seed", "1").read_bytes()
    assert len(other) == len(first) and other != first


def test_weights_are_normal_with_variance_one_over_the_row_length(tmp_path):
    reader = GGUFReader(write(tmp_path / "m.gguf", "--type", "F32", *SMALL))
    for tensor in reader.tensors:
        values = np.asarray(tensor.data)
        if values.ndim == 1:
            assert (values == 1).all()
            continue
        scaled = values * math.sqrt(values.shape[1])
        # Six standard errors of the mean and of the standard deviation of a normal sample.
        assert abs(scaled.mean()) < 6 / math.sqrt(scaled.size)
        assert abs(scaled.std() - 1) < 6 / math.sqrt(2 * scaled.size)


@pytest.mark.parametrize(("kind", "steps"), [("Q4_0", 8), ("Q8_0", 127)])
def test_quantized_weights_are_the_plain_ones_within_a_step(tmp_path, kind, steps):
    plain = GGUFReader(write(tmp_path / "f32", "--type", "F32", *SMALL))
    small = GGUFReader(write(tmp_path / "q", "--type", kind, *SMALL))
    for exact, rough in zip(plain.tensors, small.tensors, strict=True):
        if rough.tensor_type != GGMLQuantizationType[kind]:
            continue
        values = np.asarray(exact.data).reshape(-1, 32)
        error = np.abs(dequantize(rough.data, rough.tensor_type).reshape(-1, 32) - values)
        # The scale is stored as a half float, and Q4_0 has no step for the far end of its range.
        step = np.abs(values).max(axis=1, keepdims=True) / steps
        assert (error <= 1.02 * step).all()


@settings(max_examples=50)
@given(
    megabytes=st.integers(7, 2000),
    kind=st.sampled_from(sorted(BLOCKS)),
    experts=st.sampled_from([0, 2, 8]),
)
def test_the_size_asked_for_is_met_within_five_percent(megabytes, kind, experts):
    options = ["m", "--type", kind, "--size-mb", str(megabytes)]
    if experts:
        options += ["--experts", str(experts)]
    shape = make_model.shape_of(make_model.parse(options))
    assert make_model.tensor_bytes(shape) == pytest.approx(megabytes * 1e6, rel=0.05)


@settings(max_examples=20)
@given(size=st.integers(259, 15_000))
def test_every_token_is_different_and_every_byte_has_one(size):
    tokens = [text for text, _ in make_model.vocabulary(size)]
    assert len(tokens) == len(set(tokens)) == size
    assert {f"<0x{byte:02X}>" for byte in range(256)} < set(tokens)


@pytest.mark.parametrize(
    "options",
    [
        ["--width", "100"],
        ["--ff", "100"],
        ["--width", "64", "--heads", "5"],
        ["--vocab", "258"],
        ["--experts", "1"],
        ["--layers", "2", "--ff", "64", "--size-mb", "9"],
        ["--layers", "0"],
        ["--layers", "many"],
    ],
)
def test_a_shape_that_cannot_be_is_refused(options):
    with pytest.raises(SystemExit) as refusal:
        make_model.shape_of(make_model.parse(["m", *options]))
    assert refusal.value.code not in (0, None)


def test_a_failed_write_leaves_the_old_file_and_no_part_of_the_new(tmp_path, monkeypatch):
    path = write(tmp_path / "m.gguf", *SMALL)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(make_model, "quantize", full)
    with pytest.raises(OSError, match="No space left"):
        write(path, *SMALL, "--seed", "1")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "environment", "name", "value"),
    [
        ([], {}, "threads", None),
        (["-t", "3"], {"LLAMA_ARG_THREADS": "5"}, "threads", 3),
        ([], {"LLAMA_ARG_THREADS": "5"}, "threads", 5),
        (["--threads", "1", "-t", "2"], {}, "threads", 2),
        ([], {"LLAMA_ARG_NUMA": "distribute"}, "numa", "distribute"),
        (["--numa", "isolate"], {"LLAMA_ARG_NUMA": "distribute"}, "numa", "isolate"),
        ([], {"LLAMA_ARG_REPACK": "off"}, "repack", False),
        ([], {"LLAMA_ARG_REPACK": "1"}, "repack", True),
        ([], {"LLAMA_ARG_NO_REPACK": "1", "LLAMA_ARG_REPACK": "on"}, "repack", False),
        (["--repack"], {"LLAMA_ARG_REPACK": "off"}, "repack", True),
        (["-nr"], {}, "repack", False),
        ([], {"LLAMA_ARG_LOAD_MODE": "none"}, "load_mode", "none"),
        (["-lm", "mmap"], {"LLAMA_ARG_LOAD_MODE": "none"}, "load_mode", "mmap"),
        ([], {"LLAMA_ARG_MMAP": "0"}, "load_mode", None),
    ],
)
def test_the_server_takes_the_command_line_over_the_environment(
    arguments, environment, name, value
):
    # What llama.cpp's own common_params_parse made of each of these, in xllamacpp 2026.10.11549.
    pytest.importorskip("xllamacpp")
    given_options = script("llama-server").settings(["-m", "m.gguf", *arguments], environment)
    assert getattr(given_options, name) == value


def run(name, *arguments):
    return [sys.executable, str(SCRIPTS / name), *map(str, arguments)]


def ask(url):
    done = subprocess.run(
        run("ask-model", "--url", url, "--tokens", "8", "--requests", "2", "--json"),
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_llama_cpp_serves_the_model_and_answers_the_same_each_time(tmp_path):
    pytest.importorskip("xllamacpp")
    model = write(tmp_path / "m.gguf", *SMALL)
    server = subprocess.Popen(
        run("llama-server", "-m", model, "--port", 0, "-t", 1, "--no-warmup"),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        url = server.stdout.readline().removeprefix("listening on ").strip()
        first, second = ask(url), ask(url)
        assert (first["requests"], first["tokens"]) == (2, 16)
        assert first["answers_sha256"] == second["answers_sha256"]
        assert first["distinct_answers"] == 1
    finally:
        server.terminate()
        assert server.wait(timeout=10) == 0
        server.stdout.close()
