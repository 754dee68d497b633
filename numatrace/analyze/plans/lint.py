"""Check a plan against the machine before anything of it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from numatrace.analyze.commandline import asked_threads
from numatrace.analyze.plans.room import need_bytes, room_bytes
from numatrace.model.cpulist import format_cpulist
from numatrace.model.units import format_bytes, format_count, format_nodes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numatrace.analyze.plans.plan import Plan
    from numatrace.analyze.situation import Situation


@dataclass(slots=True)
class Checked:
    """What a plan passed and what it failed, each with the numbers."""

    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def check(self, holds: bool, good: str, bad: str) -> None:
        """Note the outcome of one check."""
        (self.passed if holds else self.failed).append(good if holds else bad)


def lint(situation: Situation, plan: Plan) -> Checked:
    """Return the outcome of all checks; a plan with anything failed must not become a fix."""
    checked = Checked()
    for check in CHECKS:
        check(situation, plan, checked)
    return checked


def _nodes(situation: Situation, plan: Plan, checked: Checked) -> None:
    missing = set(plan.nodes) - set(situation.topology.nodes_with_memory)
    named = format_nodes(plan.nodes)
    checked.check(
        bool(plan.nodes) and not missing,
        f"{named}: there, with memory",
        f"no memory on {format_nodes(tuple(missing))}",
    )


def _cpus(situation: Situation, plan: Plan, checked: Checked) -> None:
    cpu_to_node = situation.topology.cpu_to_node
    known = bool(plan.cpus) and all(cpu in cpu_to_node for cpu in plan.cpus)
    checked.check(
        known,
        f"CPUs {format_cpulist(plan.cpus)}: there, and online",
        f"CPUs {format_cpulist(plan.cpus) or '(none)'} are not all there",
    )
    if plan.kind == "bind" and known:
        nodes = {cpu_to_node[cpu] for cpu in plan.cpus}
        checked.check(
            nodes == set(plan.nodes),
            f"these CPUs are those of {format_nodes(plan.nodes)}",
            f"these CPUs are on {format_nodes(tuple(nodes))}",
        )


def _threads(situation: Situation, plan: Plan, checked: Checked) -> None:
    threads, cpus = plan.threads, len(plan.cpus)
    if threads is None:
        # The count stays as it is; without one on the command line, it may be every core's.
        threads = asked_threads(situation.server) or len(situation.topology.cpu_to_node)
    each = format_count(threads, "compute thread")
    limit = format_count(cpus, "CPU")
    more = "and how it is started cannot change that" if plan.threads is None else "too many"
    checked.check(
        1 <= threads <= cpus or (plan.threads is None and plan.kind == "interleave"),
        f"{each} for {limit}",
        f"{each} for {limit}: {more}",
    )


def _bytes(situation: Situation, plan: Plan, checked: Checked) -> None:
    need = need_bytes(situation)
    room = sum(room_bytes(situation, node) for node in plan.nodes)
    where = format_nodes(plan.nodes)
    checked.check(
        need <= room,
        f"{format_bytes(need)} needed; {where}: {format_bytes(room)} free or reclaimable",
        f"{format_bytes(need)} needed; {where}: only {format_bytes(room)} free or reclaimable",
    )


def _gpu(situation: Situation, plan: Plan, checked: Checked) -> None:
    if situation.gpu:
        checked.check(
            plan.kind != "interleave",
            "no interleaving, as the server uses a GPU",
            "the server uses a GPU: interleaving all of its memory would slow its transfers",
        )


CHECKS: tuple[Callable[[Situation, Plan, Checked], None], ...] = (
    _nodes,
    _cpus,
    _threads,
    _bytes,
    _gpu,
)
