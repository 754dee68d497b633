"""C1, allocation imbalance: most weights on one node while the threads run on several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze import evidence
from numatrace.analyze.causes.base import (
    REMOTE_SHARE,
    THREADS_ON_ONE_NODE,
    WEIGHTS_ON_ONE_NODE,
    share_on,
)
from numatrace.model.report import Finding
from numatrace.model.units import format_nodes, format_share

if TYPE_CHECKING:
    from numatrace.analyze.situation import Situation

ID = "C1"
NAME = "allocation imbalance"


def look(situation: Situation) -> Finding | None:
    """Return the finding, or None.

    A holder outside of the nodes that the threads are confined to is C2, not this.
    """
    holder, remote = situation.weights.holder, situation.remote
    if holder is None or remote is None or remote.value <= REMOTE_SHARE:
        return None
    share = situation.weights.parts[holder]
    if share <= WEIGHTS_ON_ONE_NODE or not _threads_elsewhere(situation, holder):
        return None
    return Finding(
        cause=ID,
        name=NAME,
        sentence=_sentence(situation, holder, share),
        tgid=situation.server.tgid,
        evidence=(
            evidence.weights_by_node(situation),
            evidence.threads_by_node(situation),
            evidence.remote(situation),
            *evidence.constraints(situation),
        ),
        confidence="high" if situation.weights.mapped else "medium",
        notes=tuple(_notes(situation)),
    )


def _threads_elsewhere(situation: Situation, holder: int) -> bool:
    """Whether the threads run on several nodes, or the holder has no CPU to run them on."""
    cpu_nodes = situation.topology.nodes_with_cpus
    if holder not in cpu_nodes:
        return True
    if situation.confined_to and holder not in situation.confined_to:
        return False
    largest = max(situation.compute_parts.values(), default=0.0)
    return largest < THREADS_ON_ONE_NODE


def _sentence(situation: Situation, holder: int, share: float) -> str:
    times = situation.compute_parts
    others = tuple(node for node in times if node != holder)
    away = format_share(share_on(times, others))
    start = f"{format_share(share)} of the {situation.weights.name} is on node {holder}"
    if holder not in situation.topology.nodes_with_cpus:
        return f"{start}, which has no CPUs: all threads read it from another node."
    return f"{start}, but the compute threads spend {away} of their time on {format_nodes(others)}."


def _notes(situation: Situation) -> list[str]:
    if situation.numa_balancing and situation.weights.mapped:
        return [
            "kernel.numa_balancing is on, but it cannot move these weights: the kernel's NUMA"
            " balancing skips read-only file mappings, which a mapped model is."
        ]
    return []
