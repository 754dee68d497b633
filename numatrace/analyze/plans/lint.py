"""Check a plan against the machine before anything of it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from numatrace.analyze.commandline import is_llama_cpp
from numatrace.analyze.plans.cores import running_threads
from numatrace.analyze.plans.room import need_bytes, room_bytes
from numatrace.model.cpulist import format_cpulist
from numatrace.model.units import format_bytes, format_count, format_nodes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numatrace.analyze.plans.plan import Plan
    from numatrace.analyze.situation import Situation

SAME_NODE = ("bind", "cpuset", "live")
"""Kinds of plans whose CPUs and memory are on one node."""
SEVERAL = ("interleave", "distribute", "per-node")
"""Kinds of plans that need several nodes."""
GGML_NODES, GGML_CPUS = 8, 512
"""llama.cpp looks at so many nodes and CPUs and no further (GGML_NUMA_MAX_NODES, _MAX_CPUS)."""


@dataclass(slots=True)
class Checked:
    """What a plan passed and what it failed, each with the numbers."""

    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def check(self, holds: bool, good: str, bad: str) -> None:
        """Note the outcome of one check; what is "" is not worth a word."""
        text = good if holds else bad
        if text:
            (self.passed if holds else self.failed).append(text)


def lint(situation: Situation, plan: Plan) -> Checked:
    """Return the outcome of all checks; a plan with anything failed must not become a fix."""
    checked = Checked()
    if plan.kind == "balancing":
        _balancing(situation, plan, checked)
        return checked
    for check in CHECKS:
        check(situation, plan, checked)
    return checked


def _nodes(situation: Situation, plan: Plan, checked: Checked) -> None:
    if plan.kind == "threads":
        return
    missing = set(plan.nodes) - set(situation.topology.nodes_with_memory)
    named = format_nodes(plan.nodes)
    checked.check(
        bool(plan.nodes) and not missing,
        f"{named}: there, with memory",
        f"no memory on {format_nodes(tuple(missing))}" if missing else "no node to keep memory on",
    )
    if plan.kind in SEVERAL:
        checked.check(len(plan.nodes) > 1, "", f"{named} alone: nothing to spread over")


def _cpus(situation: Situation, plan: Plan, checked: Checked) -> None:
    cpu_to_node = situation.topology.cpu_to_node
    known = bool(plan.cpus) and all(cpu in cpu_to_node for cpu in plan.cpus)
    checked.check(
        known,
        f"CPUs {format_cpulist(plan.cpus)}: there, and online",
        f"CPUs {format_cpulist(plan.cpus) or '(none)'} are not all there",
    )
    without = set(plan.nodes) & set(situation.topology.memory_only_nodes)
    if plan.kind in (*SAME_NODE, "distribute", "per-node"):
        checked.check(
            not without, "", f"{format_nodes(tuple(without))}: no CPUs there to run threads on"
        )
        nodes = {cpu_to_node[cpu] for cpu in plan.cpus if cpu in cpu_to_node}
        checked.check(
            nodes == set(plan.nodes),
            f"these CPUs are those of {format_nodes(plan.nodes)}",
            f"these CPUs are on {format_nodes(tuple(nodes))}",
        )


def _allowed(situation: Situation, plan: Plan, checked: Checked) -> None:
    """A cpuset that the server does not have to itself outlives any restart from there."""
    cgroup = situation.root.cgroup
    own = situation.deployment not in ("hand", "cgroup") and (
        situation.root.deployment.manager != "user"
    )
    if own or (plan.kind == "cpuset" and situation.deployment == "cgroup"):
        return
    cpus = format_cpulist(cgroup.cpus)
    checked.check(
        not cgroup.cpus or set(plan.cpus) <= set(cgroup.cpus),
        f"its cgroup's cpuset allows CPUs {cpus}" if cgroup.cpus else "",
        f"its cgroup's cpuset allows CPUs {cpus} only: widen that first",
    )
    mems = situation.mems
    checked.check(
        not mems or set(plan.nodes) <= set(mems),
        f"its cpuset allows memory of {format_nodes(mems)}" if mems else "",
        f"its cpuset allows memory of {format_nodes(mems)} only: widen that first",
    )


def _threads(situation: Situation, plan: Plan, checked: Checked) -> None:
    threads, cpus = plan.threads, len(plan.cpus)
    if threads is None:
        threads = running_threads(situation)
    if plan.kind == "per-node":
        node_of = situation.topology.cpu_to_node
        on = [node_of.get(cpu) for cpu in plan.cpus]
        cpus = min((on.count(node) for node in plan.nodes), default=0)
    each = format_count(threads, "compute thread")
    limit = format_count(cpus, "CPU")
    more = "too many"
    if plan.threads is None:
        more = "and how it is started cannot change that"
        if plan.kind == "live":
            more = "and their number stays as it is while the server runs"
    # Spread over all CPUs, a count that cannot be changed is no worse than it is today.
    as_today = plan.threads is None and plan.kind in ("interleave", "distribute")
    checked.check(
        1 <= threads <= cpus or as_today, f"{each} for {limit}", f"{each} for {limit}: {more}"
    )


def _bytes(situation: Situation, plan: Plan, checked: Checked) -> None:
    if plan.kind == "threads":
        return
    need = need_bytes(situation)
    rooms = {node: room_bytes(situation, node) for node in plan.nodes}
    if plan.kind == "per-node":
        where = format_nodes(plan.nodes)
        least = min(rooms.values(), default=0)
        checked.check(
            need <= least,
            f"{format_bytes(need)} needed on each of {where}: at least {format_bytes(least)} there",
            f"{format_bytes(need)} needed on each of {where}: only {format_bytes(least)} on one",
        )
        return
    room, where = sum(rooms.values()), format_nodes(plan.nodes)
    checked.check(
        need <= room,
        f"{format_bytes(need)} needed; {where}: {format_bytes(room)} free or reclaimable",
        f"{format_bytes(need)} needed; {where}: only {format_bytes(room)} free or reclaimable",
    )


def _gpu(situation: Situation, plan: Plan, checked: Checked) -> None:
    if not situation.gpu:
        return
    checked.check(
        plan.kind != "interleave",
        "no interleaving, as the server uses a GPU",
        "the server uses a GPU: interleaving all of its memory would slow its transfers",
    )
    near = set(situation.gpu_nodes) & set(situation.topology.nodes_with_memory)
    near &= set(situation.topology.nodes_with_cpus)
    fits = [node for node in near if room_bytes(situation, node) >= need_bytes(situation)]
    if plan.kind in SAME_NODE and fits:
        where = format_nodes(tuple(fits))
        checked.check(
            bool(plan.nodes) and plan.node in fits,
            f"{where}: where the GPU is attached",
            f"the GPU is attached to {where}, and the server would fit there",
        )


def _numa_mode(situation: Situation, plan: Plan, checked: Checked) -> None:
    """What llama.cpp's --numa distribute does not cope with (ggml_numa_init, read in its source).

    It counts nodes from 0 to the first gap, and gives threads to all that it has counted, also to
    those without CPUs.
    """
    if plan.kind != "distribute":
        return
    checked.check(
        is_llama_cpp(situation.server.argv), "", "only llama.cpp's own programs know --numa"
    )
    topology, weights = situation.topology, situation.weights
    numbers = tuple(node.node for node in topology.nodes)
    counted = len(numbers) <= GGML_NODES and len(topology.cpu_to_node) <= GGML_CPUS
    checked.check(
        counted and numbers == tuple(range(len(numbers))) and plan.nodes == numbers,
        f"--numa distribute takes all {len(numbers)} nodes, and each has CPUs and memory",
        "--numa distribute copes only with up to 8 nodes and 512 CPUs, numbered without a gap,"
        " that all have CPUs and memory",
    )
    checked.check(
        not weights.private_bytes or bool(weights.paths),
        "",
        "the weights are read into private memory, which one thread fills: --numa changes nothing",
    )


def _balancing(situation: Situation, plan: Plan, checked: Checked) -> None:
    now = situation.numa_balancing
    checked.check(
        plan.balancing in (0, 1) and now is not None and bool(now) != bool(plan.balancing),
        f"kernel.numa_balancing is {now}",
        "this kernel has no NUMA balancing, or it is set so already",
    )


CHECKS: tuple[Callable[[Situation, Plan, Checked], None], ...] = (
    _nodes,
    _cpus,
    _allowed,
    _threads,
    _bytes,
    _gpu,
    _numa_mode,
)
