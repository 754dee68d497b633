"""C4, threads hop between nodes, or NUMA balancing costs more than it brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze import evidence
from numatrace.analyze.causes import document_checks, shape
from numatrace.analyze.causes.base import WORTH_SHARE
from numatrace.analyze.causes.lost import added, remote_lost, share_of_time
from numatrace.model.findings import Evidence, Finding, RuledOut
from numatrace.model.measured import Figure
from numatrace.model.units import format_count, format_nodes, format_share

if TYPE_CHECKING:
    from numatrace.analyze.situation import Situation

ID = "C4"
NAME = "scheduler moves threads between nodes"
NUMBER = 4
EXPLAINS = ()

MOVES_PER_S = 0.25
"""From one move between nodes in four seconds of a thread's CPU time on, no placement follows it:
NUMA balancing scans a process once a second at most (numa_balancing_scan_period_min_ms), moves a
page at the second hint, and leaves mapped weights where they are. Threads of an undisturbed pool
that are tied to nothing make a few moves a minute on a large machine."""
CROWDED_MOVES_PER_S = 1.5
"""The same for a pool that no single node has the CPUs for. It runs on several nodes in any case,
and whatever else wakes up pushes a thread away: 0.5 a second without any load beside it."""
LEAST_MOVES = 5
"""With fewer moves in all, a rate says little: the 95 % interval of 5 is 1.6 to 11.7."""
AWAY_SHARE = 0.10
"""Threads that hop are at least so long away from the node where each of them is most."""
MOVE_NS = (100_000, 200_000, 1_000_000)
"""What a move costs by itself, at least, as a rule and at most: 1 to 2 MiB of a core's caches
filled anew at 10 GB/s, and its part of the shared one."""
HINT_NS = (500, 1_000, 2_000)
"""What a hint fault costs: a page fault that finds its page."""
MIGRATE_NS = (2_000, 5_000, 20_000)
"""What moving a page of 4 KiB costs: unmapping on all CPUs, the copy, mapping it again."""


def look(situation: Situation) -> Finding | RuledOut:
    """Return the finding: threads that nothing ties hop often, or balancing costs enough."""
    hopping, busy = is_hopping(situation), _balancing_costs(situation)
    if not hopping and not busy:
        return RuledOut(ID, NAME, judged=situation.moves_per_thread_s is not None,
                        why=_against(situation))  # fmt: skip
    reasons = [evidence.moves(situation), evidence.threads_by_node(situation)]
    return Finding(
        cause=ID,
        name=NAME,
        sentence=_sentence(situation, hopping=hopping),
        tgid=situation.server.tgid,
        evidence=(
            *reasons,
            evidence.weights_by_node(situation),
            evidence.remote(situation),
            *_balancing(situation),
            *evidence.constraints(situation),
        ),
        confidence="high" if hopping and not masked_by_it(situation) else "medium",
        lost_ns=_lost(situation, hopping=hopping),
        document=document_checks.balancing(situation, NUMBER, NAME),
        refuted_by="As many remote reads once every thread is tied to a node, or threads that stay"
        " for seconds where they are.",
    )


def is_hopping(situation: Situation) -> bool:
    """Whether compute threads that may run on several nodes change between them often."""
    rate = situation.moves_per_thread_s
    moves = sum(thread.moves for thread in situation.compute)
    if rate is None or rate.value < least_rate(situation) or moves < LEAST_MOVES:
        return False
    return len(situation.cpu_nodes) > 1 and away_share(situation) >= AWAY_SHARE


def least_rate(situation: Situation) -> float:
    """Return from how many moves per second of CPU time on threads hop."""
    allowed = set(situation.allowed_cpus) or set(situation.topology.cpu_to_node)
    largest = max((len(allowed & set(node.cpus)) for node in situation.topology.nodes), default=0)
    return MOVES_PER_S if situation.threads_used <= largest else CROWDED_MOVES_PER_S


def away_share(situation: Situation) -> float:
    """Return the part of their CPU time that threads spent off the node where each is most."""
    total = sum(thread.total_ns for thread in situation.compute)
    home = sum(max(thread.oncpu_ns.values(), default=0) for thread in situation.compute)
    return (total - home) / total if total else 0.0


def masked_by_it(situation: Situation) -> tuple[str, ...]:
    """Return the causes that cannot be judged while threads hop.

    Where memory is only because its first reader ran there, which node is the right one depends on
    where the threads stay. What policy or cpuset has put there is wrong or right as it is.
    """
    if not is_hopping(situation) or shape.explained_by_policy(situation):
        return ()
    return "C1", "C2", "C8"


def _lost(situation: Situation, *, hopping: bool) -> Figure | None:
    moves = sum(thread.moves for thread in situation.compute)
    own = _cost(((moves if hopping else 0, MOVE_NS),))
    remote = remote_lost(situation) if masked_by_it(situation) else None
    return added(added(own, remote), _balancing_lost(situation))


def _cost(counts: tuple[tuple[int, tuple[int, int, int]], ...]) -> Figure | None:
    if not any(count for count, _ in counts):
        return None
    low, value, high = (
        float(sum(count * each[place] for count, each in counts)) for place in range(3)
    )
    return Figure(value, "ns", "model", low, high)


def _balancing_lost(situation: Situation) -> Figure | None:
    """Return what balancing cost all processes; at most what the compute threads used."""
    if not situation.numa_balancing:
        return None
    hints, pages = situation.hint_faults or 0, situation.migrated_pages or 0
    return _cost(((hints, HINT_NS), (pages, MIGRATE_NS)))


def _balancing_costs(situation: Situation) -> bool:
    lost = _balancing_lost(situation)
    return lost is not None and share_of_time(situation, lost)[0] >= WORTH_SHARE


def _balancing(situation: Situation) -> list[Evidence]:
    if not situation.numa_balancing:
        return []
    hints, pages = situation.hint_faults or 0, situation.migrated_pages or 0
    by_balancing = sum(thread.balance_moves for thread in situation.compute)
    return [
        Evidence(
            f"NUMA balancing is on: {format_count(hints, 'hint fault')} and"
            f" {format_count(pages, 'migrated page')} of all processes, and"
            f" {format_count(by_balancing, 'move')} of the compute threads by it.",
            (
                Figure(hints, "faults", "counter"),
                Figure(pages, "pages", "counter"),
                Figure(by_balancing, "moves", "event"),
            ),
        )
    ]


def _sentence(situation: Situation, *, hopping: bool) -> str:
    rate = situation.moves_per_thread_s
    if hopping and rate is not None:
        away = format_share(away_share(situation))
        return (
            f"The compute threads move {rate.value:.2g} times per second of their CPU time between"
            f" {format_nodes(situation.cpu_nodes)}, and are {away} of it off the node where each"
            " is most: memory cannot follow them."
        )
    return (
        "NUMA balancing looks at the memory of this machine all the time and moves"
        f" {format_count(situation.migrated_pages or 0, 'page')}: that costs more than it brings."
    )


def _against(situation: Situation) -> str:
    rate = situation.moves_per_thread_s
    if rate is None:
        return "The trace does not say where the compute threads ran."
    if len(situation.cpu_nodes) < 2:
        return f"The compute threads may run on {format_nodes(situation.cpu_nodes)} only."
    away, least = format_share(away_share(situation)), least_rate(situation)
    if rate.value >= least:
        return f"The threads are {away} of their time off the node where each is most."
    return (
        f"{rate.value:.2g} moves between nodes per second of CPU time, with {away} of it off the"
        f" node where each thread is most: below {least:g} they do little."
    )
