"""The virtual hardware that is asked for: nodes with their CPUs, memory and distances."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LOCAL_DISTANCE = 10
REMOTE_DISTANCE = 21
MAX_DISTANCE = 254  # 255 means unreachable in ACPI
MAX_NODES = 64
MAX_CPUS = 255  # without an interrupt remapper
MIN_FIRST_NODE_MIB = 512
_UNITS_MIB = {"M": 1, "G": 1024, "T": 1024 * 1024}


@dataclass(frozen=True, slots=True)
class Machine:
    """CPUs and MiB of each node, and the matrix of distances between nodes (10 = local)."""

    cpus: tuple[int, ...]
    memory_mib: tuple[int, ...]
    distances: tuple[tuple[int, ...], ...]

    def cpu_ranges(self) -> list[tuple[int, int] | None]:
        """First and last CPU of each node, None for a node without CPUs."""
        ranges: list[tuple[int, int] | None] = []
        first = 0
        for count in self.cpus:
            ranges.append((first, first + count - 1) if count else None)
            first += count
        return ranges


def parse_machine(nodes: int, cpus: str, memory: str, distances: str | None) -> Machine:
    """Read the command line's texts. Raises ValueError that says what is wrong with which."""
    if not 1 <= nodes <= MAX_NODES:
        raise ValueError(f"--nodes is {nodes}, must be 1 to {MAX_NODES}")
    counts = _per_node(cpus, nodes, "--cpus-per-node", _parse_number)
    sizes = _per_node(memory, nodes, "--memory-per-node", parse_size_mib)
    if not 1 <= sum(counts) <= MAX_CPUS:
        raise ValueError(f"--cpus-per-node makes {sum(counts)} CPUs, must be 1 to {MAX_CPUS}")
    if sizes[0] < MIN_FIRST_NODE_MIB:
        raise ValueError(
            f"--memory-per-node gives node 0 {sizes[0]} MiB; the kernel boots from there and "
            f"needs {MIN_FIRST_NODE_MIB}M"
        )
    for node, (count, size) in enumerate(zip(counts, sizes, strict=True)):
        if not count and not size:
            raise ValueError(f"node {node} has neither CPUs nor memory")
    return Machine(counts, sizes, _parse_distances(distances, nodes))


def parse_size_mib(text: str) -> int:
    """Size in MiB of a text such as 512M, 2G or 0; ValueError otherwise."""
    if text == "0":
        return 0
    match = re.fullmatch(r"([1-9][0-9]{0,5})([MGT])", text.upper())
    if not match:
        raise ValueError(f"size {text!r} is not a number with M, G or T, such as 2G")
    return int(match[1]) * _UNITS_MIB[match[2]]


def _parse_number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", text):
        raise ValueError(f"{text!r} is not a number below 1000")
    return int(text)


def _per_node(text: str, nodes: int, option: str, parse: Callable[[str], int]) -> tuple[int, ...]:
    values = tuple(parse(part.strip()) for part in text.split(","))
    if len(values) == 1:
        return values * nodes
    if len(values) != nodes:
        raise ValueError(f"{option} lists {len(values)} values for {nodes} nodes")
    return values


def _parse_distances(text: str | None, nodes: int) -> tuple[tuple[int, ...], ...]:
    if text is None:
        return tuple(
            tuple(LOCAL_DISTANCE if a == b else REMOTE_DISTANCE for b in range(nodes))
            for a in range(nodes)
        )
    rows = tuple(
        tuple(_parse_number(cell.strip()) for cell in row.split(",")) for row in text.split(";")
    )
    if len(rows) != nodes or any(len(row) != nodes for row in rows):
        raise ValueError(f"--distances must be {nodes} rows of {nodes} numbers: 'a,b;c,d'")
    for a, row in enumerate(rows):
        for b, distance in enumerate(row):
            _check_distance(a, b, distance)
    return rows


def _check_distance(a: int, b: int, distance: int) -> None:
    # Linux ignores the whole table when one entry breaks these rules (slit_valid in
    # drivers/acpi/numa/srat.c), so a mistake would pass unnoticed.
    if a == b and distance != LOCAL_DISTANCE:
        raise ValueError(f"--distances gives {distance} from node {a} to itself, must be 10")
    if a != b and not LOCAL_DISTANCE < distance <= MAX_DISTANCE:
        raise ValueError(
            f"--distances gives {distance} from node {a} to {b}, must be 11 to {MAX_DISTANCE}"
        )
