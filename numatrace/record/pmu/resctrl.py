"""Memory bandwidth of each cache domain where resctrl is mounted: `counter` rows of its growth."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from numatrace.model.cpulist import CPU_LIMIT, NODE_LIMIT
from numatrace.record.machine import sysfs
from numatrace.record.machine.files import (
    numbered,
    read_cpulist,
    read_integer,
    read_names,
    to_integer,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numatrace.trace.writer import TraceWriter

MOUNT = "sys/fs/resctrl"
GROUPS_LIMIT = 64
DOMAINS_LIMIT = 256
COUNTERS: Final = {
    "mbm_local_bytes": "bytes between the domain's last-level cache and memory of its own node",
    "mbm_total_bytes": "bytes between the domain's last-level cache and memory of any node",
}
DETAIL = "resctrl, whole machine: {}, reads and writes, of all processes"


class Resctrl:
    """Reads the monitoring counters of every group: together they are the whole machine's.

    https://docs.kernel.org/arch/x86/resctrl.html: `mon_data/mon_L3_NN/mbm_*_bytes` of the root
    group and of each control group (mon_groups below them are parts of these). NN is the id of the
    last-level cache; the row's node is that of its CPUs, where they are all of one node.
    """

    def __init__(self, writer: TraceWriter, root: Path = sysfs.ROOT) -> None:
        self.writer = writer
        self.root = root
        self._mounted = False
        self._nodes: dict[int, int | None] = {}
        self._before: dict[tuple[str, int, str], int] = {}

    def start(self) -> None:
        """Take the counters as they stand. Without resctrl there are none."""
        self._mounted = (self.root / MOUNT / "mon_data").is_dir()
        if self._mounted:
            self._nodes = domain_nodes(self.root)
            self._before = self._read()

    def read(self) -> None:
        """Write the growth since the last call."""
        if not self._mounted:
            return
        now_ns = time.monotonic_ns()
        grown: dict[tuple[int, str], int] = {}
        read = self._read()
        for key, value in read.items():
            # A group made meanwhile, or a counter that began anew, has no growth yet.
            growth = value - self._before.get(key, value)
            if growth >= 0:
                grown[key[1:]] = grown.get(key[1:], 0) + growth
        self._before = read
        self.writer.add_rows(
            "counter",
            [
                {
                    "t_ns": now_ns,
                    "node": self._nodes.get(domain),
                    "name": name,
                    "count": count,
                    "detail": DETAIL.format(COUNTERS[name]),
                }
                for (domain, name), count in sorted(grown.items())
            ],
        )

    def _read(self) -> dict[tuple[str, int, str], int]:
        """The counters by group, domain and name. Those that say "Unavailable" are left out."""
        found = {}
        for group in self._groups():
            folder = self.root / MOUNT / group / "mon_data"
            for name in sorted(read_names(folder))[:DOMAINS_LIMIT]:
                domain = to_integer(name.removeprefix("mon_L3_"))
                if domain is None:
                    continue
                for counter in COUNTERS:
                    value = read_integer(folder / name / counter)
                    if value is not None:
                        found[group, domain, counter] = value
        return found

    def _groups(self) -> list[str]:
        own = {"info", "mon_data", "mon_groups"}
        names = sorted(set(read_names(self.root / MOUNT)) - own)[:GROUPS_LIMIT]
        return ["", *(name for name in names if (self.root / MOUNT / name / "mon_data").is_dir())]


def domain_nodes(root: Path) -> dict[int, int | None]:
    """Node of each last-level cache by its id; None where its CPUs are of several nodes."""
    of_cpu = {
        cpu: node
        for node in sysfs.node_numbers(root)
        for cpu in sysfs.node_cpus(node, sysfs.online_cpus(root), root)
        if node < NODE_LIMIT
    }
    found: dict[int, int | None] = {}
    for cpu in numbered(root / sysfs.CPUS, "cpu", CPU_LIMIT):
        cache = root / sysfs.CPUS / f"cpu{cpu}/cache/index3"
        domain = read_integer(cache / "id")
        if domain is None or domain in found:
            continue
        shared = read_cpulist(cache / "shared_cpu_list", CPU_LIMIT) or (cpu,)
        nodes = {of_cpu.get(each) for each in shared} - {None}
        found[domain] = nodes.pop() if len(nodes) == 1 else None
    return found
