"""TCP sockets of processes: the ports on which they listen, and who is connected to a port.

From /proc/PID/net/tcp and tcp6, which show the sockets of PID's network namespace, and from the
socket numbers among a process's open files; see proc_pid_net(5). Files that vanish are empty.
"""

from __future__ import annotations

import re
import sys
import time
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, NamedTuple

from numatrace.model.process import PORT_COUNT
from numatrace.record.machine.files import read_bytes, read_link, read_names
from numatrace.record.machine.procfs import PROC

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

LISTENING_BYTES = 1 << 19
"""Of a socket table that are looked through for listeners: the kernel shows them first."""
TABLE_BYTES = 4 << 20
"""Of a socket table that are looked through for connections: some 28,000 of them."""
DESCRIPTORS = 4096
"""Open files of one process that are looked at."""

_ADDRESS = rb"([0-9A-F]{32}|[0-9A-F]{8}):([0-9A-F]{4})"
_INODE = rb" \S+ \S+ \S+ +\d{1,10} +\d{1,10} (\d{1,20}) "
_LISTENING = re.compile(rb"^ *\d+: " + _ADDRESS + rb" \S+ 0A" + _INODE, re.MULTILINE)
_SOCKET = re.compile(r"socket:\[(\d{1,20})\]")

Address = IPv4Address | IPv6Address


class Listen(NamedTuple):
    """A port on which a process takes connections, and the address that it gave for them."""

    port: int
    address: Address


class Network:
    """The TCP sockets of one network namespace, read when made.

    Reading costs the kernel a walk over its table of connections, 5 ms on a machine of 24 GiB.
    """

    def __init__(self, pid: int, proc: Path = PROC) -> None:
        names = ("tcp", "tcp6")
        self._tables = [
            read_bytes(f"{proc}/{pid}/net/{name}", TABLE_BYTES) or b"" for name in names
        ]
        self.listeners = {
            int(inode): Listen(int(port, 16), _address(address))
            for table in self._tables
            for address, port, inode in _LISTENING.findall(table, 0, LISTENING_BYTES)
        }
        """Listening sockets by number."""

    def connected(self, to: Collection[int]) -> set[int]:
        """Return the sockets that are connected to one of these ports from this machine.

        From this machine: to a loopback address, or from an address to itself.
        """
        if not to:
            return set()
        numbers = b"|".join(b"%04X" % port for port in sorted(to)[:PORT_COUNT])
        pattern = re.compile(
            rb"^ *\d+: " + _ADDRESS + rb" ([0-9A-F]+):(?:" + numbers + rb") 01" + _INODE,
            re.MULTILINE,
        )
        return {
            int(inode)
            for table in self._tables
            for local, _port, remote, inode in pattern.findall(table)
            if inode != b"0" and (remote == local or _is_loopback(remote))
        }


def networks(pids: Iterable[int], proc: Path = PROC) -> dict[str, Network]:
    """Return the network namespaces of those processes that have sockets, by `network_name`."""
    one_of = {network_name(pid, proc): pid for pid in pids if socket_inodes(pid, proc)}
    return {name: Network(pid, proc) for name, pid in one_of.items()}


def listening(
    pids: Iterable[int], spaces: dict[str, Network], proc: Path = PROC
) -> dict[int, tuple[Listen, ...]]:
    """Return the listening sockets of those processes that have any, by port."""
    found = {}
    for pid in pids:
        space = spaces.get(network_name(pid, proc))
        owned = socket_inodes(pid, proc) & space.listeners.keys() if space is not None else set()
        if space is not None and owned:
            sockets = {space.listeners[inode] for inode in owned}
            found[pid] = tuple(sorted(sockets, key=lambda each: (each.port, str(each.address))))
    return found


def port_numbers(listens: Iterable[Listen]) -> tuple[int, ...]:
    """Return the port numbers, ascending, each once; at most as many as a `process` row takes."""
    return tuple(sorted({each.port for each in listens})[:PORT_COUNT])


def network_name(pid: int | str, proc: Path = PROC) -> str:
    """Return the name of a process's network namespace; "" if it cannot be told."""
    return read_link(proc / str(pid) / "ns/net")


def socket_inodes(pid: int, proc: Path = PROC, deadline: float = float("inf")) -> set[int]:
    """Return the numbers of a process's open sockets; those found until `deadline` (monotonic)."""
    folder = proc / str(pid) / "fd"
    found = set()
    for name in read_names(folder)[:DESCRIPTORS]:
        if match := _SOCKET.fullmatch(read_link(folder / name)):
            found.add(int(match[1]))
        if time.monotonic() > deadline:
            break
    return found


def _is_loopback(text: bytes) -> bool:
    if len(text) not in (8, 32):
        return False
    address = _address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _address(text: bytes) -> Address:
    # Each word of 32 bits is shown as the number that it is on this CPU.
    data = bytes.fromhex(text.decode("ascii"))
    words = [data[at : at + 4] for at in range(0, len(data), 4)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    return ip_address(b"".join(words))
