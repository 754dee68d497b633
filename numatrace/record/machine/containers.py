"""What a container engine's own files say of a container: its name, image and compose service.

Read from the engine's folder, never asked of its daemon. The files are JSON of a size that is
bounded here; what is missing, damaged or not as expected leaves the names empty.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from numatrace.model.document import TEXT_LIMIT
from numatrace.record.machine.files import read_bytes, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numatrace.model.process import Deployment

FILE_BYTES = 4 << 20
"""A docker container's file has some 10 kB; podman's list about 1 kB per container."""
DOCKER = "var/lib/docker"
DOCKER_SETTINGS = "etc/docker/daemon.json"
PODMAN = "var/lib/containers/storage"
PODMAN_OF_USER = ".local/share/containers/storage"

DATA_ROOT = ("data-root", "graph")
"""dockerd(8): its name, and that of before 17.05."""

_OPTION = re.compile(f"\0--(?:{'|'.join(DATA_ROOT)})[=\0]([^\0]+)")
_ID = re.compile(r"[0-9a-f]{64}")
_USER = re.compile(r"/user-([0-9]{1,10})\.slice/")


class Names(NamedTuple):
    """What a Deployment has of a container beside its kind and id; "" where unknown."""

    container_name: str = ""
    image: str = ""
    compose_project: str = ""
    compose_service: str = ""


def named(deployment: Deployment, paths: tuple[str, ...], root: Path) -> Deployment:
    """Return the deployment with the names that the engine gave its container.

    `paths` are the cgroup paths, which tell whose a rootless container is.
    """
    kind, id_ = deployment.container_kind, deployment.container_id
    if kind not in ("docker", "podman") or not _ID.fullmatch(id_):
        return deployment
    return replace(deployment, **container_names(kind, id_, paths, root)._asdict())


@lru_cache(maxsize=64)
def container_names(kind: str, id_: str, paths: tuple[str, ...], root: Path) -> Names:
    """Return the names of a docker or podman container. Kept: its next process asks again."""
    if kind == "docker":
        return _docker(_object(_docker_folder(root) / "containers" / id_ / "config.v2.json"))
    return next(
        (found for folder in _podman_folders(paths, root) if (found := _podman(folder, id_))),
        Names(),
    )


def _docker_folder(root: Path) -> Path:
    settings = _object(root / DOCKER_SETTINGS)
    given = (_text(settings.get(name)) for name in DATA_ROOT)
    place = next(filter(None, given), "") or _daemon_option(root)
    return root / (place.lstrip("/") or DOCKER)


def _daemon_option(root: Path) -> str:
    """The data root on the running daemon's command line, "" where there is none."""
    for comm in root.glob("proc/[0-9]*/comm"):
        if read_text(comm) == "dockerd":
            line = read_text(comm.with_name("cmdline"), FILE_BYTES) or ""
            found = _OPTION.search("\0" + line)
            return _text(found[1]) if found else ""
    return ""


def _docker(container: dict[str, object]) -> Names:
    config = _dict(container.get("Config"))
    labels = _dict(config.get("Labels"))
    return Names(
        _text(container.get("Name")).removeprefix("/"),
        _text(config.get("Image")),
        _text(labels.get("com.docker.compose.project")),
        _text(labels.get("com.docker.compose.service")),
    )


def _podman_folders(paths: tuple[str, ...], root: Path) -> Iterator[Path]:
    yield root / PODMAN
    users = dict.fromkeys(match[1] for path in paths if (match := _USER.search(path)))
    accounts = (read_text(root / "etc/passwd", FILE_BYTES) or "").splitlines() if users else []
    for account in accounts:
        fields = account.split(":")
        if len(fields) == 7 and fields[2] in users and fields[5].startswith("/"):
            yield root / fields[5].lstrip("/") / PODMAN_OF_USER


def _podman(storage: Path, id_: str) -> Names | None:
    # The list of containers/storage; podman's own database has more and is not for others.
    for name in ("containers.json", "volatile-containers.json"):
        for item in _list(storage / "overlay-containers" / name):
            container = _dict(item)
            if container.get("id") == id_:
                names = container.get("names")
                first = names[0] if isinstance(names, list) and names else ""
                metadata = _dict(_loads(_text(container.get("metadata"), FILE_BYTES).encode()))
                return Names(_text(first), _text(metadata.get("image-name")))
    return None


def _object(path: Path) -> dict[str, object]:
    return _dict(_loads(read_bytes(path, FILE_BYTES)))


def _list(path: Path) -> list[object]:
    value = _loads(read_bytes(path, FILE_BYTES))
    return value if isinstance(value, list) else []


def _loads(data: bytes | None) -> object:
    try:
        return json.loads(data) if data else None
    except (ValueError, RecursionError):
        return None


def _dict(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object, limit: int = TEXT_LIMIT) -> str:
    fits = isinstance(value, str) and len(value) <= limit
    # JSON can spell lone surrogates, which no output can be encoded from.
    return value.encode("utf-8", "replace").decode() if fits and isinstance(value, str) else ""
