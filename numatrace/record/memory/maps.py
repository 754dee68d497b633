"""Read and compare the memory maps of a process, as /proc/PID/maps tells them."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from numatrace.model.errors import CapabilityError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_MAPS_BYTES = 64 << 20
"""What is read of one maps file: 65,530 mappings (vm.max_map_count) of ordinary path length."""

CACHED_LINES = 1 << 14
"""Lines that are parsed once only: from one snapshot to the next, nearly all stay the same."""


class Mapping(NamedTuple):
    r"""One mapping: addresses in bytes, `end` exclusive; `offset` in bytes in the file.

    `dev` is comparable with `st_dev` (but on btrfs, where the two differ). `path` is the kernel's
    text, with its `\012` for a newline, its ` (deleted)` and its names such as `[heap]`; bytes
    that are not UTF-8 appear as `\xNN`.
    """

    start: int
    end: int
    perms: str
    offset: int
    dev: int
    inode: int
    path: str

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return self.end - self.start


@lru_cache(maxsize=CACHED_LINES)
def parse_line(line: bytes) -> Mapping | None:
    """One line of /proc/PID/maps, or None where it is not one (the cut-off last line of a copy)."""
    fields = line.split(None, 5)
    if len(fields) < 5:
        return None
    try:
        start, end = (int(text, 16) for text in fields[0].split(b"-"))
        major, minor = (int(text, 16) for text in fields[3].split(b":"))
        path = fields[5].decode("utf-8", "backslashreplace") if len(fields) == 6 else ""
        perms = fields[1].decode("ascii")
        offset, inode = int(fields[2], 16), int(fields[4])
        mapping = Mapping(start, end, perms, offset, os.makedev(major, minor), inode, path)
    except (ValueError, OverflowError):
        return None
    return mapping if 0 <= start < end else None


def parse_maps(data: bytes) -> tuple[Mapping, ...]:
    """The mappings of a maps file, in its order. Lines that are not mappings are left out.

    The kernel escapes newlines in paths, and only these: other line separators are part of a path.
    """
    return tuple(mapping for line in data.split(b"\n") if (mapping := parse_line(line)))


def diff_maps(
    previous: Iterable[Mapping], current: Iterable[Mapping]
) -> tuple[list[Mapping], list[Mapping]]:
    """What came and what went between two snapshots, as (added, removed), each in its order.

    A mapping that grew, moved or changed its permissions is in both.
    """
    before, after = tuple(previous), tuple(current)
    were, are = set(before), set(after)
    added = [mapping for mapping in after if mapping not in were]
    removed = [mapping for mapping in before if mapping not in are]
    return added, removed


def _read_all(path: Path) -> bytes:
    """The file up to MAX_MAPS_BYTES, cut after a whole line."""
    parts: list[bytes] = []
    left = MAX_MAPS_BYTES
    with path.open("rb", buffering=0) as file:
        while left > 0 and (part := file.read(min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
    data = b"".join(parts)
    return data if left > 0 else data[: data.rfind(b"\n") + 1]


def read_maps(pid: int, root: str | Path = "/") -> Sequence[Mapping] | None:
    """The mappings of a process now, or None when it is gone (or a zombie: it has no memory).

    `root`: where `proc` is. Raises CapabilityError when reading is not permitted.
    """
    try:
        mappings = parse_maps(_read_all(Path(root) / "proc" / str(pid) / "maps"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    except PermissionError as error:
        raise CapabilityError(
            f"cannot read the memory map of process {pid}",
            f"/proc/{pid}/maps: {error.strerror}",
            "record as root (sudo), or with CAP_SYS_PTRACE",
        ) from error
    return mappings or None
