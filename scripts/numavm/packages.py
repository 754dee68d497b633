"""Debian's packages: installing what is missing, unpacking what must not be installed."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from numavm import VmError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# qemu, mkfs.ext4, depmod, what unpacks kernels; then what commands in the guest expect.
PACKAGES = ("qemu-system-x86", "e2fsprogs", "kmod", "xz-utils", "zstd", "numactl", "python3-bpfcc")

AS_CALLER = ("-o", "APT::Sandbox::User=root")
"""For apt-get: else root's downloads are another user's, who may not write to the cache."""
WORK_PREFIX = "work-"
"""How the names of folders start that are worth nothing once their maker has ended."""


def cache_folder() -> Path:
    """Folder of everything that is kept between runs."""
    own = os.environ.get("NUMATRACE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(own) if own else Path(base) / "numatrace").resolve() / "numa-vm"


@contextmanager
def locked_cache() -> Iterator[Path]:
    """The cache folder, for one process at a time."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in folder.glob(f"{WORK_PREFIX}*"):  # of a run that was killed
            shutil.rmtree(leftover)
        yield folder


def kept(cache: Path, name: str, what: str, make: Callable[[Path], Path]) -> Path:
    """The folder of this name in the cache; made where it is not there, and whole or not there.

    `make` gets a folder to work in, and returns what is to be kept.
    """
    folder = cache / name
    if not folder.exists():
        say(f"fetching {what}")
        with tempfile.TemporaryDirectory(dir=cache, prefix=WORK_PREFIX) as work:
            make(Path(work)).rename(folder)
    return folder


def install_packages() -> None:
    """Install those of PACKAGES that are not there."""
    missing = sorted(set(PACKAGES) - _installed())
    if missing:
        say(f"installing {' '.join(missing)}")
        install = ["install", "-y", "--no-install-recommends", *missing]
        try:
            apt(install)
        except VmError:  # the package lists may be old, or none at all
            apt(["update"])
            apt(install)


def unpack(package: str, target: Path, options: Sequence[str] = ()) -> None:
    """Download a package and unpack it in `target`, with further `options` for apt-get."""
    target.mkdir(exist_ok=True)
    download = ["apt-get", "-q", *options, *AS_CALLER, "download", package]
    if subprocess.run(download, stdout=sys.stderr, check=False, cwd=target).returncode:
        apt(["update"])  # with old lists, it asks for a version that is no longer there
        subprocess.run(download, stdout=sys.stderr, check=True, cwd=target)
    for file in target.glob("*.deb"):
        run([tool("dpkg"), "-x", str(file), str(target)])
        file.unlink()


def apt(arguments: Sequence[str]) -> None:
    """Run apt-get as root. Raises VmError when it fails."""
    command = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]
    command += ["-o", "DPkg::Lock::Timeout=300"]
    if os.geteuid() != 0 and shutil.which("sudo"):
        command = ["sudo", *command]
    command += arguments
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        raise VmError(f"apt-get {' '.join(arguments)} failed, see above; mend that, then run again")


def tool(name: str) -> str:
    """Path of a program that may be in a folder that users do not have in their PATH."""
    program = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise VmError(f"{name} is not there although its package is installed; is PATH right?")
    return program


def run(command: Sequence[str]) -> None:
    """Run a command, its output to stderr: stdout is for the guest's."""
    subprocess.run(command, stdout=sys.stderr, check=True)


def say(text: str) -> None:
    """Tell the user, on stderr."""
    sys.stderr.write(f"numa-vm: {text}\n")


def _installed() -> set[str]:
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n", *PACKAGES]
    try:
        result = subprocess.run(query, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise VmError(
            "programs and kernel come from Debian's packages, but there is no dpkg here; "
            "run this on Debian, or in a Debian container"
        ) from error
    lines = (line.partition(" ") for line in result.stdout.splitlines())
    return {package for status, _, package in lines if status == "installed"}
