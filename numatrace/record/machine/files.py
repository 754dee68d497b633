"""Bounded reads of /proc and /sys that never raise: what cannot be read is None."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from numatrace.model.cpulist import parse_cpulist, parse_cpumask

if TYPE_CHECKING:
    from pathlib import Path

SMALL = 4096
"""Bytes that a one-line file of /proc or /sys has at most (one page, as sysfs has it)."""


def read_bytes(path: Path | str, limit: int) -> bytes | None:
    """Return at most the first `limit` bytes of a file.

    Reads with read(2), so that the kernel formats no more than what is asked for.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    try:
        return _read_all(fd, limit)
    except OSError:  # the process is gone (ESRCH), or the file is a directory
        return None
    finally:
        os.close(fd)


def _read_all(fd: int, limit: int) -> bytes:
    chunks = []
    while limit > 0:
        chunk = os.read(fd, min(limit, 1 << 16))
        if not chunk:
            break
        chunks.append(chunk)
        limit -= len(chunk)
    return b"".join(chunks)


def read_once(path: Path | str, size: int) -> str:
    """Return what a single read(2) of `size` bytes gives, as text; "" if it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return ""
    try:
        return os.read(fd, size).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def read_text(path: Path | str, limit: int = SMALL) -> str | None:
    """Return at most the first `limit` bytes of a file as text, lossily, stripped at the ends."""
    data = read_bytes(path, limit)
    return None if data is None else data.decode("utf-8", "replace").strip()


def read_link(path: Path) -> str:
    """Return where a symbolic link points, as lossy text; "" if it cannot be read."""
    try:
        return os.fsencode(path.readlink()).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def read_integer(path: Path | str) -> int | None:
    """Return the number that a file holds, or None if it holds anything else."""
    return to_integer(read_text(path, 64))


def to_integer(text: str | None) -> int | None:
    """Return a text of at most 20 decimal digits as a number, or None."""
    fits = text is not None and len(text) <= 20 and text.isascii() and text.isdecimal()
    return int(text) if fits and text is not None else None


def read_cpulist(path: Path | str, limit: int) -> tuple[int, ...] | None:
    """Return the numbers of a file with a list such as "0-3,8", or None."""
    text = read_text(path, 1 << 17)
    try:
        return None if text is None else parse_cpulist(text, limit)
    except ValueError:
        return None


def read_cpumask(path: Path | str, limit: int) -> tuple[int, ...] | None:
    """Return the numbers of a file with a mask such as "00000000,0000000f", or None."""
    text = read_text(path, 1 << 17)
    try:
        return None if text is None else parse_cpumask(text, limit)
    except ValueError:
        return None


def read_names(path: Path | str) -> tuple[str, ...]:
    """Return the names in a folder, unsorted; none if it cannot be read."""
    try:
        return tuple(os.listdir(path))  # noqa: PTH208 -- a Path per entry costs more than the read
    except (OSError, ValueError):
        return ()


def numbered(path: Path | str, prefix: str, limit: int) -> tuple[int, ...]:
    """Return the N of the entries `prefix`N in a folder, ascending and below `limit`."""
    names = (name for name in read_names(path) if name.startswith(prefix))
    found = (to_integer(name.removeprefix(prefix)) for name in names)
    return tuple(sorted(number for number in found if number is not None and number < limit))
