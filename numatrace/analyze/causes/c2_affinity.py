"""C2, CPU affinity not aligned with memory: threads on some nodes, their weights on others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze import evidence
from numatrace.analyze.causes import c1_imbalance
from numatrace.analyze.causes.base import REMOTE_SHARE, main_nodes, share_on
from numatrace.analyze.plans.room import need_bytes, room_bytes
from numatrace.model.report import Finding
from numatrace.model.units import format_nodes, format_share

if TYPE_CHECKING:
    from numatrace.analyze.situation import Situation

ID = "C2"
NAME = "CPU affinity not aligned with memory"
SPILL = 0.05
"""From this share of the weights on the threads' nodes on, these were filled first."""


def look(situation: Situation) -> Finding | None:
    """Return the finding, or None.

    It is not C2 when it is C1: weights on a node without CPUs, or threads on several nodes that
    nothing keeps away from the weights' node. Nor when something else explains the placement: a
    memory policy that names the threads' nodes while the page cache lies elsewhere, or threads'
    nodes that were too small.
    """
    remote = situation.remote
    nodes = main_nodes(situation.compute_parts)
    outside = 1.0 - share_on(situation.weights.parts, nodes)
    if remote is None or min(remote.value, outside) <= REMOTE_SHARE:
        return None
    everywhere = set(nodes) >= set(situation.topology.nodes_with_cpus)
    if everywhere or c1_imbalance.look(situation) or _explained_otherwise(situation, nodes):
        return None
    where = tuple(node for node in main_nodes(situation.weights.parts) if node not in nodes)
    reasons = evidence.constraints(situation)
    return Finding(
        cause=ID,
        name=NAME,
        sentence=f"The compute threads run on {format_nodes(nodes)}, but {format_share(outside)}"
        f" of the {situation.weights.name} is elsewhere: on {format_nodes(where)}.",
        tgid=situation.server.tgid,
        evidence=(
            evidence.threads_by_node(situation),
            evidence.weights_by_node(situation),
            evidence.remote(situation),
            *reasons,
        ),
        confidence="high" if reasons and situation.weights.mapped else "medium",
        notes=() if reasons else ("Nothing ties the threads to these nodes: they may move.",),
    )


def _explained_otherwise(situation: Situation, nodes: tuple[int, ...]) -> bool:
    policy = situation.policy_nodes
    if policy:
        aligned = set(policy) <= set(nodes)
        return aligned and situation.weights.mapped
    if situation.mems and not set(situation.mems) & set(nodes):
        return False
    here = share_on(situation.weights.parts, nodes)
    room = sum(room_bytes(situation, node) for node in nodes)
    return here >= SPILL and need_bytes(situation) > room
