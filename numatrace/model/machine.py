"""The machine's settings, memory, devices and links: the `system` rows except `topology`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from numatrace.model.cpulist import NODE_LIMIT
from numatrace.model.document import document
from numatrace.model.topology import NodeMemory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numatrace.model.document import Document

CMDLINE_LIMIT = 4096
"""Characters kept of the kernel's command line (COMMAND_LINE_SIZE is 2048 on x86)."""
COUNTERS_LIMIT = 128
SETTING_LIMIT = 256
DEVICES_LIMIT = 256
SKIPPED_LIMIT = 256
LATENCY_LIMIT_NS = 1e6
BANDWIDTH_LIMIT_BYTES_S = 1e14
"""What no memory has: a millisecond, and a hundred terabytes a second."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of every node at one moment, and the kernel's NUMA counters since boot.

    `vmstat` has the lines of /proc/vmstat about NUMA, migration, reclaim and swapping, in pages or
    events; `numastat` those of nodeN/numastat, in pages, by node.
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


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU or accelerator on the PCI bus.

    `kind` is "display" or "accelerator"; `driver` is "" without one; `node` is the NUMA node that
    it hangs at, None where the firmware does not say.
    """

    address: str
    kind: str
    driver: str = ""
    node: int | None = None

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, value: object) -> Device:
        """Check and take the JSON form; raises TraceError."""
        doc = document(value, "device")
        return cls(
            doc.text("address", 32),
            doc.text("kind", 16),
            doc.text("driver", 64),
            doc.optional_integer("node", NODE_LIMIT - 1),
        )


@dataclass(frozen=True, slots=True)
class Devices:
    """GPUs and accelerators, by address."""

    devices: tuple[Device, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the value of the `system` row `devices`."""
        return {"devices": [device.to_json() for device in self.devices]}

    @classmethod
    def from_json(cls, value: object) -> Devices:
        """Check and take the value of the `system` row `devices`; raises TraceError."""
        doc = document(value, "devices")
        found = doc.children("devices", DEVICES_LIMIT)
        return cls(tuple(Device.from_json(device) for device in found))


@dataclass(frozen=True, slots=True)
class Links:
    """Latency and bandwidth from the CPUs of one node to the memory of another, as measured.

    `latency_ns[cpu_node][mem_node]` is ns of one load of a chain of dependent loads;
    `bandwidth_bytes_s` bytes per second that all `threads[cpu_node]` threads read together. A pair
    that could not be measured is absent, and `skipped` says why, by "CPU_NODE>MEM_NODE"; by another
    word it says what all figures lack. `method` tells how it was measured, in a sentence.
    """

    latency_ns: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    bandwidth_bytes_s: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    threads: Mapping[int, int] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    method: str = ""
    took_s: float = 0.0

    def latency(self, cpu_node: int, mem_node: int) -> float | None:
        """Return ns per dependent load, or None where it was not measured."""
        return self.latency_ns.get(cpu_node, {}).get(mem_node)

    def bandwidth(self, cpu_node: int, mem_node: int) -> float | None:
        """Return bytes per second, or None where it was not measured."""
        return self.bandwidth_bytes_s.get(cpu_node, {}).get(mem_node)

    def to_json(self) -> dict[str, object]:
        """Return the value of the `system` row `links`."""
        return {
            "latency_ns": _json_pairs(self.latency_ns),
            "bandwidth_bytes_s": _json_pairs(self.bandwidth_bytes_s),
            "threads": {str(node): count for node, count in self.threads.items()},
            "skipped": dict(self.skipped),
            "method": self.method,
            "took_s": self.took_s,
        }

    @classmethod
    def from_json(cls, value: object) -> Links:
        """Check and take the value of the `system` row `links`; raises TraceError."""
        doc = document(value, "links")
        threads = doc.integer_map("threads", NODE_LIMIT, 1 << 20)
        return cls(
            _pairs(doc, "latency_ns", LATENCY_LIMIT_NS),
            _pairs(doc, "bandwidth_bytes_s", BANDWIDTH_LIMIT_BYTES_S),
            {doc.node_key(key, NODE_LIMIT): count for key, count in threads.items()},
            doc.text_map("skipped", SKIPPED_LIMIT, SETTING_LIMIT),
            doc.text("method", SETTING_LIMIT),
            doc.optional_number("took_s", 1e6) or 0.0,
        )


def _json_pairs(pairs: Mapping[int, Mapping[int, float]]) -> dict[str, dict[str, float]]:
    return {str(a): {str(b): value for b, value in row.items()} for a, row in pairs.items()}


def _pairs(doc: Document, name: str, high: float) -> dict[int, dict[int, float]]:
    rows = doc.child(name, NODE_LIMIT)
    return {
        doc.node_key(a, NODE_LIMIT): {
            doc.node_key(b, NODE_LIMIT): value
            for b, value in rows.number_map(a, NODE_LIMIT, high).items()
            if value > 0
        }
        for a in rows.values
    }
