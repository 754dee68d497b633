"""Checks of what this process may do: capabilities, user and pid namespace."""

from __future__ import annotations

import re

from numatrace.record.checks.capability import Capability, Host, one_line
from numatrace.record.checks.engines import how_to_start

CAP_SYS_ADMIN = 21
"""Stands in for both BPF and PERFMON, and may mount; see capabilities(7)."""

NEEDED: dict[str, tuple[int, str]] = {
    "CAP_BPF": (39, "load BPF programs and maps"),
    "CAP_PERFMON": (38, "attach them to tracepoints"),
}
"""Bit and use of each capability without which nothing is recorded (include/uapi/linux/
capability.h). CAP_SYS_NICE is not among them: move_pages(2) wants it only to move pages of
others, and we only ask where they are."""

USEFUL: dict[str, tuple[int, str]] = {
    "CAP_SYS_PTRACE": (19, "the maps and pages of another user's process"),
    "CAP_DAC_READ_SEARCH": (2, "files of tracefs, and model files of another user"),
}

INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO of include/linux/proc_ns.h: the same number on every kernel."""

WHOLE_USER_NAMESPACE = ["0", "0", "4294967295"]
"""/proc/self/uid_map of the initial user namespace: all ids map to themselves."""


def effective_capabilities(host: Host) -> int:
    """The bits of CapEff in /proc/self/status; 0 when it cannot be read."""
    match = re.search(r"^CapEff:\s*([0-9a-f]{1,16})$", host.read("proc/self/status"), re.M)
    return int(match[1], 16) if match else 0


def has_capability(host: Host, bit: int) -> bool:
    """Whether the process has the capability, in the machine's own user namespace."""
    return in_initial_user_namespace(host) and bool(effective_capabilities(host) >> bit & 1)


def in_initial_user_namespace(host: Host) -> bool:
    """Whether capabilities count for the kernel itself and not only inside a user namespace."""
    mapping = host.read("proc/self/uid_map", 4096).split()
    return not mapping or mapping == WHOLE_USER_NAMESPACE


def check_privileges(host: Host) -> Capability:
    """Root, or the capabilities that do instead."""
    if not in_initial_user_namespace(host):
        return _no(
            host,
            "root of a user namespace only",
            "/proc/self/uid_map maps other ids: "
            "these capabilities do not reach the kernel's own tables",
        )
    capabilities = effective_capabilities(host)
    admin = capabilities >> CAP_SYS_ADMIN & 1
    missing = [name for name, (bit, _) in NEEDED.items() if not admin | capabilities >> bit & 1]
    who = f"user id {host.euid}"
    if missing:
        uses = "; ".join(f"{name} to {NEEDED[name][1]}" for name in missing)
        why = f"CapEff is {capabilities:#x}, without {uses}"
        return _no(host, f"{who}, without {' and '.join(missing)}", why)
    return _useful(host, who, capabilities)


def _useful(host: Host, who: str, capabilities: int) -> Capability:
    missing = [name for name, (bit, _) in USEFUL.items() if not capabilities >> bit & 1]
    # CAP_DAC_OVERRIDE (1) reads what CAP_DAC_READ_SEARCH reads.
    if capabilities >> 1 & 1 and "CAP_DAC_READ_SEARCH" in missing:
        missing.remove("CAP_DAC_READ_SEARCH")
    if not missing:
        who = "root" if host.euid == 0 else who
        return Capability("privileges", "privileges", "yes", f"{who}, all capabilities it takes")
    return Capability(
        "privileges",
        "privileges",
        "degraded",
        f"{who}, without {' and '.join(missing)}",
        lost="; ".join(USEFUL[name][1] for name in missing),
        why=f"CapEff is {capabilities:#x}, without {' and '.join(missing)}",
        todo=_more(host),
    )


def _no(host: Host, value: str, why: str) -> Capability:
    return Capability(
        "privileges",
        "privileges",
        "no",
        value,
        lost="recording",
        why=why,
        todo=_more(host),
    )


def _more(host: Host) -> str:
    if not in_initial_user_namespace(host) or host.euid == 0:
        return how_to_start(host)
    return f"sudo {host.this_command()}"


def check_pid_namespace(host: Host) -> Capability:
    """Whether our process numbers are the kernel's own."""
    title = "process numbers"
    try:
        found = str((host.proc / "self/ns/pid").readlink())
    except OSError:
        found = ""
    if found == INITIAL_PID_NAMESPACE:
        return Capability("pid_namespace", title, "yes", "the machine's own (initial namespace)")
    return Capability(
        "pid_namespace",
        title,
        "no",
        f"{one_line(found) or 'unknown'}, not the machine's own",
        lost="recording: BPF reports the machine's process numbers, which differ from ours",
        why=f"/proc/self/ns/pid is {one_line(found) or 'unreadable'}, "
        f"not {INITIAL_PID_NAMESPACE}: this is a container",
        todo=how_to_start(host),
    )
