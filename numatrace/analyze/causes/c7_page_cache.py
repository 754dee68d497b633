"""C7, stale page cache: mapped weights lie where an earlier reader left them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze import evidence
from numatrace.analyze.causes import shape
from numatrace.analyze.causes.base import REMOTE_SHARE, main_nodes, share_on
from numatrace.analyze.causes.lost import remote_lost
from numatrace.analyze.samples.shares import parts
from numatrace.model.findings import Finding, RuledOut
from numatrace.model.units import format_nodes, format_share

if TYPE_CHECKING:
    from numatrace.analyze.situation import Situation

ID = "C7"
NAME = "stale page cache"
NUMBER = None
EXPLAINS = ("C1", "C2")
"""Imbalance and threads apart from their weights, that the policy is there to prevent."""


def look(situation: Situation) -> Finding | RuledOut:
    """Return the finding: mapped weights against the policy or cpuset that the server runs under.

    Pages that the server read itself would be where its policy says, so somebody else had read
    them before. Without policy or cpuset nothing tells an earlier reader from the server.
    """
    asked = asked_nodes(situation)
    stale = stale_share(situation, asked)
    wrong = stale > REMOTE_SHARE and shape.is_remote(situation) and _mostly_mapped(situation)
    if not wrong or not set(asked) & set(main_nodes(situation.compute_parts)):
        return RuledOut(ID, NAME, judged=True, why=_against(situation, asked, stale))
    held = parts(situation.weights.mapped_bytes)
    where = tuple(node for node in main_nodes(held) if _is_wrong(situation, node, asked))
    return Finding(
        cause=ID,
        name=NAME,
        sentence=f"{format_share(stale)} of the mapped weights lies on {format_nodes(where)}, left"
        f" there in the page cache by an earlier reader, although {_by_whom(situation)} asks for"
        f" {format_nodes(asked)}: a policy counts when a page is read from disk, and moves none"
        " that is there.",
        tgid=situation.server.tgid,
        evidence=(
            evidence.mapped_weights(situation),
            evidence.threads_by_node(situation),
            evidence.remote(situation),
            *evidence.constraints(situation),
        ),
        confidence="high",
        notes=(
            "A restart does not help: the page cache outlives the server. The file has to be"
            " evicted while no process maps it.",
        ),
        lost_ns=remote_lost(situation),
        refuted_by="The same placement after the file was evicted and read again by this server.",
    )


def asked_nodes(situation: Situation) -> tuple[int, ...]:
    """Return the nodes that policy or cpuset has the server's pages on; nothing without either."""
    return situation.policy_nodes or situation.mems


def stale_share(situation: Situation, asked: tuple[int, ...]) -> float:
    """Return the share of the mapped weights that is not where it was asked for, 0 to 1.

    Asked to be spread, that is what one half of the nodes holds beyond its part.
    """
    held = parts(situation.weights.mapped_bytes)
    if not asked or not held:
        return 0.0
    outside = 1.0 - share_on(held, asked)
    half = shape.loaded_half(situation.weights.mapped_bytes, len(asked))
    if shape.is_spreading(situation.server.policy) and half and len(asked) > 1:
        return max(outside, share_on(held, half) - len(half) / len(asked))
    return outside


def _is_wrong(situation: Situation, node: int, asked: tuple[int, ...]) -> bool:
    return node not in asked or shape.is_spreading(situation.server.policy)


def _mostly_mapped(situation: Situation) -> bool:
    """Whether most of the weights off the threads' nodes are page cache."""
    weights, nodes = situation.weights, main_nodes(situation.compute_parts)
    if len(nodes) > 1:
        return weights.private_share <= 0.5
    mapped = sum(size for node, size in weights.mapped_bytes.items() if node not in nodes)
    private = sum(size for node, size in weights.private_bytes.items() if node not in nodes)
    return mapped >= private


def _by_whom(situation: Situation) -> str:
    return f"the policy {situation.server.policy}" if situation.policy_nodes else "the cpuset"


def _against(situation: Situation, asked: tuple[int, ...], stale: float) -> str:
    if not situation.weights.mapped:
        return "The weights are private memory, not page cache."
    if not asked:
        return "Neither policy nor cpuset asks for other nodes than those that hold the weights."
    where = format_nodes(asked)
    return f"{format_share(stale)} of the mapped weights is off {where}, where they should be."
