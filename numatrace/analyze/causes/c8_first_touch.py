"""C8, single-threaded first touch: private weights all on the node of the thread that loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze import evidence
from numatrace.analyze.causes import shape
from numatrace.analyze.causes.base import WEIGHTS_ON_HALF, share_on
from numatrace.analyze.causes.lost import remote_lost
from numatrace.analyze.samples.shares import parts
from numatrace.model.findings import Finding, RuledOut
from numatrace.model.units import format_nodes, format_share

if TYPE_CHECKING:
    from numatrace.analyze.situation import Situation

ID = "C8"
NAME = "single-threaded first touch"
NUMBER = None
EXPLAINS = ("C1",)
"""The imbalance: this is why it came about."""

PRIVATE_SHARE = 0.5
"""From this part of the weights on, private memory decides where reads go."""


def look(situation: Situation) -> Finding | RuledOut:
    """Return the finding: private weights on one half of the threads' nodes, and no policy.

    llama.cpp repacks weights, or reads them into memory, with one thread; without a policy the
    kernel takes pages from the node on which that thread runs.
    """
    weights = situation.weights
    nodes = _half(situation)
    asked = bool(situation.policy_nodes or situation.mems)
    cpuless = set(nodes) & set(situation.topology.memory_only_nodes)
    if not nodes or asked or cpuless or weights.private_share <= PRIVATE_SHARE:
        return RuledOut(ID, NAME, judged=True, why=_against(situation, nodes, asked=asked))
    held = format_share(share_on(parts(weights.private_bytes), nodes))
    return Finding(
        cause=ID,
        name=NAME,
        sentence=f"{held} of the private {'weights' if weights.named else 'memory'} is on"
        f" {format_nodes(nodes)}, because one thread wrote it there while loading; the compute"
        f" threads run on {format_nodes(tuple(situation.compute_parts))}.",
        tgid=situation.server.tgid,
        evidence=(
            evidence.private_weights(situation),
            evidence.weights_by_node(situation),
            evidence.threads_by_node(situation),
            evidence.remote(situation),
        ),
        confidence="high" if weights.named else "medium",
        notes=(
            "This memory is no page cache: dropping caches does not move it, a new start under"
            " another policy does.",
        ),
        lost_ns=remote_lost(situation),
        refuted_by="Private weights that lie elsewhere than the thread that loaded them ran, or a"
        " policy that put them there.",
    )


def _half(situation: Situation) -> tuple[int, ...]:
    """Return the nodes that hold most of all weights, and of the private ones, or nothing."""
    nodes = shape.imbalanced_nodes(situation) if shape.is_remote(situation) else ()
    private = parts(situation.weights.private_bytes)
    return nodes if share_on(private, nodes) > WEIGHTS_ON_HALF else ()


def _against(situation: Situation, nodes: tuple[int, ...], *, asked: bool) -> str:
    share = situation.weights.private_share
    if share <= PRIVATE_SHARE:
        return f"{format_share(share)} of the weights is private memory."
    if not nodes:
        return "The private weights are not all on a few of the threads' nodes."
    if asked:
        return "Policy or cpuset put the weights there, not the thread that loaded them."
    return f"{format_nodes(nodes).capitalize()} has no CPUs: no thread loaded them from there."
