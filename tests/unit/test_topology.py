"""The machine, read from captured trees and from this one, against hwloc, lscpu and numactl."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numatrace.model.cpulist import (
    CPU_LIMIT,
    NODE_LIMIT,
    format_cpulist,
    parse_cpulist,
    parse_cpumask,
)
from numatrace.model.document import DOCUMENT_LIMIT, loads
from numatrace.model.errors import TraceError
from numatrace.model.machine import Devices, Kernel, Memory, Sysctl
from numatrace.model.topology import HugePages, Node, NodeMemory, Performance, Topology
from numatrace.record.machine import sysfs
from numatrace.record.machine.environment import machine_documents

CAPTURES = Path(__file__).resolve().parents[3] / "shared/captures/topology"
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The machine that runs the tests may be busy; that is no failure of what is tested."""
WANTED = re.compile(
    r"[^/]+/(sys/devices/system/cpu/(online|cpu\d+/(online|topology/\w+))"
    r"|sys/devices/system/node/node\d+/(cpulist|cpumap|distance|meminfo)|proc/(cpuinfo|meminfo))"
)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack what topology reads of a captured tree; returns the folder with its sys and proc."""
    if not archive.is_file():
        pytest.skip(f"no captures here: {archive.name} is kept outside of this repository")
    with tarfile.open(archive) as tar:
        files = [each for each in tar if each.isfile() and WANTED.fullmatch(each.name)]
        # Before 3.11.4 there was no filter; files of these archives alone are taken either way.
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(folder, members=files, **safely)
    (tree,) = folder.iterdir()
    return tree


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


# --- lists and masks of CPUs


cpu_sets = st.sets(st.integers(0, CPU_LIMIT - 1), max_size=60)


@unhurried
@given(cpu_sets)
def test_a_list_is_read_back(cpus):
    assert parse_cpulist(format_cpulist(cpus)) == tuple(sorted(cpus))


@unhurried
@given(st.sets(st.integers(0, 1023)))
def test_a_mask_is_the_same_set_as_the_list(cpus):
    digits = f"{sum(1 << cpu for cpu in cpus):0256x}"
    words = ",".join(digits[i : i + 8] for i in range(0, 256, 8))
    assert parse_cpumask(words) == parse_cpulist(format_cpulist(cpus))


def test_lists_as_the_kernel_prints_them():
    assert parse_cpulist("0-3,8\n") == (0, 1, 2, 3, 8)
    assert parse_cpulist("") == ()
    assert format_cpulist([8, 0, 1, 3, 2, 2]) == "0-3,8"


@pytest.mark.parametrize(
    "text",
    ["0-99999999", "5-3", "-1", "1-", "a", "0x1", "1 2", "٣", "16384", "0-3:2/4", "1" * 200_000],
)
def test_a_hostile_list_is_refused(text):
    with pytest.raises(ValueError, match=r"list|numbers"):
        parse_cpulist(text)


@pytest.mark.parametrize("text", ["", "x", "0,1", "f" * 9, "1," + "0" * 9, "f," * 9999 + "f"])
def test_a_hostile_mask_is_refused(text):
    with pytest.raises(ValueError, match="mask"):
        parse_cpumask(text)


def test_the_longest_list_is_read():
    cpus = range(0, CPU_LIMIT, 2)
    assert parse_cpulist(format_cpulist(cpus)) == tuple(cpus)


# --- captured machines, as hwloc sees them


@dataclass
class Expected:
    """What hwloc says of a machine. It leaves out what its own cgroup may not use."""

    nodes: dict[int, set[int]] = field(default_factory=dict)
    cores: dict[int, int] = field(default_factory=dict)
    memory: dict[int, str | int] = field(default_factory=dict)
    distances: dict[tuple[int, int], int] = field(default_factory=dict)
    left_out: set[int] = field(default_factory=set)
    whole: bool = True


@dataclass
class Item:
    text: str
    parent: int


def parse_console(text: str) -> Expected:
    expected = Expected(whole="LinuxCgroup" not in text)
    items = outline(text.partition("depth 0:")[0])
    logical = {}
    for item in items:
        if match := re.match(r"NUMANode L#(\d+) \(P#(\d+) local=(\w+)", item.text):
            node = logical[int(match[1])] = int(match[2])
            below = [each.text for i, each in enumerate(items) if item.parent in above(items, i)]
            expected.nodes[node] = {
                int(cpu) for each in below for cpu in re.findall(r"PU L#\d+ \(P#(\d+)", each)
            }
            expected.cores[node] = sum(len(re.findall(r"Core L#", each)) for each in below)
            expected.memory[node] = match[3]
    rows = re.findall(r"^ +(\d+)((?: +\d+)+)$", text.partition(" index ")[2], re.MULTILINE)
    for row, cells in rows:
        for column, distance in enumerate(cells.split()):
            expected.distances[logical[int(row)], logical[column]] = int(distance)
    if match := re.search(r"processors not represented in topology: (\S+)", text):
        expected.left_out = mask(match[1])
    return expected


def outline(text: str) -> list[Item]:
    """The lines of a lstopo console, each with the index of the one that it is below."""
    items, depths = [], []
    for line in text.splitlines():
        depth = len(line) - len(line.lstrip())
        parent = max((i for i, each in enumerate(depths) if each < depth), default=-1)
        items.append(Item(line.strip(), parent))
        depths.append(depth)
    return items


def above(items: list[Item], index: int) -> list[int]:
    found = []
    while index >= 0:
        found.append(index)
        index = items[index].parent
    return found


def mask(text: str) -> set[int]:
    digits = "".join(word.removeprefix("0x").zfill(8) for word in text.split(","))
    value = int(digits, 16)
    return {cpu for cpu in range(value.bit_length()) if value >> cpu & 1}


def parse_xml(text: str) -> Expected:
    root = ET.fromstring(text)
    expected = Expected(whole=root.find("info[@name='LinuxCgroup']") is None)
    for node in root.iter("object"):
        if node.get("type") == "NUMANode":
            number = int(node.attrib["os_index"])
            expected.nodes[number] = mask(node.attrib["complete_cpuset"])
            expected.memory[number] = int(node.attrib["local_memory"])
    table = root.find("distances2")
    if table is not None:
        indexes = [int(word) for each in table.iter("indexes") for word in each.text.split()]
        values = [int(word) for each in table.iter("u64values") for word in each.text.split()]
        pairs = [(a, b) for a in indexes for b in indexes]
        expected.distances = dict(zip(pairs, values, strict=True))
    return expected


def shown_bytes(size: int) -> str:
    """Bytes as lstopo writes them (hwloc_memory_size_snprintf), two units at the most."""
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB")):
        if size >= 10 << shift:
            return f"{((size >> shift - 1) + 1) >> 1}{unit}"
    return f"{((size >> 9) + 1) >> 1}KiB"


CONSOLES = {
    "16amd64-4n4c-cgroup-distance-merge": 4,
    "16amd64-8n2c-cpusets": 8,
    "16amd64-8n2c": 8,
    "16em64t-4s2c2t-offlines": 1,
    "20em64t-hybrid-1p6c2t+2ca4co1t": 1,
    "256ppc-8n8s4t": 8,
    "2arm-2c": 1,
    "48amd64-4pa2n6c-sparse": 8,
    "64amd64-4s2n4ca2co": 8,
}
XMLS = {
    "32amd64-4s2n4c-cgroup2": 8,
    "32em64t-2n8c+dax+nvme+mic+dimms": 2,
    "40intel64-2g2n4c+pcilocality": 4,
}


# hwloc splits a Bulldozer module in two cores; the kernel's thread_siblings, lscpu and llama.cpp
# call it one core of two threads.
MODULES = {"64amd64-4s2n4ca2co"}


@pytest.mark.parametrize("name", [*CONSOLES, *XMLS])
def test_a_captured_machine_is_as_hwloc_sees_it(name, tmp_path):
    tree = unpack(CAPTURES / f"hwloc/{name}.tar.bz2", tmp_path)
    view = CAPTURES / "hwloc" / f"{name}.{'xml' if name in XMLS else 'console'}"
    expected = (parse_xml if name in XMLS else parse_console)(view.read_text())
    topology = sysfs.read_topology(tree)
    ours = {node.node: set(node.cpus) for node in topology.nodes}
    assert len(ours) == (CONSOLES | XMLS)[name]
    assert expected.nodes
    for node, cpus in expected.nodes.items():
        assert ours[node] - expected.left_out == cpus
        total = topology.node(node).total_bytes
        assert expected.memory[node] in (total, shown_bytes(total))
    if expected.whole:
        assert ours.keys() == expected.nodes.keys()
        assert set(topology.online_cpus) == set().union(*expected.nodes.values())
    for (a, b), distance in expected.distances.items():
        assert topology.distance(a, b) == distance
    for node, count in expected.cores.items() if name not in MODULES else ():
        cores = topology.cores_of_node(node)
        assert sum(not expected.left_out.issuperset(core) for core in cores) == count
    assert len(expected.distances) in (0, len(expected.nodes) ** 2)
    assert expected.distances or len(expected.nodes) == 1


# --- captured machines, as lscpu sees them


def parse_strided(text: str) -> set[int]:
    """A list as these captures have it: also with a stride, "0-62:2"."""
    cpus = set()
    for part in filter(None, text.strip().split(",")):
        first, last, step = re.fullmatch(r"(\d+)(?:-(\d+))?(?::(\d+))?", part).groups()
        cpus |= set(range(int(first), int(last or first) + 1, int(step or 1)))
    return cpus


LSCPU = {
    "arm-A510-A710-A715-X3": 1,
    "ppc64-POWER7-64cpu": 2,
    "rv64-milkvpioneer": 4,
    "s390-kvm": 1,
    "vmware_fpe": 4,
    "x86_64-64cpu": 3,
    "x86_64-64cpu-linux6.2": 1,
    "x86_64-dell_e4310": 1,
}


@pytest.mark.parametrize("name", LSCPU)
def test_a_captured_machine_is_as_lscpu_sees_it(name, tmp_path):
    tree = unpack(CAPTURES / f"lscpu/{name}.tar.gz", tmp_path)
    head, table, *_ = (CAPTURES / f"lscpu/{name}.expected.txt").read_text().split("\n\n")
    topology = sysfs.read_topology(tree)
    online = parse_strided(re.search(r"On-line CPU\(s\) list: *(.*)", head)[1])
    nodes = re.findall(r"NUMA node(\d+) CPU\(s\): *(.*)", head)
    expected = {int(node): parse_strided(cpus) for node, cpus in nodes} or {0: online}
    assert set(topology.online_cpus) == online
    assert {node.node: set(node.cpus) for node in topology.nodes} == expected
    assert len(expected) == LSCPU[name]
    model = re.search(r"Model name: *(.*)", head)[1]
    if not name.startswith("arm"):  # lscpu translates part numbers, and counts cores per model
        assert topology.cpu_model == model.removeprefix("-")
        rows = re.findall(r"^(\d+),(\d+),", table, re.MULTILINE)
        for node, cpus in expected.items():
            cores = {core for cpu, core in rows if int(cpu) in cpus}
            assert topology.physical_cores(node) == len(cores)


# --- this machine


def test_this_machine_is_as_lscpu_sees_it():
    if shutil.which("lscpu") is None:
        pytest.skip("lscpu is not installed")
    command = ["lscpu", "-p=CPU,NODE,CORE"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [line.split(",") for line in output.splitlines() if not line.startswith("#")]
    topology = sysfs.read_topology()
    assert rows
    assert topology.cpu_to_node == {int(cpu): int(node or 0) for cpu, node, _ in rows}
    assert len(topology.cores) == len({core for _, _, core in rows})


def test_this_machine_is_as_numactl_sees_it():
    if shutil.which("numactl") is None:
        pytest.skip("numactl is not installed")
    topology = sysfs.read_topology()
    run = subprocess.run(["numactl", "-H"], check=False, capture_output=True, text=True)
    if run.returncode:
        pytest.skip(f"numactl -H: {run.stdout}{run.stderr}")
    later = sysfs.read_topology()
    cpus = dict(re.findall(r"node (\d+) cpus: *(.*)", run.stdout))
    assert {str(n.node): " ".join(map(str, n.cpus)) for n in topology.nodes} == cpus
    for node, size in re.findall(r"node (\d+) size: (\d+) MB", run.stdout):
        total, then = (each.node(int(node)).total_bytes >> 20 for each in (topology, later))
        assert total <= int(size) <= then
    numbers = [node.node for node in topology.nodes]
    for row, cells in re.findall(r"^ *(\d+): +([\d ]+)$", run.stdout, re.MULTILINE):
        assert [topology.distance(int(row), n) for n in numbers] == list(map(int, cells.split()))


def zone_bytes() -> dict[int, int]:
    """Bytes that the page allocator manages, by node, summed over the zones."""
    text = Path("/proc/zoneinfo").read_text()
    found: dict[int, int] = {}
    for node, pages in re.findall(r"^Node (\d+), zone.*?^ +managed +(\d+)$", text, re.M | re.S):
        found[int(node)] = found.get(int(node), 0) + int(pages) * os.sysconf("SC_PAGESIZE")
    return found


def test_memory_of_this_machine_adds_up():
    # Kernels that bring memory online lazily have less here than in /proc/meminfo, and ever more.
    before, memory, after = zone_bytes(), sysfs.read_memory(), zone_bytes()
    assert memory.nodes.keys() == before.keys() == after.keys()
    for node, amount in memory.nodes.items():
        assert before[node] <= amount.total_bytes <= after[node]
    for node in memory.nodes.values():
        assert 0 < node.available_bytes < node.total_bytes
        assert node.inactive_file_bytes <= node.file_bytes
    vmstat = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    assert memory.vmstat.keys() >= {name for name in vmstat if name.startswith("numa_")}
    assert memory.vmstat.keys() <= vmstat.keys()


def test_settings_of_this_machine():
    sysctl = sysfs.read_sysctl()
    assert sysctl.values["vm.swappiness"] == Path("/proc/sys/vm/swappiness").read_text().strip()
    balancing = Path("/proc/sys/kernel/numa_balancing")
    assert sysctl.numa_balancing == (int(balancing.read_text()) if balancing.exists() else None)
    huge = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if huge.exists():
        assert f"[{sysctl.values['transparent_hugepage']}]" in huge.read_text()
    release = subprocess.run(["uname", "-r"], check=True, capture_output=True, text=True).stdout
    assert sysfs.read_kernel().release == release.strip()


def test_documents_of_this_machine_are_read_back():
    documents = {name: json.dumps(value) for name, value in machine_documents()}
    assert list(documents) == ["topology", "memory", "sysctl", "kernel", "devices"]
    readers = (Topology, Memory, Sysctl, Kernel, Devices)
    for (name, text), reader in zip(documents.items(), readers, strict=True):
        assert json.dumps(reader.from_json(loads(text, name)).to_json()) == text


# --- trees of our own


MEMINFO = """Node {n} MemTotal:       {total} kB
Node {n} MemFree:        {free} kB
Node {n} Inactive(file):    {inactive} kB
Node {n} FilePages:      4096 kB
Node {n} AnonPages:      1024 kB
Node {n} HugePages_Total:     3
"""
NODES = "sys/devices/system/node"


def meminfo(node: int, total: int, free: int = 64, inactive: int = 32) -> str:
    return MEMINFO.format(n=node, total=total, free=free, inactive=inactive)


def cxl_machine(root: Path) -> Path:
    """Nodes 0 and 2 with CPUs, a third with memory alone, and a fourth with CPUs alone."""
    return write_tree(
        root,
        {
            "sys/devices/system/cpu/online": "0-5,7\n",
            **{
                f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": siblings
                for cpu, siblings in enumerate(("0,4", "1,5", "2,6", "3,7", "0,4", "1,5"))
            },
            "sys/devices/system/cpu/cpu7/topology/thread_siblings_list": "3,7\n",
            f"{NODES}/node0/cpulist": "0-1,4-5\n",
            f"{NODES}/node2/cpulist": "2,6\n",
            f"{NODES}/node5/cpulist": "\n",
            f"{NODES}/node10/cpumap": "00000000,00000088\n",
            f"{NODES}/node0/meminfo": meminfo(0, 1000, 100, 50),
            f"{NODES}/node2/meminfo": meminfo(2, 2000),
            f"{NODES}/node5/meminfo": meminfo(5, 4000),
            f"{NODES}/node10/meminfo": meminfo(10, 0),
            f"{NODES}/node0/distance": "10 21 30 21\n",
            f"{NODES}/node2/distance": "21 10 24 21\n",
            f"{NODES}/node5/distance": "30 24 10 99\n",
            f"{NODES}/node10/distance": "21 21\n",
            f"{NODES}/node5/access0/initiators/read_latency": "400\n",
            f"{NODES}/node5/access0/initiators/node0/x": "",
            f"{NODES}/node2/access0/initiators/read_latency": "70\n",
            f"{NODES}/node2/access1/initiators/read_latency": "90\n",
            f"{NODES}/node2/access1/initiators/write_bandwidth": "30000\n",
            f"{NODES}/node2/access1/initiators/node2/x": "",
            f"{NODES}/node0/hugepages/hugepages-2048kB/nr_hugepages": "8\n",
            f"{NODES}/node0/hugepages/hugepages-2048kB/free_hugepages": "3\n",
            f"{NODES}/node0/hugepages/hugepages-1048576kB/nr_hugepages": "0\n",
            f"{NODES}/has_cpu": "0,2,10\n",
        },
    )


def test_sparse_nodes_memory_without_cpus_and_offline_cpus(tmp_path):
    topology = sysfs.read_topology(cxl_machine(tmp_path))
    assert [node.node for node in topology.nodes] == [0, 2, 5, 10]
    assert topology.has_numa
    assert topology.nodes_with_cpus == (0, 2, 10)
    assert topology.nodes_with_memory == (0, 2, 5)
    assert topology.memory_only_nodes == (5,)
    assert topology.cpu_to_node == {0: 0, 1: 0, 4: 0, 5: 0, 2: 2, 3: 10, 7: 10}
    assert topology.node_of_cpu(7) == 10
    assert topology.node_of_cpu(6) is None
    assert topology.cores_of_node(0) == ((0, 4), (1, 5))
    assert topology.cores_of_node(2) == ((2,),)
    assert topology.cores == ((0, 4), (1, 5), (2,), (3, 7))
    assert [topology.physical_cores(node) for node in (0, 2, 5, 10, 1)] == [2, 1, 0, 1, 0]


def test_distances_go_by_real_node_numbers(tmp_path):
    topology = sysfs.read_topology(cxl_machine(tmp_path))
    assert topology.distance(0, 5) == 30
    assert topology.distance(5, 10) == 99
    # Node 10's file has two columns for four nodes: what the kernel assumes without a table.
    assert topology.distance(10, 10) == 10
    assert topology.distance(10, 0) == 20


def test_memory_of_a_node(tmp_path):
    memory = sysfs.read_topology(cxl_machine(tmp_path)).node(0).memory
    assert memory.total_bytes == 1000 << 10
    assert memory.available_bytes == 150 << 10
    assert memory.file_bytes == 4 << 20
    assert memory.anon_bytes == 1 << 20
    assert memory.hugepages == (HugePages(2 << 20, 8, 3),)


def test_memory_performance_prefers_the_cpus_view(tmp_path):
    assert sysfs.read_topology(cxl_machine(tmp_path)).performance == (
        Performance(2, (2,), read_latency_ns=90, write_bandwidth_mb_s=30000),
        Performance(5, (0,), read_latency_ns=400),
    )


def test_a_kernel_without_numa_is_one_node(tmp_path):
    files = {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: A  CPU\n\nprocessor\t: 1\n",
        "proc/meminfo": "MemTotal: 900 kB\nMemFree: 100 kB\nBuffers: 3 kB\nCached: 40 kB\n",
    }
    topology = sysfs.read_topology(write_tree(tmp_path, files))
    memory = NodeMemory(900 << 10, 100 << 10, 43 << 10)
    assert topology.nodes == (Node(0, (0, 1), memory),)
    assert not topology.has_numa
    assert topology.cpu_model == "A  CPU"
    assert topology.cores == ((0,), (1,))


def test_an_empty_tree_and_nonsense_in_it_raise_nothing(tmp_path):
    assert [node.node for node in sysfs.read_topology(tmp_path).nodes] == [0]
    assert sysfs.read_sysctl(tmp_path) == Sysctl({})
    assert sysfs.read_kernel(tmp_path) == Kernel()
    files = {
        f"{NODES}/node0/cpulist": "0-999999999",
        f"{NODES}/node99999/cpulist": "0",
        f"{NODES}/nodeX/cpulist": "0",
        f"{NODES}/node0/distance": "10 -5 \x00 99999999999999999999999",
        f"{NODES}/node0/meminfo": "Node 0 MemTotal: 99999999999999999999999 kB\n" * 100,
        f"{NODES}/node0/hugepages/hugepages-xkB/nr_hugepages": "1",
        "sys/devices/system/cpu/online": "4-1",
        "sys/devices/system/cpu/cpu1/topology/thread_siblings": "zz",
        "proc/vmstat": "numa_hit x\nnuma_miss 7\n",
        "proc/cpuinfo": "model name : \xff\n",
    }
    topology = sysfs.read_topology(write_tree(tmp_path, files))
    assert [node.node for node in topology.nodes] == [0]
    assert Topology.from_json(json.loads(json.dumps(topology.to_json()))) == topology
    assert sysfs.read_memory(tmp_path).vmstat == {"numa_miss": 7}


def test_settings_are_the_chosen_words(tmp_path):
    files = {
        "proc/sys/kernel/numa_balancing": "2\n",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
        "sys/kernel/mm/numa/demotion_enabled": "true\n",
        "proc/cmdline": "numa_balancing=disable " + "x" * 9999,
    }
    root = write_tree(tmp_path, files)
    sysctl = sysfs.read_sysctl(root)
    assert sysctl.numa_balancing == 2
    assert sysctl.zone_reclaim_mode is None
    assert sysctl.values["transparent_hugepage"] == "madvise"
    assert sysctl.values["numa_demotion"] == "true"
    kernel = sysfs.read_kernel(root)
    assert len(kernel.cmdline) == 4096
    assert Kernel.from_json(kernel.to_json()) == kernel


# --- documents


sizes = st.integers(0, 1 << 50)
pools = st.tuples(st.builds(HugePages, sizes, sizes, sizes))
memories = st.builds(NodeMemory, sizes, sizes, sizes, sizes, sizes, sizes, pools | st.just(()))


@st.composite
def topologies(draw) -> Topology:
    numbers = sorted(draw(st.sets(st.integers(0, NODE_LIMIT - 1), min_size=1, max_size=6)))
    nodes: dict[int, list[int]] = {number: [] for number in numbers}
    online = sorted(draw(st.sets(st.integers(0, 4096), max_size=30)))
    for cpu in online:
        nodes[draw(st.sampled_from(numbers))].append(cpu)
    distances = {a: {b: draw(st.integers(0, 255)) for b in numbers} for a in numbers}
    return Topology(
        nodes=tuple(Node(number, tuple(cpus), draw(memories)) for number, cpus in nodes.items()),
        distances=distances,
        cores=tuple((cpu,) for cpu in online),
        online_cpus=tuple(online),
        cpu_model=draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=40)),
        performance=(Performance(numbers[0], (numbers[-1],), draw(sizes)),),
    )


@unhurried
@given(topologies())
def test_a_topology_is_read_back(topology):
    assert Topology.from_json(loads(json.dumps(topology.to_json()), "topology")) == topology


@unhurried
@given(st.dictionaries(st.integers(0, NODE_LIMIT - 1), memories, max_size=4))
def test_memory_is_read_back(nodes):
    memory = Memory(nodes, {"numa_hit": 1 << 60}, {0: {"local_node": 3}})
    assert Memory.from_json(loads(json.dumps(memory.to_json()), "memory")) == memory


NODE = {"node": 0, "cpus": "0-3"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"nodes": []}, "no nodes"),
        ({"nodes": [NODE, {"node": 0}]}, "a node is given twice"),
        ({"nodes": [NODE, {"node": 1, "cpus": "3"}]}, "a CPU is on two nodes"),
        ({"nodes": [{"node": NODE_LIMIT}]}, "node is 1024"),
        ({"nodes": [{"node": -1}]}, "node is -1"),
        ({"nodes": [{"node": True}]}, "node is True"),
        ({"nodes": [{"node": 0, "memory": {"free_bytes": 1e9}}]}, "free_bytes is 1000000000.0"),
        ({"nodes": [{"node": 0, "memory": {"free_bytes": 1 << 80}}]}, "free_bytes is a int"),
        ({"nodes": [{"node": 0, "cpus": "0-99999"}]}, "cpus is '0-99999'"),
        ({"nodes": [{"node": 0, "cpus": 5}]}, "cpus is 5"),
        ({"nodes": [{"cpus": "0"}]}, "no node"),
        ({"nodes": [[]]}, "list instead of an object"),
        ({"nodes": [NODE] * 2000}, "nodes is '2000 items'"),
        ({"cores": ["0", "0-1"]}, "a CPU is in two cores"),
        ({"cores": ["0-16383"] * 16384}, "a CPU is in two cores"),
        ({"distances": {"0": {"1": 20}}}, "a distance to a node that is not there"),
        ({"distances": {"0": {"0": 256}}}, "0 is 256"),
        ({"distances": {"-0": {}}}, "node is '-0'"),
        ({"distances": {"\u0660": {}}}, "node is '\u0660'"),
        ({"cpu_model": "x" * 300}, "cpu_model is 'xxx"),
    ],
)
def test_nonsense_is_refused_with_its_value(change, why):
    with pytest.raises(TraceError) as caught:
        Topology.from_json({"nodes": [NODE]} | change)
    assert why in caught.value.why
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", "[" * 100_000, '{"a":' * 50_000, '{"node": ' + "9" * 5000 + "}"],
)
def test_what_is_no_json_object_is_refused(text):
    with pytest.raises(TraceError):
        Topology.from_json(loads(text, "topology"))


def test_a_document_beyond_all_measure_is_refused():
    with pytest.raises(TraceError, match="characters"):
        loads(" " * (DOCUMENT_LIMIT + 1), "topology")


def test_a_lone_surrogate_cannot_reach_the_output():
    topology = Topology.from_json(loads('{"nodes": [{"node": 0}], "cpu_model": "\\ud800"}', "t"))
    assert topology.cpu_model.encode() == b"?"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
FIELDS = ["nodes", "distances", "cores", "online_cpus", "cpu_model", "performance", "vmstat"]


@unhurried
@given(st.dictionaries(st.sampled_from(FIELDS), values))
def test_any_json_is_taken_or_refused(value):
    for reader in (Topology, Memory, Sysctl, Kernel, Node, NodeMemory, Performance):
        try:
            reader.from_json(value)
        except TraceError as error:
            assert error.todo
