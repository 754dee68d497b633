"""Where a real server puts its tensors: all of them, exactly, and without slowing it afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pyarrow.compute as pc
import pytest
from pyarrow import Table, ipc

from numatrace.analyze.memory.anonymous import NamedMemory, Span
from numatrace.analyze.rows import split
from numatrace.trace.reader import Trace

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from scenarios.workload import (  # noqa: E402 (found only once its folder is on the path)
    server_command,
    wait_for_url,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Record

pytestmark = pytest.mark.kernel

LOADS = {
    "F16, not mapped": ("F16", "--load-mode", "none"),
    "Q4_0, mapped and repacked": ("Q4_0",),
    "Q4_0, repacked, not mapped": ("Q4_0", "--load-mode", "none"),
    "experts": ("experts",),
}
OWN_MAPPINGS = {"MALLOC_MMAP_THRESHOLD_": "131072"}
"""So that the small buffers of a test's model come from mmap, as those of a real one do."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    options = {
        "F16": [],
        "Q4_0": ["--type", "Q4_0"],
        "experts": ["--type", "Q4_0", "--experts", "4"],
    }
    for name, more in options.items():
        command = [sys.executable, str(ROOT / "scripts/make-model"), str(folder / f"{name}.gguf")]
        subprocess.run([*command, "--size-mb", "24", *more], check=True, stdout=subprocess.DEVNULL)
    return {name: folder / f"{name}.gguf" for name in options}


class Recorded:
    """A server recorded from before it loaded, and the same running server recorded anew."""

    def __init__(self, model: Path, first: Path, second: Path) -> None:
        self.table = {tensor.name: (tensor, model) for tensor in gguf.GGUFReader(model).tensors}
        self.model = model
        self.first = rows_of(first)
        self.traced = spans_of(first, self.server)
        self.second = rows_of(second)
        self.estimated = spans_of(second, self.server)

    @property
    def server(self) -> int:
        [tgid] = {row["tgid"] for row in self.first if row["kind"] == "tensor_at"}
        return tgid

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [row for row in self.first if row["kind"] == kind]

    def mapping(self, addr: int) -> dict[str, Any]:
        """The last mapping that was written for an address."""
        holding = [
            row
            for row in self.of("map")
            if row["tgid"] == self.server and row["addr"] <= addr < row["addr"] + row["bytes"]
        ]
        return holding[-1]


def rows_of(trace: Path) -> list[dict[str, Any]]:
    table: Table = ipc.open_file(trace).read_all()
    kinds = ("map", "unmap", "tensor", "tensor_at", "buffer", "loss", "note")
    wanted = pc.is_in(table["kind"].cast("string"), value_set=pc.cast(list(kinds), "string"))
    return table.filter(wanted).to_pylist()


def spans_of(trace: Path, tgid: int) -> list[Span]:
    memory = NamedMemory()
    with Trace.open(trace) as read:
        for batch in read.batches():
            memory.take(split(batch))
    return memory.spans(tgid)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module", params=LOADS)
def recorded(
    request: pytest.FixtureRequest,
    models: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Recorded]:
    name, *options = LOADS[request.param]
    folder = tmp_path_factory.mktemp("load")
    log = folder / "server.log"
    command = server_command(models[name], "--threads", "2", *options)
    numatrace = [sys.executable, "-m", "numatrace", "record", "-d", "60"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*numatrace, "-o", str(folder / "first.arrow"), "--", *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, **OWN_MAPPINGS, "NO_COLOR": "1"},
        )
    try:
        wait_for_url(process, log)
        pid = int(subprocess.check_output(["pgrep", "-f", f"^.*{models[name]}", "--newest"]))
        again = [*numatrace[:-1], "4", "-o", str(folder / "second.arrow"), "-p", str(pid)]
        subprocess.run(again, check=True, capture_output=True, cwd=ROOT)
    finally:
        process.terminate()
        process.wait(60)
    return Recorded(models[name], folder / "first.arrow", folder / "second.arrow")


def test_every_weight_is_seen_with_the_size_of_the_table(recorded: Recorded) -> None:
    seen = {row["name"]: row for row in recorded.of("tensor_at")}
    assert {name for name in seen if not name.startswith("cache_")} == set(recorded.table)
    for name, (tensor, model) in recorded.table.items():
        row = seen[name]
        assert (row["bytes"], row["path"]) == (tensor.n_bytes, str(model))
        assert row["detail"] == tensor.tensor_type.name
    assert not [row for row in recorded.of("loss") if row["name"] in ("map", "tensor")]
    assert not [row for row in recorded.of("note") if "uprobe" in row["name"]]


def test_every_address_is_in_the_right_mapping(recorded: Recorded) -> None:
    """Of the file, where it is to the byte the tensor's place in the file; or private memory."""
    n_mapped = 0
    for row in recorded.of("tensor_at"):
        mapping = recorded.mapping(row["addr"])
        if mapping["inode"]:
            n_mapped += 1
            tensor, model = recorded.table[row["name"]]
            assert mapping["path"] == str(model)
            assert mapping["offset"] + row["addr"] - mapping["addr"] == tensor.data_offset
        else:
            assert mapping["detail"] == "rw-p"
            assert row["addr"] + row["bytes"] <= mapping["addr"] + mapping["bytes"]
    assert bool(n_mapped) == any(row["path"] == str(recorded.model) for row in recorded.of("map"))


def test_the_cache_and_the_compute_buffer_are_seen(recorded: Recorded) -> None:
    cache = [row for row in recorded.of("tensor_at") if row["name"].startswith("cache_")]
    layers = {name.split(".")[1] for name in recorded.table if name.startswith("blk.")}
    assert {row["name"] for row in cache} == {
        f"cache_{kind}_l{layer}" for kind in "kv" for layer in layers
    }
    width = recorded.table["blk.0.attn_k.weight"][0].shape[1]
    assert {row["bytes"] % (256 * width * 2) for row in cache} == {0}
    assert {row["detail"] for row in cache} == {"F16"}
    uses = {row["detail"] for row in recorded.of("buffer")}
    assert any(use.startswith("ggml compute") for use in uses)


def test_spans_tell_weights_repacked_weights_and_cache_apart(recorded: Recorded) -> None:
    assert {span.exactness for span in recorded.traced} == {"traced"}
    classes = {span.tensor: span.cls for span in recorded.traced if span.tensor}
    repacks = any("CPU_REPACK" in row["detail"] for row in recorded.of("buffer"))
    assert classes["cache_v_l0"] == "KV cache"
    assert classes["blk.0.attn_q.weight"] == ("repacked weights" if repacks else "weights")
    assert ("Q4_0" in str(recorded.model) or "experts" in str(recorded.model)) == repacks
    experts = {span.experts for span in recorded.traced if "_exps" in span.tensor}
    assert experts == ({4} if "experts" in str(recorded.model) else set())


def test_the_allocators_blocks_hold_what_was_traced(recorded: Recorded) -> None:
    """The walk and the probe know nothing of each other: begin and size of each buffer agree."""
    blocks = {row["addr"]: row["bytes"] for row in recorded.of("buffer") if row["detail"][0] == "m"}
    lasting = [
        row
        for row in recorded.of("buffer")
        if row["detail"].startswith(("ggml weights", "ggml any")) and row["bytes"] >= 1 << 20
    ]
    private = [row for row in lasting if not recorded.mapping(row["addr"])["inode"]]
    assert len(private) >= 2
    for row in private:
        assert 0 <= blocks[row["addr"]] - row["bytes"] <= 4096 + 160


def test_a_running_server_is_estimated_as_it_was_traced(recorded: Recorded) -> None:
    """Recorded anew, without the probe's help: what is claimed is what the probe saw."""
    assert not [row for row in recorded.second if row["kind"] == "tensor_at"]
    assert {span.exactness for span in recorded.estimated} == {"estimated"}
    truth = {span.start: span for span in recorded.traced}
    starts = np.array(sorted(truth), np.uint64)
    named = 0
    for span in recorded.estimated:
        inside = truth[int(starts[np.searchsorted(starts, span.start, side="right") - 1])]
        assert inside.start <= span.start < inside.end
        assert span.cls == inside.cls
        assert span.layer == inside.layer
        assert span.tensor in ("", inside.tensor)
        named += span.end - span.start
    large = [
        span
        for span in recorded.traced
        if span.cls != "compute" and span.tensor != "token_embd.weight"
    ]
    assert named > 0.9 * sum(span.end - span.start for span in large)


# --- what the probe costs


BUSY = r"""
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

__attribute__((noinline)) long step(long x) { __asm__ volatile("" ::: "memory"); return x + 1; }

long ggml_backend_tensor_alloc(void *buffer, void *tensor, void *addr)
{
	return step((long)buffer) + step((long)tensor) + step((long)addr);
}

/* Graphs for ever: nanoseconds of a call, as often as a line is asked for. */
int main(void)
{
	static char tensor[4096];
	struct timespec from, to;
	char line[8];

	strcpy(tensor + 256, "node_1");
	while (fgets(line, sizeof(line), stdin)) {
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
		for (long i = 0; i < 2000; i++)
			ggml_backend_tensor_alloc(line, tensor, tensor + 512);
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
		printf("%ld\n", (to.tv_sec - from.tv_sec) * 500000 + (to.tv_nsec - from.tv_nsec) / 2000);
		fflush(stdout);
	}
	return 0;
}
"""


def test_the_probe_leaves_a_server_that_only_computes(tmp_path: Path, record: Record) -> None:
    """It is there for a start, and gone after some thousands of tensors of graphs."""
    (tmp_path / "busy.c").write_text(BUSY)
    command = ["gcc", "-O1", "-fcf-protection=none", "-o", tmp_path / "busy", tmp_path / "busy.c"]
    subprocess.run(command, check=True)
    busy = subprocess.Popen(
        [tmp_path / "busy"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def call_ns() -> int:
        assert busy.stdin is not None
        assert busy.stdout is not None
        busy.stdin.write("\n")
        busy.stdin.flush()
        return int(busy.stdout.readline())

    try:
        alone_ns = min(call_ns() for _ in range(5))
        process = record("-p", str(busy.pid), "-d", "40")
        wait_for(tmp_path / "trace.arrow", process)
        seen_ns: list[int] = []
        deadline = time.monotonic() + 35
        while time.monotonic() < deadline and not (seen_ns and seen_ns[-1] > 10 * alone_ns + 100):
            time.sleep(0.02)
            seen_ns.append(call_ns())
        assert seen_ns[-1] > 10 * alone_ns + 100, "the probe was never there"
        while time.monotonic() < deadline and seen_ns[-1] > 10 * alone_ns + 100:
            time.sleep(0.05)
            seen_ns.append(call_ns())
        assert seen_ns[-1] <= 10 * alone_ns + 100, "the probe stayed"
        process.terminate()
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
        assert min(call_ns() for _ in range(5)) <= 10 * alone_ns + 100
    finally:
        busy.kill()
        busy.communicate()
