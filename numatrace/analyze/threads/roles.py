"""What a thread is for, told by what it did and not by its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numatrace.model.views import Role

WORK = ("prompt", "decode", "compute")
COMPUTE_SHARE = 0.10
"""A compute thread has at least this part of the busiest thread's CPU time. The workers of a ggml
pool wait for one another by spinning, so they all have about the same; a thread that only answers
HTTP or writes logs has far less."""
READING_SHARE = 0.05
READING_LEAST = 0.01
"""A thread that spends this part of its work in reads of weights is one, too, if it has this part
of the busiest one's CPU time: one of many that a pool had for a while, or beside one that loaded
for long."""

LOADING_SHARE = 0.5
LOADING_NS = 50_000_000
"""A loader has at least half of its CPU time in loads, and so much that it loaded something."""
FILLING = ("kernel fault", "kernel copy", "kernel map", "kernel reclaim")
FILLING_SHARE = 0.05
FILLING_FAULTS = 256
"""... and fills memory: by this part of its CPU time in the kernel, or so many page faults, a
MiB."""

TALKING = ("kernel copy", "kernel wait")
TALKING_SHARE = 0.3
TALKING_OF_CPU = 0.1
"""A thread that answers requests reads and writes sockets, wakes others and waits for them: by
this part of its sampled time, and this part of its CPU time."""


@dataclass(frozen=True, slots=True)
class RoleEvidence:
    """What a thread or worker slot did. Times in ns; without samples the read times are empty."""

    oncpu_ns: int
    busiest_ns: int
    """CPU time of the process's busiest thread."""
    phase_ns: Mapping[str, int]
    """CPU time in each phase."""
    weight_read_ns: Mapping[str, int]
    """Sampled time in accesses to weights, in each phase."""
    read_ns: Mapping[str, int]
    """Sampled time in accesses to any memory, in each phase."""
    kernel_ns: Mapping[str, int]
    """Sampled time in the kernel, by the kinds of model/access.py's HOW."""
    faults: int
    busiest_work_ns: int | None = None
    """CPU time of the thread of the process that has most in the phases WORK, if known."""


def role(evidence: RoleEvidence) -> Role:
    """Return the role of a thread. One that loads first and computes then is a compute thread."""
    if _computes(evidence):
        return "compute"
    if _loads(evidence):
        return "loader"
    return "http" if _talks(evidence) else "other"


def _computes(evidence: RoleEvidence) -> bool:
    work_ns = _sum(evidence.phase_ns, WORK)
    busiest_ns = evidence.busiest_work_ns
    if busiest_ns is None:
        busiest_ns = evidence.busiest_ns
    if work_ns >= max(1.0, COMPUTE_SHARE * busiest_ns):
        return True
    reads_ns = _sum(evidence.weight_read_ns, WORK)
    enough = work_ns >= max(1.0, READING_LEAST * busiest_ns)
    return enough and reads_ns >= max(1.0, READING_SHARE * work_ns)


def _loads(evidence: RoleEvidence) -> bool:
    loading_ns = evidence.phase_ns.get("load", 0)
    if loading_ns < max(LOADING_NS, LOADING_SHARE * evidence.oncpu_ns):
        return False
    filling_ns = _sum(evidence.kernel_ns, FILLING)
    fills = filling_ns >= FILLING_SHARE * evidence.oncpu_ns
    return fills or evidence.faults >= FILLING_FAULTS


def _talks(evidence: RoleEvidence) -> bool:
    talking_ns = _sum(evidence.kernel_ns, TALKING)
    sampled_ns = sum(evidence.kernel_ns.values()) + sum(evidence.read_ns.values())
    least_ns = max(1.0, TALKING_SHARE * sampled_ns, TALKING_OF_CPU * evidence.oncpu_ns)
    return talking_ns >= least_ns


def _sum(times: Mapping[str, int], names: tuple[str, ...]) -> int:
    return sum(times.get(name, 0) for name in names)
