"""What has to be there before a guest can start: packages, and a kernel with its files, cached."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from numavm import VmError
from numavm.initrd import base_archive

# qemu, mkfs.ext4, depmod and modprobe, what unpacks kernels; then what commands in the guest expect.
PACKAGES = ("qemu-system-x86", "e2fsprogs", "kmod", "xz-utils", "zstd", "numactl", "python3-bpfcc")
LAYOUT = "kernels-1"
"""Name of the cache's folder; another number when what is in it changes."""
_UNPACKERS = {b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip"}


class Kernel:
    """A kernel in the cache: what QEMU loads, and the modules."""

    def __init__(self, folder: Path) -> None:
        self.vmlinux = folder / "vmlinux"
        self.initrd = folder / "initrd"
        self.modules = folder / "lib" / "modules" / folder.name


def prepare(kernel: str) -> Kernel:
    """Install and fetch what is missing, and find the newest kernel that starts with `kernel`."""
    with _locked(cache_folder()) as cache:
        _install_packages()
        kernels = cache / LAYOUT
        kernels.mkdir(exist_ok=True)
        # One in the cache is good enough: asking apt for a newer one costs time in every run.
        version = newest((path.name for path in kernels.iterdir()), kernel)
        if version is None:
            version = _newest_packaged(kernel)
            _fetch_kernel(kernels, version)
        return Kernel(kernels / version)


def cache_folder() -> Path:
    """Folder of everything that is kept between runs."""
    own = os.environ.get("NUMATRACE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(own) if own else Path(base) / "numatrace").resolve() / "numa-vm"


def newest(versions: Iterable[str], wanted: str) -> str | None:
    """The newest of `versions` (such as 6.1.0-56-amd64) that is `wanted` or starts with it."""
    # Not the rt and cloud flavours; the cloud's lacks 9p, through which the guest sees its files.
    plain = re.compile(re.escape(wanted) + r"(?:[.+-][0-9.+~a-z]*)?(?:-[0-9][0-9.a-z]*)?(?:-amd64)?")
    found = [
        version
        for version in versions
        if plain.fullmatch(version) and not re.search(r"-(rt|cloud)\b", version)
    ]
    return max(found, key=_natural, default=None)


def _natural(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]+", version)]


@contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _install_packages() -> None:
    missing = [name for name in PACKAGES if not _installed(name)]
    if missing:
        _say(f"installing {' '.join(missing)}")
        _apt(["install", "-y", "--no-install-recommends", *missing])


def _installed(package: str) -> bool:
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    try:
        result = subprocess.run(query, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise VmError(
            "numa-vm gets its programs and kernel from Debian's packages, but there is no dpkg here; "
            "run it on Debian, or in a Debian container"
        ) from error
    return result.stdout == "installed"


def _apt(arguments: list[str], cwd: Path | None = None) -> None:
    """Run apt-get as root, once more with fresh package lists when it fails."""
    commands = [_as_root(["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", *arguments])]
    commands += [_as_root(["apt-get", "-q", "update"]), commands[0]]
    for command in commands:
        # Its output is not the command's: to stderr.
        result = subprocess.run(command, stdout=sys.stderr, check=False, cwd=cwd)
        if result.returncode == 0 and command is commands[0]:
            return
    raise VmError(f"apt-get {' '.join(arguments)} failed, see above; run it yourself, then again")


def _as_root(command: list[str]) -> list[str]:
    command = ["env", "DEBIAN_FRONTEND=noninteractive", *command]
    return ["sudo", *command] if os.geteuid() != 0 and shutil.which("sudo") else command


def _newest_packaged(kernel: str) -> str:
    for refresh in (False, True):
        if refresh:
            _apt(["update"])
        search = ["apt-cache", "search", "--names-only", "^linux-image-[0-9].*-amd64-unsigned$"]
        lines = subprocess.run(search, capture_output=True, text=True, check=True).stdout
        names = (line.split()[0] for line in lines.splitlines() if line.strip())
        version = newest(
            (name.removeprefix("linux-image-").removesuffix("-unsigned") for name in names), kernel
        )
        if version:
            return version
    raise VmError(
        f"no package linux-image-{kernel}*-amd64-unsigned; "
        "`apt-cache search linux-image-.*unsigned` lists what --kernel can be"
    )


def _fetch_kernel(kernels: Path, version: str) -> None:
    _say(f"fetching kernel {version}")
    with tempfile.TemporaryDirectory(dir=kernels.parent) as name:
        work = Path(name)
        _unpack_package(f"linux-image-{version}-unsigned", work / "kernel")
        _unpack_package("busybox-static", work / "busybox")
        folder = work / version
        folder.mkdir()
        usr = "usr/" if (work / "kernel/usr/lib/modules").is_dir() else ""
        (work / f"kernel/{usr}lib").rename(folder / "lib")
        _run(["depmod", "-b", str(folder), version])
        image = (work / f"kernel/boot/vmlinuz-{version}").read_bytes()
        (folder / "vmlinux").write_bytes(vmlinux(image))
        busybox = next((work / "busybox").glob("**/bin/busybox"))
        (folder / "initrd").write_bytes(base_archive(busybox, folder / "lib/modules" / version))
        folder.rename(kernels / version)


def _unpack_package(package: str, target: Path) -> None:
    # Unpacked, not installed: a kernel must not enter /boot, and busybox-static replaces busybox.
    target.mkdir()
    _apt(["-o", "APT::Sandbox::User=root", "download", package], cwd=target)
    _run(["dpkg", "-x", str(next(target.glob("*.deb"))), str(target)])


def vmlinux(image: bytes) -> bytes:
    """The uncompressed kernel in a bzImage.

    Offsets: Documentation/arch/x86/boot.rst (setup_sects, payload_offset, payload_length).
    """
    if image[0x202:0x206] != b"HdrS":
        raise VmError("the kernel package's vmlinuz is not a bzImage")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    unpacker = next((name for magic, name in _UNPACKERS.items() if payload.startswith(magic)), None)
    if unpacker is None:
        raise VmError(f"the kernel is compressed in an unknown way ({payload[:4].hex()})")
    # The kernel's build appends the unpacked size, 4 bytes that the unpackers do not know.
    data = payload if unpacker == "gzip" else payload[:-4]
    return subprocess.run([unpacker, "-dc"], input=data, stdout=subprocess.PIPE, check=True).stdout


def tool(name: str) -> str:
    """Path of a program that may be in a folder that users do not have in their PATH."""
    program = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise VmError(f"{name} is not there although its package is installed; is PATH right?")
    return program


def _run(command: list[str]) -> None:
    subprocess.run([tool(command[0]), *command[1:]], stdout=sys.stderr, check=True)


def _say(text: str) -> None:
    sys.stderr.write(f"numa-vm: {text}\n")
