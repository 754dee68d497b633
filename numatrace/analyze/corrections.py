"""What circulating advice gets wrong for this trace: one line each, only where it matters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.causes.settings import ineffective
from numatrace.model.units import format_share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numatrace.analyze.situation import Situation
    from numatrace.model.findings import Finding

PLACEMENT = ("C1", "C2", "C4", "C5", "C7", "C8", "C9")
"""Causes for which guides have one bind, interleave or balance."""
MAPPED_SHARE = 0.5
"""From this share of the weights in the page cache on, what is true of page cache matters."""
OLLAMA_CLIENT = "numactl before `ollama run` does nothing on Linux: it is a client of the server"


def corrections(
    situation: Situation, findings: Sequence[Finding], *, evicts: bool
) -> tuple[str, ...]:
    """Return the corrections; they quote names as they are: escape them.

    `evicts` says whether the recommended plan has the model's page cache dropped.
    """
    causes = {finding.cause for finding in findings}
    found = [f"{each.what}: {each.why}." for each in ineffective(situation) if each.certain]
    if situation.numa_balancing or "C4" in causes:
        found += _balancing(situation)
    if causes & set(PLACEMENT):
        found += [*_client(situation), *_cache(situation, evicts=evicts), *_container(situation)]
    return tuple(dict.fromkeys(found))


def _client(situation: Situation) -> Iterator[str]:
    if situation.root.tgid != situation.server.tgid:
        yield f"{OLLAMA_CLIENT}, pid {situation.root.tgid}, which is what has to be set."


def _balancing(situation: Situation) -> Iterator[str]:
    weights = situation.weights
    if weights.mapped and weights.private_share < MAPPED_SHARE:
        yield (
            "kernel.numa_balancing=1 does not move these weights: the kernel's NUMA balancing"
            " skips read-only file mappings, which a mapped model is."
        )
    elif situation.policy_nodes:
        yield (
            "kernel.numa_balancing=1 does not move these weights: the kernel's NUMA balancing"
            " leaves memory with an explicit policy where it is."
        )


def _cache(situation: Situation, *, evicts: bool) -> Iterator[str]:
    """Correct advice about restarts and about dropping caches."""
    private = situation.weights.private_share
    if evicts:
        yield (
            f"A restart under numactl alone is not enough: {format_share(1.0 - private)} of the"
            " weights is page cache, which outlives the server and stays on the node it was read"
            " to; the model's file has to be evicted first."
        )
    if private > MAPPED_SHARE:
        yield (
            f"Dropping the page cache alone does not help: {format_share(private)} of the weights"
            " is private memory, which is gone with the server and comes back where its policy, or"
            " the thread that loads, has it."
        )


def _container(situation: Situation) -> Iterator[str]:
    if situation.deployment in ("docker", "podman"):
        name = situation.deployment
        yield (
            f"{name} has no option --memory-nodes: it is --cpuset-mems, beside --cpuset-cpus; and"
            f" numactl before `{name} run` does not reach the container."
        )
