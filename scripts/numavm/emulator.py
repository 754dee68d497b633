"""Which QEMU to use: the system's, or a newer one unpacked beside it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from numavm import VmError
from numavm.packages import AS_CALLER, kept, run, say, unpack

SYSTEM_QEMU = "qemu-system-x86_64"
# Before 8.1 (commit deba78709ae8 "accel/tcg: Always lock pages before translation") a virtual CPU
# may go on with code that another one has just patched. A kernel that switches a tracepoint or a
# static branch then dies with "int3: 0000": seen once in some sixty starts with 7.2.
SAFE = (8, 1)
_PACKAGES = ("qemu-system-x86", "qemu-system-data")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def get_qemu(cache: Path) -> str:
    """The system's QEMU when SAFE, else that of the backports, else the system's after all."""
    if version(SYSTEM_QEMU) >= SAFE:
        return SYSTEM_QEMU
    try:
        folder = kept(cache, "qemu-1", "a newer QEMU", lambda work: _unpack_backport(work / "qemu"))
    except (VmError, subprocess.CalledProcessError, OSError) as error:
        say(f"{error}\nusing the system's QEMU: guests crash now and then before version 8.1")
        return SYSTEM_QEMU
    return str(_program(folder))


def version(qemu: str) -> tuple[int, int]:
    """Major and minor version of a QEMU program."""
    text = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"version ([0-9]+)\.([0-9]+)", text)
    if match is None:
        raise VmError(f"{qemu} --version says {text[:80]!r}, no version")
    return int(match[1]), int(match[2])


def backports_source(targets: str) -> str:
    """A line for sources.list, from what `apt-get indextargets` prints as "REPO_URI CODENAME".

    Raises VmError when none of them is a Debian release that can have backports.
    """
    for line in targets.splitlines():
        match = re.fullmatch(r"(\S+) ([a-z]+)", line)
        if match:
            option = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
            return f"deb {option}{match[1]} {match[2]}-backports main\n"
    raise VmError("apt knows no Debian release, so none of its backports")


def _unpack_backport(folder: Path) -> Path:
    # Lists of its own: the system's sources stay as they are.
    folder.mkdir()
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True)
    query = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)"]
    query += ["Created-By: Packages", "Origin: Debian", "Component: main"]
    targets = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    (folder / "sources.list").write_text(backports_source(targets))
    options = ["-o", f"Dir::Etc::SourceList={folder / 'sources.list'}"]
    options += ["-o", "Dir::Etc::SourceParts=/dev/null", "-o", f"Dir::State::Lists={lists}"]
    options += ["-o", "Dir::Cache::PkgCache=", "-o", "Dir::Cache::SrcPkgCache="]
    run(["apt-get", "-q", *options, *AS_CALLER, "update"])
    for package in _PACKAGES:
        unpack(package, folder, options)
    if version(str(_program(folder))) < SAFE:
        raise VmError("the backports have no newer QEMU")
    return folder


def _program(folder: Path) -> Path:
    return folder / "usr" / "bin" / SYSTEM_QEMU
