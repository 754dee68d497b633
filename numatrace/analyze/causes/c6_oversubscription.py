"""C6, thread oversubscription: more compute threads than CPUs that they may run on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze import evidence
from numatrace.model.findings import Finding, RuledOut
from numatrace.model.measured import Figure
from numatrace.model.units import format_count

if TYPE_CHECKING:
    from numatrace.analyze.situation import Situation

ID = "C6"
NAME = "more compute threads than CPUs"
NUMBER = None
EXPLAINS = ()

LEAST_SHARE_LEFT = 1 / 45
"""What is left of the speed at worst: 0.27 instead of 12.07 tokens a second were reported for 8
spinning threads on 4 CPUs. Each of ggml's barriers waits for threads that have no CPU."""


def look(situation: Situation) -> Finding | RuledOut:
    """Return the finding: threads that compute at once against allowed CPUs and CPU quota.

    No margin is needed: one thread too many makes all others wait for a time slice at every
    barrier, some hundred times per token.
    """
    cpus = limit(situation)
    if cpus is None or not situation.threads_used:
        why = "The trace does not say on which CPUs the compute threads may run."
        return RuledOut(ID, NAME, judged=False, why=why)
    count = format_count(situation.threads_used, "compute thread")
    if situation.threads_used <= cpus:
        return RuledOut(ID, NAME, judged=True, why=f"{count} for {_cpus(cpus)}.")
    certain = 1.0 - cpus / situation.threads_used
    total = sum(situation.compute_ns.values())
    worst = max(certain, 1.0 - LEAST_SHARE_LEFT)
    return Finding(
        cause=ID,
        name=NAME,
        sentence=f"{count} share {_cpus(cpus)}: at every step they wait for one that has no CPU.",
        tgid=situation.server.tgid,
        evidence=(evidence.threads_and_cpus(situation), evidence.threads_by_node(situation)),
        confidence="high" if situation.compute_cpus else "medium",
        lost_ns=Figure(total * certain, "ns", "model", total * certain, total * worst),
        refuted_by="As many tokens per second with one thread per allowed CPU.",
    )


def limit(situation: Situation) -> float | None:
    """Return how many CPUs the threads have: the allowed ones or the quota, whichever is less."""
    if not situation.allowed_cpus:
        return situation.quota_cpus
    cpus = float(len(situation.allowed_cpus))
    return cpus if situation.quota_cpus is None else min(cpus, situation.quota_cpus)


def masked_by_it(situation: Situation) -> tuple[str, ...]:
    """Return the causes that cannot be judged until it is gone.

    Threads that queue for CPUs are moved about, and wait more than they read. Where they are
    confined to one node they run there in any case, and only their moves say nothing.
    """
    confined = len(situation.confined_to) == 1
    return ("C4",) if confined else ("C1", "C2", "C4", "C7", "C8")


def _cpus(cpus: float) -> str:
    return format_count(int(cpus), "CPU") if cpus == int(cpus) else f"{cpus:.3g} CPUs' time"
