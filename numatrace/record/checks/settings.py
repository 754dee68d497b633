"""Checks of kernel settings that stand in the way of recording or thin its samples out."""

from __future__ import annotations

import re

from numatrace.record.checks.capability import Capability, Host
from numatrace.record.checks.privileges import CAP_SYS_ADMIN, NEEDED, has_capability

LEAST_RATE_HZ = 1_000
"""The sampling rate goes up to 997 Hz: numatrace/record/sampling/budget.py."""

LIMITS: dict[str, tuple[str, int, str]] = {
    "kernel.perf_event_paranoid": ("CAP_PERFMON", -1, "samples and tracepoints"),
    "kernel.unprivileged_bpf_disabled": ("CAP_BPF", 0, "BPF programs"),
}
"""Which capability is exempt from a setting, the value that limits nobody, and what it limits. See
Documentation/admin-guide/sysctl/kernel.rst; values above 2 of the first are Debian's own."""


def _value(host: Host, name: str) -> int | None:
    text = host.read(f"proc/sys/{name.replace('.', '/')}", 64).strip()
    return int(text) if re.fullmatch(r"-?[0-9]{1,10}", text) else None


def check_limits(host: Host) -> Capability:
    """Settings that keep users without capabilities from perf events and BPF."""
    title = "kernel's limits"
    values = {name: _value(host, name) for name in LIMITS}
    known = [f"{name} = {value}" for name, value in values.items() if value is not None]
    if not known:
        return Capability("limits", title, "yes", "none in this kernel")
    barred = [name for name, value in values.items() if _bars(host, name, value)]
    if not barred:
        return Capability("limits", title, "yes", f"{', '.join(known)}: no limit to us")
    names = " and ".join(LIMITS[name][0] for name in barred)
    return Capability(
        "limits",
        title,
        "degraded",
        ", ".join(known),
        lost=f"{' and '.join(LIMITS[name][2] for name in barred)}, without {names}",
        why=f"{' and '.join(f'{name} is {values[name]}' for name in barred)}: "
        f"only processes with {names} are exempt",
        # Loosening the settings would open them to everybody, and would not be enough for BPF.
        todo=host.as_root(host.this_command())
        if host.euid
        else f"Run numatrace with {names}; see privileges",
    )


def _bars(host: Host, name: str, value: int | None) -> bool:
    capability, free, _ = LIMITS[name]
    if value is None or value <= free:
        return False
    exempt = (CAP_SYS_ADMIN, NEEDED[capability][0])
    return not any(has_capability(host, bit) for bit in exempt)


def check_sample_rate(host: Host) -> Capability:
    """The kernel's own limit on samples, which it lowers by itself when a sample takes too long."""
    title = "sampling rate"
    name = "kernel.perf_event_max_sample_rate"
    value = _value(host, name)
    if value is None:
        return Capability("sample_rate", title, "yes", "no limit known")
    if value >= LEAST_RATE_HZ:
        return Capability("sample_rate", title, "yes", f"up to {value:,} a second")
    return Capability(
        "sample_rate",
        title,
        "degraded",
        f"up to {value:,} a second",
        lost="samples of memory accesses: fewer of them, so wider ranges and more that is withheld",
        why=f"{name} is {value}; the kernel lowers it when samples take too long",
        todo=host.as_root(f"sysctl -w {name}=100000"),
    )
