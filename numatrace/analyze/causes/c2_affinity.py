"""C2, CPU affinity not aligned with memory: threads on some nodes, their weights on others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze import evidence
from numatrace.analyze.causes import c1_imbalance, document_checks, shape
from numatrace.analyze.causes.base import REMOTE_SHARE, main_nodes
from numatrace.analyze.causes.lost import remote_lost
from numatrace.model.findings import Finding, RuledOut
from numatrace.model.units import format_nodes, format_share

if TYPE_CHECKING:
    from numatrace.analyze.situation import Situation

ID = "C2"
NAME = "CPU affinity not aligned with memory"
NUMBER = 2
EXPLAINS = ()


def look(situation: Situation) -> Finding | RuledOut:
    """Return the finding: more than REMOTE_SHARE of the weights off the nodes of the threads.

    It is C1 when the threads run everywhere, or the weights are on nodes without CPUs.
    """
    nodes = main_nodes(situation.compute_parts)
    outside = shape.outside_share(situation)
    everywhere = set(nodes) >= set(situation.topology.nodes_with_cpus)
    if not shape.is_remote(situation) or outside <= REMOTE_SHARE or everywhere:
        return RuledOut(ID, NAME, judged=True, why=_against(situation, nodes, outside))
    if c1_imbalance.holds(situation):
        return RuledOut(ID, NAME, judged=True, why="Nothing ties the threads to their nodes.")
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
        confidence="high" if reasons and situation.weights.named else "medium",
        notes=() if reasons else ("Nothing ties the threads to these nodes: they may move.",),
        lost_ns=remote_lost(situation),
        document=document_checks.cpu_by_node(situation, NUMBER, NAME),
        refuted_by="Threads that run on the nodes that hold the weights, or weights that follow"
        " once the threads stay.",
    )


def _against(situation: Situation, nodes: tuple[int, ...], outside: float) -> str:
    if situation.weights.holder is None:
        return "No weights were found in memory."
    if outside <= REMOTE_SHARE:
        off = format_share(outside)
        return f"{off} of the weights is off {format_nodes(nodes)}, where the threads run."
    return "The threads run on all nodes that have CPUs."
