"""A server's situation, built directly: what the tests of plans vary."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.documents import Documents
from numatrace.analyze.samples.cellview import CellView
from numatrace.analyze.samples.ratios import Ratios
from numatrace.analyze.situation import Growth, Situation, Weights
from numatrace.analyze.threads.residency import ThreadSums
from numatrace.model.findings import Finding
from numatrace.model.measured import Figure
from numatrace.model.process import Cgroup, Deployment, Process
from numatrace.model.topology import Node, NodeMemory, Performance, Topology

if TYPE_CHECKING:
    from numatrace.model.machine import Links

GIB = 1 << 30
SECOND = 10**9
MODEL = "/models/big.gguf"
TWO = {0: tuple(range(16)), 1: tuple(range(16, 32))}


def no_samples() -> CellView:
    empty = np.zeros(0, np.int64)
    return CellView(*[empty] * len(fields(CellView)))


def finding(cause: str) -> Finding:
    return Finding(cause, cause, "", 1000, (), "high")


@dataclass
class Machine:
    """Two sockets of 16 cores with 64 GiB each, and a model of 8 GiB on node 0."""

    nodes: dict[int, tuple[int, ...]] = field(default_factory=lambda: dict(TWO))
    total: dict[int, int] = field(default_factory=dict)
    free: dict[int, int] = field(default_factory=dict)
    distances: dict[int, dict[int, int]] = field(default_factory=dict)
    cores: tuple[tuple[int, ...], ...] = ()
    performance: tuple[Performance, ...] = ()
    links: Links | None = None
    mapped: dict[int, int] = field(default_factory=lambda: {0: 8 * GIB})
    private_weights: dict[int, int] = field(default_factory=dict)
    private: dict[int, int] = field(default_factory=dict)
    absent: int = 0
    paths: tuple[str, ...] = (MODEL,)
    times: list[dict[int, int]] = field(
        default_factory=lambda: [{0: 4 * SECOND, 1: 4 * SECOND}] * 32
    )
    threads_used: int | None = None
    argv: tuple[str, ...] = ("llama-server", "-m", MODEL)
    allowed: tuple[int, ...] | None = None
    cgroup: Cgroup = field(default_factory=Cgroup)
    mems: tuple[int, ...] = ()
    deployment: str = "hand"
    policy: str = "default"
    balancing: int | None = 0
    gpu: bool = False
    gpu_nodes: tuple[int, ...] = ()
    measured: float | None = None

    @property
    def topology(self) -> Topology:
        found = []
        for number, cpus in self.nodes.items():
            total = self.total.get(number, 64 * GIB)
            memory = NodeMemory(total, min(total, self.free.get(number, total // 2)))
            found.append(Node(number, cpus, memory))
        return Topology(tuple(found), self.distances, self.cores, performance=self.performance)

    def situation(self) -> Situation:
        topology = self.topology
        online = tuple(sorted(topology.cpu_to_node))
        allowed = online if self.allowed is None else self.allowed
        server = Process(
            1000, 1, "llama-server", self.argv, cpus_allowed=allowed, mems_allowed=self.mems,
            policy=self.policy, cgroup=self.cgroup, deployment=Deployment(),
        )  # fmt: skip
        documents = Documents()
        documents.topology, documents.links = topology, self.links
        private = Counter(self.private)
        private.update(self.private_weights)
        compute = tuple(
            ThreadSums(1000, 1000 + place, oncpu_ns=Counter(times))
            for place, times in enumerate(self.times)
        )
        figure = None
        if self.measured is not None:
            figure = Figure(self.measured, "share", "operand sample")
        return Situation(
            topology=topology,
            memory={node.node: node.memory for node in topology.nodes},
            processes=(server,),
            server=server,
            server_reason="",
            root=server,
            deployment=self.deployment,  # type: ignore[arg-type]
            clients=(),
            documents=documents,
            weights=Weights(
                {node: size for node, size in self.mapped.items() if size},
                {node: size for node, size in self.private_weights.items() if size},
                self.absent,
                paths=self.paths,
            ),
            private_bytes=dict(private),
            compute=compute,
            threads_used=len(compute) if self.threads_used is None else self.threads_used,
            server_ns=10 * SECOND,
            duration_ns=10 * SECOND,
            compute_cpus=allowed,
            allowed_cpus=tuple(sorted(set(allowed) & set(self.cgroup.cpus or allowed))),
            quota_cpus=self.cgroup.quota_cpus,
            moves_per_thread_s=None,
            growth=Growth(),
            numa_balancing=self.balancing,
            gpu=self.gpu,
            gpu_nodes=self.gpu_nodes,
            ratios=Ratios(topology, no_samples(), self.links),
            measured=figure,
        )
