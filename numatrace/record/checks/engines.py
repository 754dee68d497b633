"""Which container this process runs in, and how one of its kind is given what recording needs."""

from __future__ import annotations

import re

from numatrace.record.checks.capability import Host, one_line

FILES = {".dockerenv": "docker", "run/.containerenv": "podman"}
"""What engines leave in a container's root."""
CGROUPS = {"kubepods": "kubernetes", "/docker": "docker", "/libpod": "podman", "/lxc": "lxc"}
"""Parts of the path in /proc/self/cgroup, where the cgroup namespace does not hide it."""

START: dict[str, str] = {
    "docker": "Start the container with `docker run --privileged --pid=host`",
    "podman": "Start the container as root: `sudo podman run --privileged --pid=host`",
    "kubernetes": "Set `hostPID: true` in the pod and `privileged: true` in the container's "
    "securityContext, or run numatrace on the node",
}
"""The step for each engine; both options together are what README.md says has been tried."""
ELSEWHERE = (
    "Run numatrace on the host as root, not inside this container, or start the container with "
    "`--privileged --pid=host`"
)


def container_kind(host: Host) -> str:
    """`docker`, `podman`, `kubernetes`, or what the container calls itself; "" outside of any."""
    named = _named(host)
    if "KUBERNETES_SERVICE_HOST=" in host.read("proc/self/environ", 1 << 20):
        return "kubernetes"
    for name, kind in FILES.items():
        if (host.root / name).exists():
            return kind
    cgroup = host.read("proc/self/cgroup", 1 << 16)
    found = next((kind for part, kind in CGROUPS.items() if part in cgroup), "")
    return found or named


def _named(host: Host) -> str:
    """What systemd or the container's own first process says; see systemd-detect-virt(1)."""
    text = host.read("run/systemd/container", 64).strip()
    if not text:
        match = re.search(r"(?:^|\0)container=([^\0]{1,64})", host.read("proc/1/environ", 1 << 16))
        text = match[1] if match else ""
    return one_line(text, 32)


def how_to_start(host: Host) -> str:
    """The step that gives a container what recording needs."""
    return START.get(container_kind(host), ELSEWHERE)
