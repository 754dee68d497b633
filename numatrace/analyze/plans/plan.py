"""A plan: where the server is to run and to keep its memory, with how many threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from numatrace.model.cpulist import format_cpulist
from numatrace.model.units import format_count, format_nodes

Kind = Literal[
    "bind", "interleave", "distribute", "per-node", "threads", "cpuset", "balancing", "live"
]

EVICT_SHARE = 0.03
"""From this share of mapped weights in the wrong place on, the page cache is dropped before the
restart: it survives a restart, and a memory policy does not move it. Half of the aim of 5 %."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, by `kind`.

    `bind` ties CPUs and memory to one node, `cpuset` does so by its cgroup's cpuset, and `live`
    without a restart. `interleave` spreads memory evenly. `distribute` is llama.cpp's mode of
    that name: pinned threads, and each has the same rows of every weight, which it reads first.
    `per-node` runs one instance on every node. `threads` sets the number of threads, `balancing`
    the kernel's NUMA balancing, and both leave memory where it is.
    """

    kind: Kind
    nodes: tuple[int, ...]
    """Nodes that the memory goes to; empty where it stays."""
    cpus: tuple[int, ...]
    """CPUs that the server is to use; of `per-node`, all instances together."""
    whole_nodes: bool
    """Whether these are all CPUs of the nodes with CPUs among `nodes`."""
    threads: int | None
    """Compute threads to set, of `per-node` in each instance; None leaves them as they are."""
    evict: tuple[str, ...] = ()
    """Model files whose page cache is to be dropped first, with the server stopped."""
    balancing: int | None = None
    """Value for kernel.numa_balancing; None leaves it."""
    repack: bool | None = None
    """Whether weights may be repacked into private memory; None leaves that as it is."""

    @property
    def node(self) -> int:
        """The node of a plan for one node."""
        return self.nodes[0]

    @property
    def id(self) -> str:
        """Stable name: `bind:0`, `interleave:0-1`, `threads:4`, `balancing:0`."""
        what: object = format_cpulist(self.nodes)
        if self.kind == "threads":
            what = self.threads
        elif self.kind == "balancing":
            what = self.balancing
        return f"{self.kind}:{what}"

    @property
    def title(self) -> str:
        """What it brings about, in a few words that can follow “to”."""
        return _TITLES[self.kind].format(
            nodes=format_nodes(self.nodes),
            threads=format_count(self.threads or 0, "compute thread"),
            switch="on" if self.balancing else "off",
        )


_TITLES: dict[Kind, str] = {
    "bind": "run the server and keep its memory on {nodes}",
    "interleave": "spread the server's memory evenly over {nodes}",
    "distribute": "have threads pinned on {nodes} read their own part of the weights first",
    "per-node": "run one instance on each of {nodes}",
    "threads": "run {threads}, and leave the memory where it is",
    "cpuset": "have its cgroup allow CPUs and memory of {nodes}",
    "balancing": "switch the kernel's NUMA balancing {switch}",
    "live": "move the running server and its memory to {nodes}",
}
