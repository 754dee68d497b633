"""C1, allocation imbalance: most weights on one node while the threads run on several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze import evidence
from numatrace.analyze.causes import document_checks, shape
from numatrace.analyze.causes.base import REMOTE_SHARE, main_nodes, share_on
from numatrace.analyze.causes.lost import remote_lost
from numatrace.model.findings import Finding, RuledOut
from numatrace.model.units import format_nodes, format_share

if TYPE_CHECKING:
    from numatrace.analyze.situation import Situation

ID = "C1"
NAME = "allocation imbalance"
NUMBER = 1
EXPLAINS = ()

WITHOUT_CPUS_SHARE = 0.10
"""From this share of the weights on nodes without CPUs on, they are named. No thread runs there, so
all of it is remote to every thread, and such memory takes about twice as long: that is 10 %."""


def look(situation: Situation) -> Finding | RuledOut:
    """Return the finding: too much on one half of the nodes, or on nodes without CPUs."""
    alone = cpuless_nodes(situation)
    nodes = alone or _half(situation)
    if not nodes:
        return RuledOut(ID, NAME, judged=True, why=_against(situation))
    return Finding(
        cause=ID,
        name=NAME,
        sentence=_sentence(situation, nodes, cpuless=bool(alone)),
        tgid=situation.server.tgid,
        evidence=(
            evidence.weights_by_node(situation),
            evidence.threads_by_node(situation),
            evidence.remote(situation),
            *evidence.constraints(situation),
        ),
        confidence="high" if situation.weights.named else "medium",
        lost_ns=remote_lost(situation),
        document=document_checks.memory_by_node(situation, NUMBER, NAME),
        refuted_by="Placement that shows the weights evenly on the threads' nodes, or threads that"
        " all run on the node that holds the weights.",
    )


def holds(situation: Situation) -> bool:
    """Whether it is there."""
    return bool(cpuless_nodes(situation) or _half(situation))


def cpuless_nodes(situation: Situation) -> tuple[int, ...]:
    """Return the nodes without CPUs that hold enough of the weights to be named."""
    alone = situation.topology.memory_only_nodes
    held = tuple(node for node in alone if situation.weights.parts.get(node))
    enough = share_on(situation.weights.parts, held) > WITHOUT_CPUS_SHARE
    return held if enough and situation.compute_parts else ()


def _half(situation: Situation) -> tuple[int, ...]:
    """Return the half of the threads' nodes that holds most; nodes they are kept from are C2's."""
    nodes = shape.imbalanced_nodes(situation) if shape.is_remote(situation) else ()
    kept = situation.confined_to
    return nodes if not kept or set(nodes) & set(kept) else ()


def _sentence(situation: Situation, nodes: tuple[int, ...], *, cpuless: bool) -> str:
    times, weights = situation.compute_parts, situation.weights
    held = format_share(share_on(weights.parts, nodes))
    start = f"{held} of the {weights.name} is on {format_nodes(nodes)}"
    if cpuless:
        have = "has" if len(nodes) == 1 else "have"
        return f"{start}, which {have} no CPUs: all threads read it from another node."
    others = tuple(node for node in times if node not in nodes)
    away = format_share(share_on(times, others))
    return f"{start}, but the compute threads spend {away} of their time on {format_nodes(others)}."


def _against(situation: Situation) -> str:
    holder, remote = situation.weights.holder, situation.remote
    if holder is None or remote is None:
        return "No weights were found in memory."
    share = format_share(situation.weights.parts[holder])
    if remote.value <= REMOTE_SHARE:
        return f"{format_share(remote.value)} of the reads are remote: too few to matter."
    if not shape.are_threads_spread(situation):
        where = format_nodes(main_nodes(situation.compute_parts))
        return f"The compute threads run on one node ({where}), not on several."
    return f"The fullest node ({holder}) holds {share} of the weights: no imbalance."
