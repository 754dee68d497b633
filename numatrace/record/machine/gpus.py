"""GPUs and accelerators on the PCI bus, and the NUMA node that each hangs at, from sysfs."""

from __future__ import annotations

from pathlib import Path

from numatrace.model.cpulist import NODE_LIMIT
from numatrace.model.machine import DEVICES_LIMIT, Device, Devices
from numatrace.record.machine.files import read_integer, read_link, read_names, read_text

ROOT = Path("/")
PCI = "sys/bus/pci/devices"
PCI_DEVICES = 8192
"""Entries of the bus that are looked at."""
KINDS = {"0x03": "display", "0x12": "accelerator"}
"""Base classes of PCI devices (linux/pci_ids.h): display controllers, processing accelerators."""


def read_devices(root: Path = ROOT) -> Devices:
    """Return the GPUs and accelerators, by address; a display chip for consoles is one too.

    A device whose firmware names no node has none: the kernel says -1 then.
    """
    found: list[Device] = []
    for address in sorted(read_names(root / PCI)[:PCI_DEVICES]):
        folder = root / PCI / address
        kind = KINDS.get((read_text(folder / "class", 16) or "")[:4])
        if kind is None or len(address) > 32:
            continue
        driver = read_link(folder / "driver").rpartition("/")[2][:64]
        node = read_integer(folder / "numa_node")
        found.append(Device(address, kind, driver, node if (node or 0) < NODE_LIMIT else None))
    return Devices(tuple(found[:DEVICES_LIMIT]))
