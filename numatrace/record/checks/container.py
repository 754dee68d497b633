"""Check of the container that this process may run in, by what its engine shuts out."""

from __future__ import annotations

import re

from numatrace.record.checks.bpf import may_use_bpf
from numatrace.record.checks.capability import Capability, Host
from numatrace.record.checks.engines import container_kind, how_to_start
from numatrace.record.checks.privileges import check_pid_namespace


def check_container(host: Host) -> Capability:
    """Whether this is a container that lacks what recording needs."""
    kind = container_kind(host)
    if not kind:
        return Capability("container", "container", "yes", "none")
    missing = _missing(host)
    if not missing:
        return Capability("container", "container", "yes", f"{kind}, with all that it takes")
    return Capability(
        "container",
        "container",
        "degraded",
        f"{kind}, without {' and '.join(missing)}",
        lost="what the engine shuts out: see the lines below",
        why=f"this process runs in a container ({kind}), with the engine's choice of privileges",
        todo=how_to_start(host),
    )


def _missing(host: Host) -> list[str]:
    """What the engine keeps back, by the files of /proc."""
    missing = [] if may_use_bpf(host) else ["CAP_BPF and CAP_PERFMON"]
    if check_pid_namespace(host).state != "yes":
        missing.append("the machine's process numbers")
    if re.search(r"^Seccomp:\s*2$", host.read("proc/self/status"), re.MULTILINE) and missing:
        missing.append("some system calls (seccomp)")
    return missing
