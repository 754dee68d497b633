"""What works on this machine: the list of checks, and those without which nothing is recorded."""

from __future__ import annotations

from dataclasses import replace

from numatrace.model.errors import CapabilityError
from numatrace.record.checks.bcc import check_bcc, check_libbcc
from numatrace.record.checks.bpf import check_bpf, check_ring_buffer
from numatrace.record.checks.capability import Capability, Check, Host
from numatrace.record.checks.container import check_container
from numatrace.record.checks.hardware import check_bandwidth, check_latencies, check_pmu
from numatrace.record.checks.privileges import check_pid_namespace, check_privileges
from numatrace.record.checks.settings import check_limits, check_sample_rate
from numatrace.record.checks.system import (
    check_architecture,
    check_balancing,
    check_kernel,
    check_nodes,
    check_python,
)
from numatrace.record.checks.tools import check_fix_tools, check_perf, check_placement
from numatrace.record.checks.tracefs import check_tracefs, check_tracepoints

REQUIRED: tuple[Check, ...] = (
    check_kernel,
    check_privileges,
    check_pid_namespace,
    check_bcc,
    check_tracefs,
    check_bpf,
    check_ring_buffer,
    check_tracepoints,
)
"""What recording cannot do without, each cheap; in the order in which to mend them."""

CHECKS: tuple[Check, ...] = (
    check_kernel,
    check_architecture,
    check_python,
    check_privileges,
    check_container,
    check_pid_namespace,
    check_limits,
    check_bcc,
    check_libbcc,
    check_tracefs,
    check_bpf,
    check_ring_buffer,
    check_tracepoints,
    check_placement,
    check_nodes,
    check_balancing,
    check_latencies,
    check_perf,
    check_pmu,
    check_sample_rate,
    check_bandwidth,
    check_fix_tools,
)
"""Everything that `doctor` looks at before it fires at the probes, in the order it is shown."""


def require_for_record(host: Host | None = None) -> None:
    """Raise CapabilityError, in doctor's words, when recording is impossible here.

    Takes a few milliseconds: bcc is looked for and not loaded, and no probe is fired at. Mounts
    tracefs when it is not mounted and we may.
    """
    host = host or Host()
    for check in REQUIRED:
        found = check(host)
        if found.state == "no":
            what = f"cannot record: {found.title} {found.value}"
            raise CapabilityError(what, found.why, found.todo)


def examine(host: Host | None = None) -> list[Capability]:
    """Run every check, and fire at every probe when nothing that recording needs is missing."""
    host = host or Host()
    kernel = check_kernel(host)
    if kernel.state == "no":
        return [kernel]
    found = [check(host) for check in CHECKS]
    blocking = next((one for one in found if one.state == "no"), None)
    if blocking is not None:
        return [*found, _not_fired(blocking)]
    # The loader brings numpy and pyarrow with it, which only this step needs.
    from numatrace.record.checks.probes import fire_at_probes

    return [*found, *fire_at_probes(host)]


def _not_fired(blocking: Capability) -> Capability:
    return replace(
        blocking,
        id="probes",
        title="probes",
        value="not tried",
        why=f"{blocking.title} comes first: {blocking.value}",
    )


def recording_works(found: list[Capability]) -> bool:
    """Whether a recording is possible: nothing is a plain no."""
    return all(one.state != "no" for one in found)
