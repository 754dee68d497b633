"""How weights and threads lie to each other: what several causes look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.causes.base import (
    REMOTE_SHARE,
    THREADS_ON_ONE_NODE,
    WEIGHTS_ON_HALF,
    main_nodes,
    share_on,
)
from numatrace.analyze.samples.shares import parts
from numatrace.analyze.situation import nodes_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numatrace.analyze.situation import Situation

SPREADING = ("interleave", "weighted interleave")
"""Policies, as numa_maps names them, that are meant to spread pages over their nodes."""


def is_remote(situation: Situation) -> bool:
    """Whether enough reads are remote for any placement to be worth a change."""
    return situation.remote is not None and situation.remote.value > REMOTE_SHARE


def are_threads_spread(situation: Situation) -> bool:
    """Whether the compute threads run on several nodes."""
    return max(situation.compute_parts.values(), default=1.0) < THREADS_ON_ONE_NODE


def loaded_half(amounts: Mapping[int, int], nodes: int) -> tuple[int, ...]:
    """Return the one half of so many nodes that holds more than WEIGHTS_ON_HALF, or nothing."""
    shares = parts(amounts)
    half = sorted(shares, key=lambda node: (-shares[node], node))[: max(1, nodes // 2)]
    held = tuple(node for node in sorted(half) if shares[node])
    return held if share_on(shares, held) > WEIGHTS_ON_HALF else ()


def imbalanced_nodes(situation: Situation) -> tuple[int, ...]:
    """Return the nodes that hold most weights while threads run on more nodes; or nothing."""
    if not are_threads_spread(situation):
        return ()
    return loaded_half(situation.weights.node_bytes, len(main_nodes(situation.compute_parts)))


def outside_share(situation: Situation) -> float:
    """Return the share of the weights that is on none of the threads' nodes."""
    return 1.0 - share_on(situation.weights.parts, main_nodes(situation.compute_parts))


def is_spreading(policy: str) -> bool:
    """Whether a policy, as numa_maps prints it, is meant to spread pages."""
    return policy.partition(":")[0].partition("=")[0].strip() in SPREADING


def cpuset_nodes(situation: Situation) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the nodes of the cpuset's CPUs and the nodes that it gives memory from.

    Empty where they are unknown. The nodes of the CPUs are those of the cgroup's own list: what
    the affinity leaves out of it is no work of the cpuset.
    """
    cpus = nodes_of(situation.topology, situation.server.cgroup.cpus)
    mems = situation.server.cgroup.mems or situation.server.mems_allowed
    return cpus, tuple(sorted(set(mems) & set(situation.topology.nodes_with_memory)))


def explained_by_policy(situation: Situation) -> bool:
    """Whether memory policy or cpuset is why the weights are where they are."""
    asked = situation.policy_nodes or situation.mems
    if not asked or is_spreading(situation.server.policy):
        return False
    return share_on(situation.weights.parts, asked) >= 1.0 - REMOTE_SHARE
