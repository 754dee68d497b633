"""Debian's kernels, unpacked and made ready to boot, in the cache."""

from __future__ import annotations

import re
import struct
import subprocess
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from numavm import VmError
from numavm.initrd import base_archive
from numavm.packages import apt, kept, run, tool, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LAYOUT = "kernels-1"
"""Name of the folder in the cache; another number when what is in it changes."""
_UNPACKERS = {b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip"}


@dataclass(frozen=True, slots=True)
class Kernel:
    """A folder in the cache, named as `uname -r` says in the guest."""

    folder: Path

    @property
    def vmlinux(self) -> Path:
        """What QEMU boots."""
        return self.folder / "vmlinux"

    @property
    def initrd(self) -> Path:
        """The part of the initrd that is the same in every run."""
        return self.folder / "initrd"

    @property
    def modules(self) -> Path:
        """What /lib/modules/VERSION is in the guest."""
        return self.folder / "lib" / "modules" / self.folder.name


def get_kernel(wanted: str, cache: Path) -> Kernel:
    """The newest kernel in the cache that is `wanted` or starts with it, else from a package."""
    kernels = cache / LAYOUT
    kernels.mkdir(exist_ok=True)
    # One in the cache is good enough: asking apt for a newer one would cost time in every run.
    version = newest((path.name for path in kernels.iterdir()), wanted)
    if version is None:
        version = _newest_package(wanted)
    name = f"{LAYOUT}/{version}"
    return Kernel(kept(cache, name, f"kernel {version}", partial(_make_ready, version)))


def newest(versions: Iterable[str], wanted: str) -> str | None:
    """The newest of `versions`, such as 6.1.0-56-amd64, that is `wanted` or starts with it."""
    # The letters after the digits keep out the flavours rt and cloud; the cloud's lacks 9p,
    # through which the guest sees its files.
    plain = re.compile(r"[0-9][0-9a-z.+~]*(-[0-9][0-9a-z.+~]*)?(-amd64)?")
    start = re.compile(re.escape(wanted) + r"(?![0-9a-z])")
    found = [version for version in versions if plain.fullmatch(version) and start.match(version)]
    return max(found, key=lambda text: [int(n) for n in re.findall("[0-9]+", text)], default=None)


def vmlinux(image: bytes) -> bytes:
    """The uncompressed kernel in a bzImage.

    Offsets: Documentation/arch/x86/boot.rst (setup_sects, header, payload_offset, payload_length).
    """
    if image[0x202:0x206] != b"HdrS":
        raise VmError("the kernel package's vmlinuz is not a bzImage; try another --kernel")
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = ((image[0x1F1] or 4) + 1) * 512 + offset
    payload = image[start : start + length]
    unpacker = next((name for magic, name in _UNPACKERS.items() if payload.startswith(magic)), None)
    if unpacker is None:
        raise VmError(f"this kernel's compression is unknown ({payload[:4].hex()}); try another")
    if unpacker != "gzip":
        payload = payload[:-4]  # the size, appended by the kernel's build; gzip has its own there
    command = [tool(unpacker), "-dc"]
    return subprocess.run(command, input=payload, stdout=subprocess.PIPE, check=True).stdout


def _newest_package(wanted: str) -> str:
    search = ["apt-cache", "search", "--names-only", "^linux-image-[0-9].*-amd64-unsigned$"]
    for refresh in (False, True):
        if refresh:
            apt(["update"])
        lines = subprocess.run(search, capture_output=True, text=True, check=True).stdout
        names = (line.partition(" ")[0] for line in lines.splitlines())
        version = newest(
            (name.removeprefix("linux-image-").removesuffix("-unsigned") for name in names), wanted
        )
        if version:
            return version
    raise VmError(
        f"no package is named linux-image-{wanted}*-amd64-unsigned; see what there is with "
        "apt-cache search --names-only '^linux-image-.*amd64-unsigned'"
    )


def _make_ready(version: str, work: Path) -> Path:
    # Unpacked, not installed: a kernel must not get into /boot, nor busybox-static replace busybox.
    unpack(f"linux-image-{version}-unsigned", work / "package")
    unpack("busybox-static", work / "busybox")
    folder = work / version
    folder.mkdir()
    merged = (work / "package/usr/lib/modules").is_dir()
    (work / "package" / ("usr/lib" if merged else "lib")).rename(folder / "lib")
    run([tool("depmod"), "-b", str(folder), version])
    image = (work / f"package/boot/vmlinuz-{version}").read_bytes()
    (folder / "vmlinux").write_bytes(vmlinux(image))
    busybox = next((work / "busybox").glob("**/bin/busybox"))
    (folder / "initrd").write_bytes(base_archive(busybox, folder / "lib/modules" / version))
    return folder
