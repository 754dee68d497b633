"""Checks of bcc: the distribution's bindings are there, and they load."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from numatrace.record.bpf.bcc_import import find_bcc, import_bcc, is_real_bcc
from numatrace.record.checks.capability import Capability, Host, one_line
from numatrace.record.machine.distribution import read_distribution

LOST = "recording: bcc compiles and loads the BPF programs"


def find_namesake() -> Path | None:
    """A package of this interpreter that is only named bcc (the one on PyPI is), or None."""
    try:
        spec = importlib.util.find_spec("bcc")
    except (ImportError, ValueError):  # ValueError: a half-imported module
        return None
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    return None if is_real_bcc(package) else package


def bcc_version(package: Path) -> str:
    """The version in the package's version.py, read without importing it; "" without one."""
    try:
        with (package / "version.py").open(encoding="utf-8", errors="replace") as file:
            match = re.search(r"""__version__\s*=\s*["']([\w.+~-]{1,40})["']""", file.read(4096))
    except OSError:
        return ""
    return match[1] if match else ""


def check_bcc(host: Host) -> Capability:
    """Whether bcc's bindings are there; quick, since it imports nothing."""
    folder = find_bcc(host.root)
    namesake = find_namesake()
    if folder is None:
        return _missing(host, namesake)
    version = bcc_version(folder / "bcc") or "of unknown version"
    return Capability("bcc", "bcc", "yes", f"{version}, in {one_line(str(folder))}")


def _missing(host: Host, namesake: Path | None) -> Capability:
    distribution = read_distribution(host.root)
    why = f"no package bcc in the folders of the system's Python (on {distribution.name})"
    if namesake is not None:
        why += f"; {_other(namesake)}"
    return Capability(
        "bcc",
        "bcc",
        "no",
        "not found",
        lost=LOST,
        why=why,
        todo=distribution.install("bcc", root=host.euid == 0),
    )


def _other(namesake: Path) -> str:
    return (
        f"{one_line(str(namesake))} is not the BPF Compiler Collection: the package named "
        "bcc on PyPI is something else"
    )


def check_libbcc(host: Host) -> Capability:
    """Whether bcc really loads into this interpreter, with its library."""
    title = "bcc's library"
    folder = find_bcc(host.root)
    if folder is None:
        return Capability(
            "libbcc",
            title,
            "no",
            "not tried",
            lost=LOST,
            why="bcc is not there; see bcc",
            todo=read_distribution(host.root).install("bcc", root=host.euid == 0),
        )
    try:
        version = import_bcc(folder).BPF and bcc_version(folder / "bcc")
    except Exception as error:  # a damaged package may raise anything
        return _does_not_load(host, folder, error)
    return Capability("libbcc", title, "yes", f"libbcc loads, version {version or 'unknown'}")


def _does_not_load(host: Host, folder: Path, error: Exception) -> Capability:
    distribution = read_distribution(host.root)
    return Capability(
        "libbcc",
        "bcc's library",
        "no",
        "does not load",
        lost=LOST,
        why=one_line(f"importing {folder / 'bcc'}: {type(error).__name__}: {error}"),
        todo=distribution.install("bcc", root=host.euid == 0),
    )
