"""The guest's first file system: what starts it, and what is to be run (cpio, newc format)."""

from __future__ import annotations

import lzma
import os
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from numavm.qemu import rw_tags

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numavm.options import Options

HERE = Path(__file__).resolve().parent
BOOT_MODULES = ("virtio_pci", "virtio_console", "9p", "9pnet_virtio", "overlay")
"""Modules needed to see the root; the guest loads all others from there with modprobe."""


def base_archive(busybox: Path, modules: Path) -> bytes:
    """The part that is the same in every run: busybox and the first modules.

    `modules` is the kernel's folder lib/modules/VERSION with its modules.dep.
    """
    files = {"bin/busybox": busybox.read_bytes()}
    for number, path in enumerate(boot_modules((modules / "modules.dep").read_text())):
        content = (modules / path).read_bytes()
        if path.endswith(".xz"):
            content = lzma.decompress(content)
        name = Path(path).name.removesuffix(".xz")
        files[f"modules/{number:02}-{name}"] = content
    folders = ("bin", "dev", "job", "lower", "modules", "proc", "root", "run", "sys")
    return cpio(folders, files)


def boot_modules(modules_dep: str) -> list[str]:
    """Paths of the boot modules and what they need, in the order to load them."""
    needs: dict[str, tuple[str, list[str]]] = {}
    for line in modules_dep.splitlines():
        path, _, others = line.partition(":")
        needs[Path(path).name.partition(".")[0]] = (path, others.split())
    order: dict[str, None] = {}
    for name in BOOT_MODULES:
        if name in needs:  # else it is built into this kernel
            module, deps = needs[name]
            # Each of these needs only those to its right.
            order |= dict.fromkeys([*reversed(deps), module])
    return list(order)


def job_archive(options: Options, modules: Path) -> bytes:
    """The part of this run: the scripts, the folders to mount and the command."""
    files = {
        "init": (HERE / "init.sh").read_bytes(),
        "job/guest.sh": (HERE / "guest.sh").read_bytes(),
        "job/modules": os.fsencode(modules) + b"\n",
        "job/setup": os.fsencode(setup_script(options)),
        "job/command": os.fsencode(command_script(options)),
    }
    return cpio((), files | ({"job/systemd": b""} if options.systemd else {}))


def setup_script(options: Options) -> str:
    """Calls of the functions in guest.sh that this run needs."""
    lines = [f"share {tag} {shlex.quote(str(path))}" for tag, path in rw_tags(options.rw)]
    if options.disk_mib:
        lines.append("disk")
    return "".join(f"{line}\n" for line in lines)


def command_script(options: Options) -> str:
    """A shell script that becomes the command, its arguments and environment exactly as given."""
    environment = (f"{name}={value}" for name, value in options.environment.items())
    words = shlex.join(["/usr/bin/env", "-i", *environment, *options.command])
    return f"cd {shlex.quote(str(options.cwd))} || exit 125\nexec {words}\n"


def cpio(folders: Iterable[str], files: dict[str, bytes]) -> bytes:
    """An archive of executable files. Archives one after the other are read as one."""
    parts = [_entry(name, stat.S_IFDIR | 0o755, b"") for name in folders]
    parts += [_entry(name, stat.S_IFREG | 0o755, content) for name, content in files.items()]
    parts.append(_entry("TRAILER!!!", 0, b""))
    return b"".join(parts)


def _entry(name: str, mode: int, content: bytes) -> bytes:
    # Fields and padding: Documentation/driver-api/early-userspace/buffer-format.rst. No two
    # entries are links of one file, so all may have the inode number 0.
    path = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return _padded(header) + _padded(content)


def _padded(part: bytes) -> bytes:
    return part + b"\0" * (-len(part) % 4)
