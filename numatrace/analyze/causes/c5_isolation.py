"""C5, container or cgroup isolation: a cpuset whose CPUs and memory do not belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze import evidence
from numatrace.analyze.causes import document_checks, shape
from numatrace.analyze.causes.base import REMOTE_SHARE, share_on
from numatrace.analyze.causes.lost import remote_lost
from numatrace.model.cpulist import format_cpulist
from numatrace.model.findings import Evidence, Finding, RuledOut
from numatrace.model.units import format_nodes, format_share

if TYPE_CHECKING:
    from numatrace.analyze.situation import Situation

ID = "C5"
NAME = "container or cgroup isolation"
NUMBER = 5
EXPLAINS = ("C1", "C2", "C4", "C8")
"""What the cpuset forces, no affinity, first touch or scheduler can undo."""

ISOLATED = ("docker", "podman", "kubernetes", "lxc", "container", "cgroup")
"""Deployments whose cpuset was made apart from the server: there, CPUs without memory are an
oversight, not somebody's choice of CPUs for this server."""


def look(situation: Situation) -> Finding | RuledOut:
    """Return the finding: no node in common, too few nodes with memory, or pages out of reach."""
    why = _disagreement(situation) if shape.is_remote(situation) else ""
    if not why:
        return RuledOut(ID, NAME, judged=True, why=_against(situation))
    cpus, mems = shape.cpuset_nodes(situation)
    cgroup = situation.server.cgroup
    return Finding(
        cause=ID,
        name=NAME,
        sentence=why,
        tgid=situation.server.tgid,
        evidence=(
            Evidence(
                f"Its cpuset has CPUs {format_cpulist(cgroup.cpus) or '(unknown)'}, of"
                f" {format_nodes(cpus)}, and memory of {format_nodes(mems)}."
            ),
            evidence.weights_by_node(situation),
            evidence.threads_by_node(situation),
            evidence.remote(situation),
        ),
        confidence="high" if not set(cpus) & set(mems) else "medium",
        lost_ns=remote_lost(situation),
        document=document_checks.container_view(situation, NUMBER, NAME),
        refuted_by="A cpuset whose CPUs and memory are of the same nodes, with as many remote"
        " reads.",
    )


def _disagreement(situation: Situation) -> str:
    """Say how the cpuset disagrees with itself or with the pages; "" where it does not."""
    cpus, mems = shape.cpuset_nodes(situation)
    if not cpus or not mems:
        return ""
    start = f"The cpuset of the server has CPUs of {format_nodes(cpus)}"
    if not set(cpus) & set(mems):
        return f"{start}, but memory of {format_nodes(mems)} only: all that it takes is remote."
    left_out = (set(cpus) & set(situation.topology.nodes_with_memory)) - set(mems)
    if left_out and share_on(situation.weights.parts, mems) >= 1.0 - REMOTE_SHARE:
        return (
            f"{start}, but memory of {format_nodes(mems)} only: the threads on"
            f" {format_nodes(tuple(left_out))} have none of their own."
        )
    return _pages_elsewhere(situation, cpus, start)


def _pages_elsewhere(situation: Situation, cpus: tuple[int, ...], start: str) -> str:
    """Say that the pages lie where the cpuset has no CPU, unless something else chose that."""
    outside = 1.0 - share_on(situation.weights.parts, cpus)
    isolated = situation.deployment in ISOLATED
    chosen = situation.policy_nodes or situation.mems
    if not isolated or chosen or outside <= REMOTE_SHARE:
        return ""
    return (
        f"{start} only, but leaves its memory free: {format_share(outside)} of the"
        f" {situation.weights.name} is on other nodes."
    )


def _against(situation: Situation) -> str:
    cpus, mems = shape.cpuset_nodes(situation)
    if not cpus or not mems:
        return "The server is in no cpuset that the trace tells of."
    if not _disagreement(situation):
        return (
            f"Its cpuset has CPUs of {format_nodes(cpus)} and memory of {format_nodes(mems)}: that"
            " is not why reads are remote."
        )
    return "Its cpuset's CPUs and memory do not belong together, but hardly any read is remote."
