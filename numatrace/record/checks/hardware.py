"""Checks of what this hardware tells: its own samples and counters, bandwidth, latencies."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from numatrace.record.checks.capability import Capability, Host, one_line
from numatrace.record.machine.distribution import read_distribution
from numatrace.record.pmu.resctrl import COUNTERS, MOUNT

if TYPE_CHECKING:
    from numatrace.record.pmu.choose import Choice

RUNG = "memory accesses are sampled by the CPUs' clocks"
"""What figures come from without the hardware's own samples."""

BANDWIDTH_FLAGS = ("cqm_mbm_total", "cqm_mbm_local")
"""Flags of /proc/cpuinfo: memory bandwidth monitoring, of Intel and AMD."""


def check_pmu(host: Host) -> Capability:
    """Which of the CPU's samples and counters the recorder would use; perf is tried with them."""
    from numatrace.record.pmu.choose import Chooser  # it brings numpy with it

    choice = Chooser(host.root, host.which("perf") or "").choose()
    counts = ", ".join(each.name for each in choice.count.sets) if choice.count else ""
    counted = f"counters {counts}" if counts else "no counters"
    if choice.sample is not None:
        value = f"{choice.row}: samples {choice.sample.samples}, {counted}"
        return Capability("pmu", "hardware counters", "yes", one_line(value))
    return Capability(
        "pmu",
        "hardware counters",
        "degraded",
        one_line(f"{counted}; {RUNG}" if counts else f"none; {RUNG}"),
        lost="memory accesses sampled by the hardware, with their latency",
        why=one_line("; ".join(choice.why)),
        todo=_todo(host, choice),
    )


def _todo(host: Host, choice: Choice) -> str:
    """The one thing that would bring the CPU's samples, by what the recorder found wanting."""
    if not choice.row:
        return "Report this CPU, with /proc/cpuinfo, for numatrace's tables"
    if not choice.perf and "perf is not installed" in choice.why[0]:
        return read_distribution(host.root).install("perf", root=host.euid == 0)
    if "no PMU" in choice.why[0]:
        return "Record on bare metal, or on a virtual machine with a virtual PMU, for these"
    return "Nothing: what can be had here is used"


def check_bandwidth(host: Host) -> Capability:
    """Whether resctrl tells the bandwidth of each cache domain."""
    title = "memory bandwidth"
    if (host.root / MOUNT / "mon_data").is_dir():
        names = host.read(f"{MOUNT}/info/L3_MON/mon_features", 4096).split()
        found = [name for name in COUNTERS if name in names]
        if found:
            value = f"{', '.join(found)}, by resctrl"
            return Capability("bandwidth", title, "yes", value)
    flags = re.search(r"^flags\s*:(.*)$", host.read("proc/cpuinfo", 1 << 14), re.MULTILINE)
    if flags is None or not set(BANDWIDTH_FLAGS) & set(flags[1].split()):
        return Capability("bandwidth", title, "yes", "not counted by this CPU; nothing rests on it")
    return Capability(
        "bandwidth",
        title,
        "degraded",
        "resctrl is not mounted",
        lost="bytes between the caches and memory, of the whole machine",
        why=f"the CPU counts them ({' '.join(BANDWIDTH_FLAGS)}), but /{MOUNT} has no mon_data",
        todo=host.as_root(f"mount -t resctrl resctrl /{MOUNT}"),
    )


def check_latencies(host: Host) -> Capability:
    """Whether the firmware gives latencies between nodes (HMAT) or only distances."""
    title = "node latencies"
    folder = host.sys / "devices/system/node"
    nodes = list(folder.glob("node[0-9]*"))
    if len(nodes) < 2:
        return Capability("latencies", title, "yes", "not needed: no memory is remote")
    told = [node for node in nodes if any(node.glob("access[01]/initiators/read_latency"))]
    if told:
        value = f"from the firmware (HMAT), for {len(told)} of {len(nodes)} nodes"
        return Capability("latencies", title, "yes", value)
    return Capability(
        "latencies",
        title,
        "degraded",
        "distances only (SLIT)",
        lost="how much longer remote memory takes: the time lost is a wide range",
        why=f"no node of /{folder.relative_to(host.root)} has a read_latency of the firmware",
        todo=host.as_root(f"{host.program()} record --measure-links -p PID"),
    )
