"""The machine's settings and memory, as the `system` rows `memory`, `sysctl` and `kernel`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from numatrace.model.cpulist import NODE_LIMIT
from numatrace.model.document import document
from numatrace.model.topology import NodeMemory

if TYPE_CHECKING:
    from collections.abc import Mapping

CMDLINE_LIMIT = 4096
"""Characters kept of the kernel's command line (COMMAND_LINE_SIZE is 2048 on x86)."""
COUNTERS_LIMIT = 128
SETTING_LIMIT = 256


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of every node at one moment, and the kernel's NUMA counters since boot.

    `vmstat` has the numa_* lines of /proc/vmstat, in pages or events; `numastat` those of
    nodeN/numastat, in pages, by node.
    """

    nodes: Mapping[int, NodeMemory]
    vmstat: Mapping[str, int] = field(default_factory=dict)
    numastat: Mapping[int, Mapping[str, int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the value of a `system` row `memory`."""
        return {
            "nodes": {str(node): memory.to_json() for node, memory in self.nodes.items()},
            "vmstat": dict(self.vmstat),
            "numastat": {str(node): dict(counts) for node, counts in self.numastat.items()},
        }

    @classmethod
    def from_json(cls, value: object) -> Memory:
        """Check and take the value of a `system` row `memory`; raises TraceError."""
        doc = document(value, "memory")
        nodes = doc.child("nodes", NODE_LIMIT)
        numastat = doc.child("numastat", NODE_LIMIT)
        return cls(
            {
                doc.node_key(key, NODE_LIMIT): NodeMemory.from_json(memory)
                for key, memory in nodes.values.items()
            },
            doc.integer_map("vmstat", COUNTERS_LIMIT),
            {
                doc.node_key(key, NODE_LIMIT): numastat.integer_map(key, COUNTERS_LIMIT)
                for key in numastat.values
            },
        )


@dataclass(frozen=True, slots=True)
class Sysctl:
    """Kernel settings that decide over placement, by name; one that this kernel lacks is absent.

    Names are those of sysctl(8), and `transparent_hugepage`, `transparent_hugepage_defrag` and
    `numa_demotion` for the settings of /sys/kernel/mm. Values are the kernel's text; of a list
    such as "always [madvise] never" it is the chosen word.
    """

    values: Mapping[str, str]

    @property
    def numa_balancing(self) -> int | None:
        """Bits of kernel.numa_balancing: 1 normal, 2 memory tiering; None without the setting."""
        return self._integer("kernel.numa_balancing")

    @property
    def zone_reclaim_mode(self) -> int | None:
        """vm.zone_reclaim_mode, or None."""
        return self._integer("vm.zone_reclaim_mode")

    def _integer(self, name: str) -> int | None:
        text = self.values.get(name, "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None

    def to_json(self) -> dict[str, object]:
        """Return the value of the `system` row `sysctl`."""
        return dict(self.values)

    @classmethod
    def from_json(cls, value: object) -> Sysctl:
        """Check and take the value of the `system` row `sysctl`; raises TraceError."""
        doc = document({"sysctl": value}, "machine")
        return cls(doc.text_map("sysctl", COUNTERS_LIMIT, SETTING_LIMIT))


@dataclass(frozen=True, slots=True)
class Kernel:
    """Which kernel ran, and what it was told at boot."""

    release: str = ""
    version: str = ""
    cmdline: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the value of the `system` row `kernel`."""
        return {"release": self.release, "version": self.version, "cmdline": self.cmdline}

    @classmethod
    def from_json(cls, value: object) -> Kernel:
        """Check and take the value of the `system` row `kernel`; raises TraceError."""
        doc = document(value, "kernel")
        return cls(
            doc.text("release", SETTING_LIMIT),
            doc.text("version", SETTING_LIMIT),
            doc.text("cmdline", CMDLINE_LIMIT),
        )
