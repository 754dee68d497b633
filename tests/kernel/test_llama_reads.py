"""What llama.cpp reads, recorded from before its model loads: addresses, tensors and layers.

Judged by the library's own symbols (which code computes), the GGUF file's own table (which byte is
which tensor), and the bytes of each layer, of which every token needs all.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import pyarrow.compute as pc
import pytest
from pyarrow import ipc

from numatrace.model.access import KERNEL

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from scenarios.workload import server_command, wait_for_url  # noqa: E402 (path set just above)

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.kernel

HZ = 997
REQUESTS = 40
"""Of 64 tokens each: some 20 seconds of work for two threads."""
MODEL_MB = "96"
"""Large enough that reading the weights is much of the work of a token."""

SLEEPING = {**os.environ, "OMP_WAIT_POLICY": "passive"}
"""Has threads that are done sleep, not spin: else, where a machine has other work, most of the time
goes to waiting for the one that was put aside."""

COMPUTE = re.compile(
    r"\b(?:ggml_(?:compute_forward|vec|gemm|gemv|graph_compute_thread|cpu_fp)\w*"
    r"|gem[mv]_\w+|quantize_(?:row|mat)_\w+|tinyBLAS|ggml::cpu::\w+)"
)
"""Functions of ggml's CPU backend that compute. `ggml_barrier` only waits, and OpenMP's library,
where threads wait too, is another file. Repacking belongs to the load."""

ENOUGH = 2000
"""Samples of a thread: a share of 1/7 is then 3 points off once in ten thousand times."""


@dataclass
class Ranges:
    """Things that lie side by side: what is at an address."""

    items: list[tuple[int, int, str]]
    """Begin, size, name."""

    def __post_init__(self) -> None:
        self.items.sort()

    def at(self, address: int) -> str | None:
        place = bisect_right(self.items, (address, sys.maxsize, "")) - 1
        if place < 0:
            return None
        begin, size, name = self.items[place]
        return name if address < begin + size else None


@dataclass
class Recording:
    """A trace of a server from before the load, and the model that it served."""

    trace: Path
    model: Path

    @cached_property
    def _table(self) -> Any:
        return ipc.open_file(self.trace).read_all()

    def rows(self, kind: str) -> list[dict[str, Any]]:
        table = self._table
        found = table.filter(pc.equal(table["kind"].cast("string"), kind))
        rows: list[dict[str, Any]] = found.to_pylist()
        return rows

    @cached_property
    def computing(self) -> list[dict[str, Any]]:
        """Samples in user mode in ggml's compute functions."""
        code = self.in_memory(library(), functions())
        user = (row for row in self.rows("access") if not row["access"] & KERNEL)
        return [row for row in user if code.at(row["ip"])]

    def in_memory(self, path: Path, items: Iterable[tuple[int, int, str]]) -> Ranges:
        """Parts of a file (offset, size, name), where the server mapped them."""
        maps = [row for row in self.rows("map") if row["path"] == str(path)]
        assert maps, f"{path} is not mapped"
        return Ranges(
            [
                (row["addr"] + offset - row["offset"], size, name)
                for offset, size, name in items
                for row in maps
                if row["offset"] <= offset < row["offset"] + row["bytes"]
            ]
        )

    @cached_property
    def mapped_tensors(self) -> Ranges:
        return self.in_memory(
            self.model,
            [
                (int(each.data_offset), int(each.n_bytes), each.name)
                for each in gguf.GGUFReader(self.model).tensors
            ],
        )

    @cached_property
    def mapped_model(self) -> Ranges:
        maps = [row for row in self.rows("map") if row["path"] == str(self.model)]
        return Ranges([(row["addr"], row["bytes"], "model") for row in maps])

    @cached_property
    def given_tensors(self) -> Ranges:
        """As the server gave them addresses, the model's only: a KV cache has tensors too."""
        names = {each.name for each in gguf.GGUFReader(self.model).tensors}
        rows = [row for row in self.rows("tensor_at") if row["name"] in names]
        return Ranges([(row["addr"], row["bytes"], row["name"]) for row in rows])

    @cached_property
    def repacked(self) -> Ranges:
        rows = self.rows("buffer")
        found = [row for row in rows if row["bytes"] and "CPU_REPACK" in row["detail"]]
        return Ranges([(row["addr"], row["bytes"], row["detail"]) for row in found])


def library() -> Path:
    spec = find_spec("xllamacpp")
    assert spec is not None
    assert spec.origin is not None
    [found] = Path(spec.origin).parent.glob("*.so")
    return found


def functions() -> list[tuple[int, int, str]]:
    """Offset in the library's file, size and name of each function that computes."""
    path = str(library())
    headers = subprocess.run(
        ["readelf", "-lW", path], capture_output=True, text=True, check=True
    ).stdout
    loads = [
        tuple(int(word, 16) for word in line.split()[1:5])
        for line in headers.splitlines()
        if line.split()[:1] == ["LOAD"]
    ]
    listed = subprocess.run(
        ["nm", "-SC", "--defined-only", path], capture_output=True, text=True, check=True
    ).stdout
    found = []
    for line in listed.splitlines():
        words = line.split(" ", 3)
        if len(words) == 4 and words[2] in "tTwW" and COMPUTE.search(words[3]):
            value, size = int(words[0], 16), int(words[1], 16)
            [bias] = [vaddr - offset for offset, vaddr, _, n in loads if 0 <= value - vaddr < n]
            found.append((value - bias, size, words[3]))
    assert len(found) > 100
    return found


def record_from_the_start(folder: Path, kind: str) -> Recording:
    model, trace, log = (folder / f"{kind}.{end}" for end in ("gguf", "arrow", "log"))
    make = [sys.executable, str(ROOT / "scripts/make-model"), str(model), "--type", kind]
    subprocess.run([*make, "--size-mb", MODEL_MB], check=True, stdout=subprocess.DEVNULL)
    options = ["-o", str(trace), "-F", str(HZ), "--", *server_command(model, "--threads", "2")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "numatrace", "record", *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=SLEEPING,
        )
    try:
        url = wait_for_url(process, log)
        ask = [sys.executable, str(ROOT / "scripts/ask-model"), "--url", url]
        subprocess.run([*ask, "--requests", str(REQUESTS)], check=True, capture_output=True)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert process.returncode == 0, log.read_text(errors="replace")
    return Recording(trace, model)


@pytest.fixture(scope="module", params=["F16", "Q4_0"])
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return record_from_the_start(tmp_path_factory.mktemp("reads"), request.param)


def test_samples_in_compute_functions_have_an_address(recording: Recording) -> None:
    """Those that wait in a loop with `pause` (`spin`) read nothing and are not counted."""
    counted = [row for row in recording.computing if row["detail"] != "spin"]
    missing = Counter(hex(row["ip"]) for row in counted if row["addr"] is None)
    assert len(counted) > ENOUGH
    assert missing.total() <= 0.05 * len(counted), missing.most_common(9)


def test_addresses_in_a_mapped_model_have_a_tensor(recording: Recording) -> None:
    inside = [
        row["addr"]
        for row in recording.rows("access")
        if row["addr"] is not None and recording.mapped_model.at(row["addr"])
    ]
    lacking = [address for address in inside if recording.mapped_tensors.at(address) is None]
    assert len(inside) > (ENOUGH if recording.model.stem == "F16" else 0)
    assert len(lacking) <= 0.01 * len(inside)


def weights_read(recording: Recording, row: dict[str, Any]) -> str | None:
    """The model's tensor at the sample's address, mapped or repacked."""
    if row["addr"] is None:
        return None
    return recording.mapped_tensors.at(row["addr"]) or recording.given_tensors.at(row["addr"])


def test_samples_in_repacked_weights_have_a_tensor(recording: Recording) -> None:
    """Where nothing is repacked there is no such buffer, and no such sample."""
    samples = [
        row
        for row in recording.rows("access")
        if row["addr"] is not None and recording.repacked.at(row["addr"])
    ]
    named = [row for row in samples if recording.given_tensors.at(row["addr"])]
    if recording.model.stem == "F16":
        assert not samples
        return
    assert len(samples) > ENOUGH
    assert len(named) >= 0.95 * len(samples)


def test_threads_split_over_layers_as_the_bytes_are(recording: Recording) -> None:
    """Within 3 points."""
    layer_bytes: Counter[str] = Counter()
    for each in gguf.GGUFReader(recording.model).tensors:
        layer_bytes[layer_of(each.name)] += int(each.n_bytes)
    del layer_bytes[""]
    threads: dict[int, Counter[str]] = {}
    for row in recording.computing:
        layer = layer_of(weights_read(recording, row) or "")
        if layer:
            threads.setdefault(row["tid"], Counter())[layer] += 1
    busy = {tid: split for tid, split in threads.items() if split.total() > ENOUGH}
    assert len(busy) == 2
    for tid, split in busy.items():
        for layer, size in layer_bytes.items():
            share = size / layer_bytes.total()
            found = split[layer] / split.total()
            assert found == pytest.approx(share, abs=0.03), (tid, split)


def layer_of(tensor: str) -> str:
    """`blk.N`, or nothing for a tensor outside the layers."""
    found = re.match(r"blk\.\d+(?=\.)", tensor)
    return found[0] if found else ""
