"""Which command installs what on this distribution."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from numatrace.model.text import printable

Tool = Literal["bcc", "perf", "numactl"]

OS_RELEASE_LIMIT = 1 << 16
"""Bytes of os-release that are read; a real one has under two thousand."""

COMMANDS: dict[str, dict[Tool, str]] = {
    "debian": {
        "bcc": "apt install python3-bpfcc",
        "perf": "apt install linux-perf",
        "numactl": "apt install numactl",
    },
    "ubuntu": {
        "bcc": "apt install python3-bpfcc",
        "perf": 'apt install "linux-tools-$(uname -r)"',
        "numactl": "apt install numactl",
    },
    "fedora": {
        "bcc": "dnf install python3-bcc",
        "perf": "dnf install perf",
        "numactl": "dnf install numactl",
    },
    "suse": {
        "bcc": "zypper install python3-bcc",
        "perf": "zypper install perf",
        "numactl": "zypper install numactl",
    },
    "arch": {
        "bcc": "pacman -S python-bcc",
        "perf": "pacman -S perf",
        "numactl": "pacman -S numactl",
    },
    "alpine": {
        "bcc": "apk add py3-bcc",
        "perf": "apk add perf",
        "numactl": "apk add numactl-tools",
    },
}
"""Install commands by family of distributions, as root."""

FAMILY = {"rhel": "fedora", "centos": "fedora", "opensuse": "suse", "sles": "suse"}
"""os-release ids that are another family's by a different name."""

ANYWHERE: dict[Tool, str] = {
    "bcc": "Install bcc's Python 3 bindings from this distribution's packages, not from PyPI "
    "(python3-bpfcc, python3-bcc or python-bcc)",
    "perf": "Install the package that holds the kernel's `perf` program",
    "numactl": "Install the package that holds `numactl` and `numastat`",
}
"""The step on a distribution we do not know."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution by its os-release: `ids` is its own id, then those it says it is like."""

    name: str
    ids: tuple[str, ...]

    @property
    def family(self) -> str | None:
        """The key in `COMMANDS` of the first id that we know, or None."""
        # openSUSE has one id per product, such as opensuse-leap.
        known = (FAMILY.get(id_.split("-")[0], id_) for id_ in self.ids)
        return next((id_ for id_ in known if id_ in COMMANDS), None)

    def install(self, tool: Tool, *, root: bool = True) -> str:
        """The command that installs the tool, with sudo unless `root`; a step when unknown."""
        if self.family is None:
            return ANYWHERE[tool]
        command = COMMANDS[self.family][tool]
        return command if root else f"sudo {command}"


def read_distribution(root: Path = Path("/")) -> Distribution:
    """The distribution installed below `root`, from etc/os-release or usr/lib/os-release.

    See os-release(5). A missing or damaged file gives an unknown distribution, never an error.
    """
    values: dict[str, str] = {}
    for place in ("etc/os-release", "usr/lib/os-release"):
        values = _values(root / place)
        if values:
            break
    ids = [values.get("ID", ""), *values.get("ID_LIKE", "").split()]
    name = printable(values.get("PRETTY_NAME", "") or values.get("NAME", ""), 80)
    return Distribution(
        name or "an unknown distribution",
        tuple(id_ for id_ in ids[:16] if re.fullmatch(r"[a-z0-9._-]{1,64}", id_)),
    )


def _values(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            text = file.read(OS_RELEASE_LIMIT).decode("utf-8", "replace")
    except OSError:
        return {}
    return dict(pair for line in text.splitlines() if (pair := _assignment(line)))


def _assignment(line: str) -> tuple[str, str] | None:
    key, equals, value = line.strip().partition("=")
    if not equals or not re.fullmatch(r"[A-Z0-9_]{1,64}", key):
        return None
    try:
        words = shlex.split(value)
    except ValueError:  # a quote that is never closed
        return None
    return (key, words[0]) if words else None
