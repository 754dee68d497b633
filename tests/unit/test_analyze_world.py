"""A small machine with a server on it, written as a trace: what the tests of analysis build on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from numatrace.analyze import analyze_trace
from numatrace.model.machine import Memory
from numatrace.model.process import Cgroup, Deployment, Process, Thread
from numatrace.model.topology import Node, NodeMemory, Topology
from numatrace.trace.reader import Trace
from numatrace.trace.writer import TraceWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numatrace.analyze.causes.base import Cause
    from numatrace.model.report import Report

SECOND = 1_000_000_000
GIB, MIB, PAGE = 1 << 30, 1 << 20, 4096
MODEL = "/models/tiny.gguf"
INODE = 4711
WEIGHTS_AT = 0x7F00_0000_0000
PRIVATE_AT = 0x7E00_0000_0000
SERVER = 1000


@dataclass
class World:
    """A trace of ten seconds. Fields are what the tests vary; `report` analyzes it."""

    nodes: dict[int, tuple[int, ...]] = field(default_factory=lambda: {0: (0, 1), 1: (2, 3)})
    """CPUs of each node."""
    total: dict[int, int] = field(default_factory=dict)
    free: dict[int, int] = field(default_factory=dict)
    inactive: dict[int, int] = field(default_factory=dict)
    distances: dict[int, dict[int, int]] = field(default_factory=dict)
    cores: tuple[tuple[int, ...], ...] = ()
    argv: tuple[str, ...] = ("llama-server", "-m", MODEL)
    comm: str = "llama-server"
    cwd: str = "/srv"
    ppid: int = 1
    policy: str = "default"
    cpus_allowed: tuple[int, ...] | None = None
    cgroup: Cgroup = field(default_factory=Cgroup)
    deployment: Deployment = field(default_factory=Deployment)
    environment: dict[str, str] = field(default_factory=dict)
    others: tuple[Process, ...] = ()
    weights: dict[int, int] = field(default_factory=lambda: {0: 64 * MIB})
    """Mapped weight bytes on each node; -1 for those not present."""
    type: str = "F16"
    """Of the mapped weights."""
    private: dict[int, int] = field(default_factory=dict)
    times: list[dict[int, int]] = field(
        default_factory=lambda: [{0: 4 * SECOND, 1: 4 * SECOND} for _ in range(4)]
    )
    """CPU time of each thread on each node [ns]."""
    numa_balancing: str = "0"
    vmstat: dict[str, int] = field(default_factory=dict)
    """Counters of /proc/vmstat at the first look."""
    losses: dict[str, int] = field(default_factory=dict)
    extra: list[tuple[str, list[dict[str, object]]]] = field(default_factory=list)
    together: bool = False
    """Whether `extra` is one batch; otherwise each of its items is one."""
    closed: bool = True

    @property
    def topology(self) -> Topology:
        return Topology(
            tuple(Node(number, cpus, self.memory(number)) for number, cpus in self.nodes.items()),
            self.distances,
            self.cores,
            tuple(sorted(cpu for cpus in self.nodes.values() for cpu in cpus)),
        )

    def memory(self, number: int) -> NodeMemory:
        total = self.total.get(number, 8 * GIB)
        free = self.free.get(number, total // 2)
        return NodeMemory(total, free, inactive_file_bytes=self.inactive.get(number, 0))

    @property
    def server(self) -> Process:
        every = tuple(sorted(cpu for cpus in self.nodes.values() for cpu in cpus))
        return Process(
            SERVER,
            self.ppid,
            self.comm,
            self.argv,
            cwd=self.cwd,
            cpus_allowed=every if self.cpus_allowed is None else self.cpus_allowed,
            mems_allowed=tuple(self.nodes),
            policy=self.policy,
            cgroup=self.cgroup,
            deployment=self.deployment,
            environment=self.environment,
        )

    def write(self, path: Path) -> None:
        writer = TraceWriter.create(path)
        memory = Memory({number: self.memory(number) for number in self.nodes}, self.vmstat)
        documents = {
            "topology": self.topology.to_json(),
            "memory": memory.to_json(),
            "sysctl": {"kernel.numa_balancing": self.numa_balancing},
            "kernel": {"release": "6.12.0"},
        }
        rows: list[dict[str, object]] = [
            {"t_ns": 1, "name": name, "value": json.dumps(value)}
            for name, value in documents.items()
        ]
        writer.add_rows("system", rows)
        for process in (self.server, *self.others):
            writer.add_rows("process", [process_row(process)])
        self._write_threads(writer)
        self._write_memory(writer)
        for kind, extra in self.extra:
            writer.add_rows(kind, extra)
            if not self.together:
                writer.flush()
        for family, count in self.losses.items():
            writer.add_rows("loss", [{"t_ns": 5, "name": family, "count": count}])
        if self.closed:
            writer.add_rows("end", [{"t_ns": 12 * SECOND, "detail": "time", "value": "{}"}])
        writer.close()

    def _write_threads(self, writer: TraceWriter) -> None:
        allowed = self.server.cpus_allowed
        for place, times in enumerate(self.times):
            tid = SERVER + place
            value = json.dumps(Thread(tid, self.comm, allowed).to_json())
            row = {"t_ns": 1, "tgid": SERVER, "tid": tid, "name": self.comm, "value": value}
            writer.add_rows("thread", [row])
            writer.add_rows(
                "oncpu",
                [
                    {
                        "t_ns": t_ns,
                        "tgid": SERVER,
                        "tid": tid,
                        "node": node,
                        "oncpu_ns": oncpu_ns // 2,
                    }
                    for t_ns in (SECOND, 11 * SECOND)
                    for node, oncpu_ns in times.items()
                ],
            )
        writer.flush()

    def _write_memory(self, writer: TraceWriter) -> None:
        size = sum(self.weights.values())
        if size:
            writer.add_rows("map", [map_row(WEIGHTS_AT, size, MODEL, INODE, "r--s")])
            writer.add_rows("tensor", tensor_rows(size, type_=self.type))
            writer.add_rows("place", weight_places(self.weights))
        if self.private:
            size = sum(self.private.values())
            writer.add_rows("map", [map_row(PRIVATE_AT, size, "", 0, "rw-p")])
            writer.add_rows("place", place_rows(PRIVATE_AT, self.private))
        writer.flush()

    def report(self, others: Sequence[Cause] = ()) -> Report:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "trace.arrow"
            self.write(path)
            trace = Trace.open(path)
            try:
                return analyze_trace(trace, others)
            finally:
                trace.close()


def process_row(process: Process) -> dict[str, object]:
    value = json.dumps(process.to_json())
    return {"t_ns": 1, "tgid": process.tgid, "name": process.comm, "value": value}


def map_row(addr: int, size: int, path: str, inode: int, perms: str) -> dict[str, object]:
    return {
        "t_ns": 2,
        "tgid": SERVER,
        "addr": addr,
        "bytes": size,
        "offset": 0,
        "inode": inode,
        "path": path,
        "detail": perms,
    }


def tensor_rows(size: int, layers: int = 2, type_: str = "F16") -> list[dict[str, object]]:
    """A table of equal tensors, one per layer, whose bytes sum up to `size`."""
    part = size // layers
    sizes = [part] * (layers - 1) + [size - part * (layers - 1)]
    return [
        {
            "t_ns": 2,
            "path": MODEL,
            "inode": INODE,
            "name": f"blk.{place}.ffn_up.weight",
            "offset": part * place,
            "bytes": each,
            "detail": type_,
            "value": "[1]",
        }
        for place, each in enumerate(sizes)
    ]


def weight_places(weights: dict[int, int]) -> list[dict[str, object]]:
    """Two tensors that each lie like the whole."""
    size = sum(weights.values())
    rows = []
    begin = 0
    for tensor in tensor_rows(size):
        share = {node: part // 2 for node, part in weights.items()}
        if begin:
            share = {node: part - part // 2 for node, part in weights.items()}
        rows += place_rows(
            WEIGHTS_AT + begin, share, name=str(tensor["name"]), path=MODEL, inode=INODE
        )
        begin += sum(share.values())
    return rows


def place_rows(
    addr: int, nodes: dict[int, int], t_ns: int = 2 * SECOND, **columns: object
) -> list[dict[str, object]]:
    size = sum(nodes.values())
    pages = max(1, size // PAGE)
    return [
        {
            "t_ns": t_ns,
            "tgid": SERVER,
            "addr": addr,
            "bytes": size,
            "mem_node": node,
            "node_bytes": part,
            "pages": part // PAGE,
            "sampled_pages": pages,
            "piece_pages": pages,
            "offset": 0,
            "inode": 0,
            **columns,
        }
        for node, part in nodes.items()
    ]


def test_the_world_is_read_back_as_it_was_built() -> None:
    world = World(weights={0: 48 * MIB, 1: 16 * MIB, -1: 2 * MIB}, private={1: 32 * MIB})
    report = world.report()
    weights, private = report.regions
    assert (weights.cls, weights.node_bytes) == ("weights", {0: 48 * MIB, 1: 16 * MIB})
    assert (weights.absent_bytes, weights.census, weights.error_bytes) == (2 * MIB, True, 0)
    assert private.node_bytes == {1: 32 * MIB}
    assert sum(tensor.bytes for tensor in report.tensors) == 66 * MIB
    assert [layer.layer for layer in report.layers] == [0, 1]
    assert sum(layer.node_bytes[1] for layer in report.layers) == 16 * MIB
    assert [thread.oncpu_ns for thread in report.threads] == world.times
    assert report.provenance.problems == ()
    assert report.provenance.ended == "time"
