"""Docker's programs for the guest: unpacked beside the system, where a guest finds them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from numavm.packages import WORK_PREFIX, say, unpack

_PACKAGES = ("docker.io", "containerd", "runc", "tini")
_FOLDERS = ("usr/sbin", "usr/bin")


def docker_folders(cache: Path) -> list[str]:
    """Folders for PATH that hold `dockerd`, `docker` and what these call."""
    folder = cache / "docker-1"
    if not folder.exists():
        say("fetching docker")
        with tempfile.TemporaryDirectory(dir=cache, prefix=WORK_PREFIX) as work:
            unpacked = Path(work) / "docker"
            for package in _PACKAGES:
                unpack(package, unpacked)
            unpacked.rename(folder)
    return [str(folder / each) for each in _FOLDERS]
