"""The measurement between nodes: its loops against oracles, its memory against the kernel."""

from __future__ import annotations

import json
import os
import platform
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest
import unicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unicorn import arm64_const, x86_const

from numatrace.cli.record_text import links_text
from numatrace.model.document import loads
from numatrace.model.errors import CapabilityError, TraceError
from numatrace.model.machine import BANDWIDTH_LIMIT_BYTES_S, LATENCY_LIMIT_NS, Links
from numatrace.model.topology import Node, Topology
from numatrace.record.links import code, measure, run
from numatrace.record.links.area import Area
from numatrace.record.links.caches import UNKNOWN_BYTES, caches_of, last_cache
from numatrace.record.links.code import CHASE, STREAM, Loops, code_of
from numatrace.record.links.cycle import (
    BLOCK_BYTES,
    LINE_BYTES,
    WINDOW_BYTES,
    length,
    visits,
    write_cycle,
)
from numatrace.record.links.measure import MAX_THREADS, measure_links, sizes_for, usable_cpus
from numatrace.record.links.pair import bandwidth_bytes_s, latency_ns, numpy_stream
from numatrace.record.memory.placement import query_nodes

if TYPE_CHECKING:
    from pathlib import Path

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=40)
native = pytest.mark.skipif(platform.machine() not in CHASE, reason="no code for this CPU")
MASK = (1 << 64) - 1


def aligned(count: int) -> np.ndarray:
    """Words that begin at a multiple of 64."""
    words = np.zeros(count + 8, np.uint64)
    skip = (-words.ctypes.data % 64) // 8
    return words[skip : skip + count]


def followed(words: dict[int, int], start: int, steps: int) -> int:
    for _ in range(steps):
        start = words[start]
    return start


# --- the loops


@native
@unhurried
@given(st.permutations(range(24)), st.integers(1, 200))
def test_chase_ends_where_the_chain_says(order, steps):
    memory = aligned(24)
    base = memory.ctypes.data
    for at, to in zip(order, [*order[1:], order[0]], strict=True):
        memory[at] = base + 8 * to
    pointers = {base + 8 * at: int(word) for at, word in enumerate(memory)}
    with closing(Loops()) as loops:
        assert loops.chase(base, steps) == followed(pointers, base, steps)


@native
@unhurried
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, MASK))
def test_stream_reads_all_of_it(lines, passes, seed):
    memory = aligned(8 * lines)
    memory[:] = np.random.default_rng(seed).integers(0, MASK, 8 * lines, np.uint64, endpoint=True)
    expected = passes * sum(int(word) for word in memory) & MASK
    with closing(Loops()) as loops:
        assert loops.stream(memory.ctypes.data, memory.nbytes, passes) == expected
    assert numpy_stream(memory.ctypes.data, memory.nbytes, passes) == expected


@native
def test_loops_refuse_what_would_not_end():
    with closing(Loops()) as loops:
        for size, begin, passes in ((0, 64, 1), (100, 64, 1), (64, 8, 1), (64, 64, 0)):
            with pytest.raises(ValueError, match="bytes from"):
                loops.stream(begin, size, passes)
        with pytest.raises(ValueError, match="0 steps"):
            loops.chase(64, 0)


class Cpu:
    """Another machine's CPU, in unicorn: calls a function with the arguments in its registers."""

    CODE, DATA, RETURN = 0x10_0000, 0x20_0000, 0x30_0000

    def __init__(self, machine: str) -> None:
        self.arm = machine == "aarch64"
        kind = (
            (unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
            if self.arm
            else (unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        )
        self.cpu = unicorn.Uc(*kind)
        for place in (self.CODE, self.DATA, self.RETURN):
            self.cpu.mem_map(place, 1 << 16)

    def call(self, function: bytes, *arguments: int) -> int:
        self.cpu.mem_write(self.CODE, function)
        if self.arm:
            names = [arm64_const.UC_ARM64_REG_X0, arm64_const.UC_ARM64_REG_X1]
            names.append(arm64_const.UC_ARM64_REG_X2)
            self.cpu.reg_write(arm64_const.UC_ARM64_REG_LR, self.RETURN)
            # Vector registers are the operating system's to allow: CPACR_EL1.FPEN.
            self.cpu.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, 3 << 20)
            result = names[0]
        else:
            names = [x86_const.UC_X86_REG_RDI, x86_const.UC_X86_REG_RSI, x86_const.UC_X86_REG_RDX]
            stack = self.RETURN + 0x8000
            self.cpu.reg_write(x86_const.UC_X86_REG_RSP, stack)
            self.cpu.mem_write(stack, self.RETURN.to_bytes(8, "little"))
            result = x86_const.UC_X86_REG_RAX
        for name, value in zip(names, arguments, strict=False):
            self.cpu.reg_write(name, value)
        self.cpu.emu_start(self.CODE, self.RETURN, count=100_000)
        return int(self.cpu.reg_read(result))


@pytest.mark.parametrize("machine", sorted(CHASE))
@unhurried
@given(st.permutations(range(8)), st.integers(1, 30))
def test_chase_on_either_cpu(machine, order, steps):
    cpu = Cpu(machine)
    at = [cpu.DATA + 64 * line for line in order]
    pointers = dict(zip(at, [*at[1:], at[0]], strict=True))
    for place, to in pointers.items():
        cpu.cpu.mem_write(place, to.to_bytes(8, "little"))
    end = cpu.call(code_of(CHASE[machine]), at[0], steps)
    assert end == followed(pointers, at[0], steps)


@pytest.mark.parametrize("machine", sorted(STREAM))
@unhurried
@given(st.lists(st.integers(0, MASK), min_size=8, max_size=32), st.integers(1, 3))
def test_stream_on_either_cpu(machine, words, passes):
    words = words[: len(words) // 8 * 8]
    cpu = Cpu(machine)
    cpu.cpu.mem_write(cpu.DATA, np.array(words, np.uint64).tobytes())
    total = cpu.call(code_of(STREAM[machine]), cpu.DATA, 8 * len(words), passes)
    assert total == passes * sum(words) & MASK


def test_a_cpu_without_code_is_told():
    with pytest.raises(CapabilityError, match="riscv64"):
        Loops("riscv64")


def test_refused_executable_memory_is_told(monkeypatch):
    monkeypatch.setattr(code.mmap, "PROT_EXEC", 1 << 20)  # no such protection: EINVAL
    with pytest.raises(CapabilityError, match="refused"):
        Loops()


# --- the way


@unhurried
@given(st.integers(1, 3), st.integers(0, 1 << 30))
def test_every_block_is_visited_once_and_windows_one_by_one(windows, seed):
    order = visits(windows * WINDOW_BYTES, seed)
    lines = WINDOW_BYTES // LINE_BYTES
    assert order[0] == 0
    blocks = np.sort(order * LINE_BYTES // BLOCK_BYTES)
    assert np.array_equal(blocks, np.arange(length(windows * WINDOW_BYTES)))
    changes = np.count_nonzero(np.diff((order // lines).astype(np.int64)))
    assert changes <= windows  # the first window may be begun in its middle, and ended last


def test_the_written_cycle_is_that_way():
    memory = np.zeros(WINDOW_BYTES // 8, np.uint64)
    begin = memory.ctypes.data
    write_cycle(memory, begin, seed=7)
    at, seen = begin, []
    for _ in range(length(WINDOW_BYTES)):
        seen.append((at - begin) // LINE_BYTES)
        at = int(memory[(at - begin) // 8])
    assert at == begin
    assert seen == visits(WINDOW_BYTES, 7).tolist()


def test_a_way_over_half_a_window_is_refused():
    with pytest.raises(ValueError, match="not a multiple"):
        visits(WINDOW_BYTES // 2, 1)


# --- memory


def own_node() -> int:
    word = np.ones(1 << 16, np.uint64)
    return int(query_nodes(os.getpid(), np.array([word.ctypes.data], np.uint64))[0])


@native
def test_an_area_lies_on_its_node():
    node = own_node()
    with closing(Area(4 << 20, node)) as area:
        assert area.begin % (2 << 20) == 0
        pages = np.arange(area.begin, area.begin + area.size, 4096, dtype=np.uint64)
        assert set(query_nodes(os.getpid(), pages).tolist()) == {node}
        words = area.words(2 << 20, 1 << 20)
        assert words.ctypes.data == area.begin + (2 << 20)
        assert words.nbytes == 1 << 20
        words[:] = 5
        assert numpy_stream(area.begin + (2 << 20), 1 << 20, 1) == 5 * (1 << 17)
        del words


@native
@pytest.mark.parametrize("node", [63, 64, 500, 1023])
def test_a_node_that_is_not_there_is_told(node):
    with pytest.raises(CapabilityError, match=r"mbind\(2\)"):
        Area(4096, node)


def test_pages_elsewhere_are_told(monkeypatch):
    monkeypatch.setattr(
        "numatrace.record.links.area.query_nodes",
        lambda _pid, pages: np.where(np.arange(len(pages)) < 3, 1, 0).astype(np.int32),
    )
    with pytest.raises(CapabilityError, match="3 of 8 pages"):
        Area(8 * 4096, 0)


# --- figures


@native
def test_latency_and_bandwidth_are_what_no_memory_exceeds():
    memory = np.zeros((3 * WINDOW_BYTES) // 8, np.uint64)
    begin = -(-memory.ctypes.data // 64) * 64
    offset = (begin - memory.ctypes.data) // 8
    write_cycle(memory[offset : offset + WINDOW_BYTES // 8], begin)
    cpu = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    other = (begin + WINDOW_BYTES, WINDOW_BYTES)
    with closing(Loops()) as loops:
        ns = latency_ns(loops, cpu, (begin, WINDOW_BYTES), other, 0.02)
        rate = bandwidth_bytes_s(loops.stream, (cpu,), other, 0.02)
    assert 0.5 < ns.value < 100_000
    assert 1e7 < rate.value < 1e12
    assert 0 <= ns.waited < 1
    assert 0 <= rate.waited < 1
    assert os.sched_getaffinity(0) == before  # only the threads that measured were bound


# --- which CPUs, how much memory


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_caches_are_counted_once(tmp_path):
    cpu = "sys/devices/system/cpu"
    files = {}
    for number, shared in enumerate(("0-1", "0-1", "2")):
        files[f"{cpu}/cpu{number}/cache/index0/size"] = "48K\n"
        files[f"{cpu}/cpu{number}/cache/index3/size"] = "32M\n" if number else "32768K\n"
        files[f"{cpu}/cpu{number}/cache/index3/shared_cpu_list"] = f"{shared}\n"
    tree(tmp_path, files)
    assert last_cache(1, tmp_path) == (32 << 20, (0, 1))
    assert caches_of((0, 1, 2), tmp_path) == 64 << 20
    assert caches_of((7,), tmp_path) == UNKNOWN_BYTES


@pytest.mark.parametrize("text", ["", "many", "-4K", "99999999999999999999K", "4G"])
def test_nonsense_of_caches_is_not_taken(tmp_path, text):
    tree(tmp_path, {"sys/devices/system/cpu/cpu0/cache/index3/size": text})
    assert caches_of((0,), tmp_path) == UNKNOWN_BYTES


@unhurried
@given(st.integers(1, 200), st.integers(1, 2), st.data())
def test_one_cpu_of_every_core_that_may_be_used(cores, siblings, data):
    pairs = tuple(tuple(core + cores * i for i in range(siblings)) for core in range(cores))
    cpus = tuple(sorted(cpu for core in pairs for cpu in core))
    topology = Topology(nodes=(Node(3, cpus), Node(5, ())), cores=pairs, online_cpus=cpus)
    allowed = data.draw(st.sets(st.sampled_from(cpus)))
    found = usable_cpus(topology, allowed)
    able = [core for core in pairs if allowed.intersection(core)]
    if not able:
        assert found == {}
        return
    assert list(found) == [3]
    assert allowed.issuperset(found[3])
    assert len({cpu % cores for cpu in found[3]}) == len(found[3]) == min(len(able), MAX_THREADS)


def test_the_streamed_memory_passes_the_caches_by():
    for caches in (0, 1 << 20, 32 << 20, 100 << 20, 256 << 20):
        sizes = sizes_for(caches)
        assert sizes.stream >= 4 * caches
        assert sizes.stream % WINDOW_BYTES == sizes.chain % WINDOW_BYTES == 0
    assert sizes_for(1 << 31).stream < 1 << 31


# --- all of it, on a machine that a tree describes and this one's memory


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """One node as this machine's, one that does not exist, one with too little memory."""
    monkeypatch.setattr(measure, "CHAIN_BYTES", WINDOW_BYTES)
    monkeypatch.setattr(measure, "STREAM_BYTES", (2 * WINDOW_BYTES, 1 << 30))
    cpu = min(os.sched_getaffinity(0))
    node, cpus = "sys/devices/system/node", "sys/devices/system/cpu"
    meminfo = "Node 0 MemTotal: 1000000 kB\nNode 0 MemFree: {free} kB\n"
    files = {
        f"{cpus}/online": f"{cpu}\n",
        f"{cpus}/cpu{cpu}/cache/index0/size": "256K\n",
        f"{node}/node{own_node()}/cpulist": f"{cpu}\n",
        f"{node}/node{own_node()}/meminfo": meminfo.format(free=900_000),
        f"{node}/node40/cpulist": "\n",
        f"{node}/node40/meminfo": meminfo.format(free=900_000),
        f"{node}/node41/cpulist": "\n",
        f"{node}/node41/meminfo": meminfo.format(free=5000),
    }
    before = os.sched_getaffinity(0)
    yield tree(tmp_path, files)
    os.sched_setaffinity(0, before)


@native
def test_pairs_are_measured_or_said_why_not(machine):
    said: list[str] = []
    links = measure_links(said.append, 1.0, machine)
    me = own_node()
    assert links.latency(me, me) > 0.5
    assert links.bandwidth(me, me) > 1e7
    assert links.threads == {me: 1}
    assert said[0] == f"CPUs of node {me}, memory of node {me}"
    assert set(links.skipped) - {"busy"} == {f"{me}>40", f"{me}>41"}
    assert "mbind" in links.skipped[f"{me}>40"]
    assert "has 4 MiB free" in links.skipped[f"{me}>41"]
    assert Links.from_json(json.loads(json.dumps(links.to_json()))) == links
    assert "measured 1 pair of nodes" in links_text(links)


def test_without_executable_memory_bandwidth_is_left(machine, monkeypatch):
    def refuse() -> None:
        raise CapabilityError("no", "memory that can be executed is refused", "go without")

    monkeypatch.setattr(measure, "Loops", refuse)
    links = measure_links(lambda _: None, 1.0, machine)
    assert links.latency_ns == {}
    assert links.bandwidth(own_node(), own_node()) > 1e7
    assert "refused" in links.skipped["latency"]


def test_without_a_cpu_nothing_is_measured(machine, monkeypatch):
    monkeypatch.setattr(measure, "usable_cpus", lambda *_: {})
    links = measure_links(lambda _: None, 1.0, machine)
    assert links.latency_ns == links.bandwidth_bytes_s == links.threads == {}
    assert "no CPU" in links_text(links)


def test_when_the_time_is_up_the_rest_is_left_out(machine):
    links = measure_links(lambda _: None, 0.0, machine)
    assert links.latency_ns == links.bandwidth_bytes_s == {}
    assert set(links.skipped.values()) == {"the time was up"}
    assert "nothing measured" in links_text(links)


# --- the program apart


def worker(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_what_the_worker_says_is_taken():
    said: list[str] = []
    links = Links({0: {1: 90.0}}, took_s=1.0)
    lines = ["no JSON", json.dumps({"progress": "pair"}), json.dumps([1])]
    lines += [json.dumps({"links": 3}), json.dumps({"links": links.to_json()})]
    text = f"for line in {lines!r}: print(line)"
    assert run.run(said.append, 1.0, worker(text)) == links
    assert said == ["pair"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import time; time.sleep(60)", "in time"),
        ("while True: print('x' * 1000)", "in time"),
        ("while True: print(end='{')", "in time"),
        ("import os; os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("import os; os._exit(3)", "status 3"),
        ("import os; os.close(1); os.close(2); import time; time.sleep(60)", "in time"),
    ],
)
def test_a_worker_that_fails_is_ended_and_told(text, why):
    links = run.run(lambda _: None, 0.5, worker(text), 0.5)
    assert why in links.skipped["all"]


# --- the document


nodes = st.integers(0, 1023)
figures = st.dictionaries(
    nodes, st.dictionaries(nodes, st.floats(0.01, 1e6, allow_subnormal=False), min_size=1)
)


@unhurried
@given(figures, figures, st.dictionaries(nodes, st.integers(0, 1000)))
def test_the_document_comes_back(latency, bandwidth, threads):
    links = Links(latency, bandwidth, threads, {"0>1": "why"}, "how", 2.5)
    assert Links.from_json(loads(json.dumps(links.to_json()), "links")) == links


@pytest.mark.parametrize(
    "value",
    [
        {"latency_ns": {"0": {"0": 2 * LATENCY_LIMIT_NS}}},
        {"latency_ns": {"0": {"0": -1}}},
        {"latency_ns": {"0": {"0": "90"}}},
        {"latency_ns": {"0": {"0": True}}},
        {"latency_ns": {"0": 90}},
        {"latency_ns": {"1024": {"0": 90}}},
        {"latency_ns": {"x": {"0": 90}}},
        {"bandwidth_bytes_s": {"0": {"0": 2 * BANDWIDTH_LIMIT_BYTES_S}}},
        {"bandwidth_bytes_s": {"0": {"0": float("nan")}}},
        {"threads": {"0": -1}},
        {"skipped": {str(pair): "why" for pair in range(1000)}},
        {"method": "x" * 1000},
        [],
    ],
)
def test_nonsense_is_refused(value):
    with pytest.raises(TraceError):
        Links.from_json(value)
