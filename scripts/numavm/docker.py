"""Docker's programs for the guest: unpacked beside the system, where a guest finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numavm.packages import kept, unpack

if TYPE_CHECKING:
    from pathlib import Path

_PACKAGES = ("docker.io", "containerd", "runc", "tini")
_FOLDERS = ("usr/sbin", "usr/bin")


def docker_folders(cache: Path) -> list[str]:
    """Folders for PATH that hold `dockerd`, `docker` and what these call."""
    folder = kept(cache, "docker-1", "docker", _unpack)
    return [str(folder / each) for each in _FOLDERS]


def _unpack(work: Path) -> Path:
    for package in _PACKAGES:
        unpack(package, work / "docker")
    return work / "docker"
