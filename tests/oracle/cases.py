"""What is held against the plugin's counts: the workload of known truth, and llama.cpp."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import gguf

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from known.cases import PLACEMENTS  # noqa: E402
from known.known import Workload  # noqa: E402
from scenarios.workload import (  # noqa: E402 (found only once its folder is on the path)
    asking,
    drop_page_cache,
    server_command,
    serving,
    set_balancing,
)

from oracle.oracle import Region, Truth  # noqa: E402
from oracle.samples import Compared, Samples, compare  # noqa: E402
from oracle.window import measure  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from known.cases import Case
    from known.known import Buffer
    from known.known import Truth as Done

    from oracle.guest import Oracle

NODES = (0, 1)
BUSY = 0.05
"""A compute thread makes at least this share of the accesses to weights."""
SLICE_US = 1500
"""Time that a thread of the known workload stays with a buffer: less than between two samples, for
samples of one slice all say the same."""


@dataclass(slots=True)
class Result:
    """A case: shares by thread and by buffer or layer, once of all samples, once of operands'."""

    name: str
    samples: int
    """In user mode."""
    addressed: int
    """Of these, with an address."""
    accesses: int
    """That the plugin counted: instructions that read or wrote memory."""
    shares: dict[str, list[Compared]] = field(default_factory=dict)
    """By how the address was found: `all` or `operand`."""


def by_how(samples: Samples) -> dict[str, Samples]:
    """All samples with an address, and those whose own operand it is."""
    return {"all": samples.where(samples.addr > 0), "operand": samples.found("operand")}


def begun(name: str, samples: Samples, truth: Truth) -> Result:
    """A result without shares."""
    return Result(name, len(samples), int((samples.addr > 0).sum()), truth.total())


# --- the workload of known truth


def placement(name: str) -> Case:
    """One of the workload's placements on two nodes."""
    return next(case for case in PLACEMENTS if case.name == name)


def known(oracle: Oracle, program: Path, case: Case, trace: Path, cpu_s: float) -> Result:
    """Run one placement, count and record it, and compare threads and buffers."""
    with Workload([program, *case.arguments, "--slice-us", str(SLICE_US)]) as workload:
        samples, truth = measure(oracle, workload.pid, trace, cpu_s)
        threads = workload.mark()  # not before: a thread's id is known once it runs
    result = begun(case.name, samples, truth)
    for how, some in by_how(samples).items():
        result.shares[how] = known_shares(some, truth, threads, workload.buffers)
    return result


def known_shares(
    samples: Samples, truth: Truth, done: Done, buffers: dict[str, Buffer]
) -> list[Compared]:
    """By thread, all of whose accesses are of one pattern, and by buffer."""
    regions = [Region(name, each.addr, each.addr + each.bytes) for name, each in buffers.items()]
    samples, truth = samples.within(*regions).placed(), truth.within(*regions)
    threads = {
        f"thread {slot.number}": (samples.of_thread(*slot.tids), truth.of_thread(*slot.tids))
        for slot in done.slots
    }
    shares = [compare(what, taken, counted) for what, (taken, counted) in threads.items()]
    used = [region for region in regions if truth.within(region).total()]
    return shares + [_of_buffer(region, list(threads.values())) for region in used]


def _of_buffer(region: Region, threads: list[tuple[Samples, Truth]]) -> Compared:
    """A buffer that threads of several patterns use.

    Samples weigh by time, counts by access, and patterns take unequal time for one: so each
    thread's counts get one factor, which makes as many of all of them as the thread has samples.
    """
    remote = total = 0.0
    for taken, counted in threads:
        factor = len(taken) / max(1, counted.total())
        mine = counted.within(region)
        remote += factor * mine.remote()
        total += factor * mine.total()
    accesses = sum(counted.within(region).total() for _, counted in threads)
    here = Samples.together(taken.within(region) for taken, _ in threads)
    share = remote / total if total else math.nan
    return Compared.of(f"buffer {region.name}", share, accesses, here)


# --- llama.cpp


@dataclass(frozen=True, slots=True)
class Served:
    """How llama.cpp is served, and where its weights lie."""

    name: str
    wrapper: tuple[str, ...]
    halves: bool = False
    """The file's first half is put on the first node, the rest on the other."""


BOTH_NODES = ("numactl", "--physcpubind=0,2")
# Two threads, for the host has few CPUs: the threads of a pool wait for each other, spinning.
SERVED = (
    Served("bound, local", ("numactl", "--cpunodebind=0", "--membind=0")),
    Served("bound, remote", ("numactl", "--cpunodebind=1", "--membind=0")),
    Served("interleaved", (*BOTH_NODES, "--interleave=all")),
    Served("mixed", ("numactl", "--cpunodebind=0"), halves=True),
)


def served(name: str) -> Served:
    """One of SERVED."""
    return next(each for each in SERVED if each.name == name)


def llama(oracle: Oracle, case: Served, model: Path, trace: Path, cpu_s: float) -> Result:
    """Serve a model, count and record it while it answers, and compare threads and layers."""
    set_balancing(0)
    drop_page_cache()
    if case.halves:
        put_halves(model)
    command = [*case.wrapper, *server_command(model, "--threads", "2")]
    with serving(command, trace.with_suffix(".log")) as server, asking(server.url):
        layers = layer_regions(server.pid, model)
        time.sleep(2)  # until it answers
        samples, truth = measure(oracle, server.pid, trace, cpu_s)
    result = begun(case.name, samples, truth)
    for how, some in by_how(samples).items():
        result.shares[how] = _llama_shares(some, truth, layers)
    return result


def _llama_shares(
    samples: Samples, truth: Truth, layers: dict[str, list[Region]]
) -> list[Compared]:
    """By compute thread and by layer: only reads of weights, all by the same loops."""
    weights = [region for regions in layers.values() for region in regions]
    samples, truth = samples.within(*weights), truth.within(*weights)
    threads = [
        compare(f"thread {tid}", samples.of_thread(tid), truth.of_thread(tid))
        for tid, count in truth.threads().items()
        if count > BUSY * truth.total()
    ]
    return threads + [
        compare(name, samples.within(*regions), truth.within(*regions))
        for name, regions in layers.items()
        if truth.within(*regions).total() > BUSY * truth.total()
    ]


def put_halves(model: Path) -> None:
    """Read each half of the file on another node, so that its page cache lies there."""
    half = model.stat().st_size // 2
    parts = (["head", "-c", str(half)], ["tail", "-c", f"+{half + 1}"])
    for node, part in zip(NODES, parts, strict=True):
        bound = ["numactl", f"--cpunodebind={node}", f"--membind={node}"]
        with model.open("rb") as source:
            subprocess.run([*bound, *part], stdin=source, stdout=subprocess.DEVNULL, check=True)


def layer_regions(pid: int, model: Path) -> dict[str, list[Region]]:
    """Addresses of each layer's tensors, from the file's table and the process's mappings."""
    layers: dict[str, list[Region]] = defaultdict(list)
    mapped = list(_mappings(pid, model))
    for tensor in gguf.GGUFReader(model).tensors:
        first, *rest = tensor.name.split(".")
        name = f"layer {rest[0]}" if first == "blk" else first
        offset, size = int(tensor.data_offset), int(tensor.n_bytes)
        for start, end, file_offset in mapped:
            low = max(start, start + offset - file_offset)
            high = min(end, start + offset + size - file_offset)
            if low < high:
                layers[name].append(Region(tensor.name, low, high))
    return dict(layers)


def _mappings(pid: int, model: Path) -> Iterator[tuple[int, int, int]]:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == str(model):
            start, end = (int(part, 16) for part in fields[0].split("-"))
            yield start, end, int(fields[2], 16)
