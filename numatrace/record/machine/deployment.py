"""Tells from a process's cgroup paths how it was started: systemd unit, container, pod.

Pure functions on strings. The paths are those of /proc/PID/cgroup, whose folders systemd, the
container runtimes and the kubelet name each in their own way.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from numatrace.model.process import Deployment, Manager

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_HEX = r"[0-9a-f]{64}"
_SCOPE_KINDS = {
    "docker": "docker",
    "libpod": "podman",
    "libpod-payload": "podman",
    "cri-containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
}
# docker-ID.scope, libpod-payload-ID, and containerd's SLICE:cri-containerd:ID outside of systemd.
_SCOPE = re.compile(rf"(?:.*:)?([a-z][a-z-]*)[-:]({_HEX})(?:\.scope)?")
_BARE_ID = re.compile(_HEX)
_POD = re.compile(r"(?:.*kubepods.*-)?pod([0-9a-f]{8}[-_].{27}|[0-9a-f]{32})(?:\.slice)?(?::.*)?")
# The characters that systemd allows in a unit's name, and LXC in a container's: a folder that a
# user made below a delegated one may be called anything.
_NAME = r"[A-Za-z0-9:_.\\@-]{1,255}"
_LXC = re.compile(rf"lxc\.payload\.({_NAME})")
_LXC_NAME = re.compile(_NAME)
_NSPAWN = re.compile(rf"systemd-nspawn@({_NAME})\.service")
_UNIT = re.compile(rf"{_NAME}\.(?:service|scope)")
_USER_MANAGER = re.compile(r"user@[0-9]+\.service")


class _Container(NamedTuple):
    kind: str
    id: str
    depth: int
    """How many folders of the path the container's own folder is down."""


def deployment(paths: Iterable[str]) -> Deployment:
    """Return what the cgroup paths of one process tell together; the first that tells counts.

    Raises nothing: a path of any shape is possible, and one that tells nothing gives "".
    """
    unit = ""
    manager: Manager = ""
    container_kind = container_id = pod = ""
    for path in paths:
        found = of_path(path)
        if not unit:
            unit, manager = found.unit, found.manager
        if not container_kind:
            container_kind, container_id = found.container_kind, found.container_id
        pod = pod or found.pod
    return Deployment(unit, manager, container_kind, container_id, pod)


def of_path(path: str) -> Deployment:
    """Return what one cgroup path tells."""
    folders = [unescape(each) for each in path.removesuffix(" (deleted)").split("/") if each]
    container = _container(folders)
    pod = next((match[1] for each in folders if (match := _POD.fullmatch(each))), "")
    unit, manager = _unit(folders, container)
    kind = "kubepods" if pod and container else container.kind if container else ""
    return Deployment(unit, manager, kind, container.id if container else "", pod.replace("_", "-"))


def unescape(folder: str) -> str:
    r"""Return a unit's name from its folder's.

    systemd puts a "_" before names that the cgroup file system has a use for (systemd.io,
    "Control Group APIs"); an escape such as \x2d belongs to the unit's name and stays.
    """
    return folder[1:] if folder.startswith("_") else folder


def _container(folders: Sequence[str]) -> _Container | None:
    # The deepest one: a container in a container is the process's own.
    for depth in range(len(folders), 0, -1):
        found = _container_at(folders, depth)
        if found is not None:
            return found
    return None


def _container_at(folders: Sequence[str], depth: int) -> _Container | None:
    folder = folders[depth - 1]
    above = folders[depth - 2] if depth > 1 else ""
    if match := _SCOPE.fullmatch(folder):
        kind = _SCOPE_KINDS.get(match[1])  # none for libpod-conmon, which watches the container
        return _Container(kind, match[2], depth) if kind else None
    if _BARE_ID.fullmatch(folder):
        kind = "docker" if above == "docker" or "ecs" in folders[:2] else "containerd"
        return _Container(kind, folder, depth)
    for kind, pattern in (("lxc", _LXC), ("nspawn", _NSPAWN)):
        if match := pattern.fullmatch(folder):
            return _Container(kind, match[1], depth)
    if above in ("lxc", "lxc.payload") and _LXC_NAME.fullmatch(folder):
        return _Container("lxc", folder, depth)
    return None


def _unit(folders: Sequence[str], container: _Container | None) -> tuple[str, Manager]:
    # The deepest unit; what is below it is the service's own affair (delegation).
    for depth in range(len(folders), 0, -1):
        folder = folders[depth - 1]
        if not _UNIT.fullmatch(folder) or _is_container_scope(folder):
            continue
        if container is not None and depth > container.depth:
            return folder, "container"
        users = any(_USER_MANAGER.fullmatch(each) for each in folders[: depth - 1])
        return folder, "user" if users else "system"
    return "", ""


def _is_container_scope(folder: str) -> bool:
    # A transient unit that the runtime makes and names: its settings are the runtime's to change.
    return _SCOPE.fullmatch(folder) is not None
