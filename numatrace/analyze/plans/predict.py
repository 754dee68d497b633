"""What a plan would bring about: who reads what from where, bytes per node, and how fast."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from numatrace.analyze.plans.cores import core_count, cpu_limit, running_threads
from numatrace.analyze.plans.cost import (
    NO_REPACK,
    OVERSUBSCRIBED,
    Range,
    State,
    remote_share,
    speedup,
)
from numatrace.analyze.plans.room import need_bytes, room_bytes
from numatrace.analyze.plans.speeds import speeds
from numatrace.analyze.samples.shares import parts
from numatrace.model.measured import Figure
from numatrace.model.units import format_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numatrace.analyze.plans.plan import Kind, Plan
    from numatrace.analyze.plans.speeds import Speeds
    from numatrace.analyze.situation import Situation

POINTS = 0.05
"""A predicted remote share is meant to hold within so much."""
LEAK = 0.03
"""Reads of other nodes' memory that are left when threads keep to rows that they read first: the
page at the edge of each thread's part, and weights that are not cut up."""
ONE_WAY = Range(1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a plan is predicted to bring about; None where the trace says too little."""

    remote_share: Figure | None
    node_bytes: dict[int, int]
    """Bytes of weights on each node; of `per-node`, of all instances together."""
    speedup: Figure | None
    """Tokens per second as a multiple of today's; of `per-node`, of all instances together."""
    assumptions: tuple[str, ...]


@dataclass(slots=True)
class _Outcome:
    """Where things are after a plan."""

    threads: dict[int, float]
    node_bytes: dict[int, int]
    cores: int
    own: float = 0.0
    instances: int = 1
    factor: Range = ONE_WAY
    """Further effect on the speed, beside the placement's."""
    points: float = POINTS
    assumptions: list[str] = field(default_factory=list)


def predict(situation: Situation, plan: Plan, known: Speeds | None = None) -> Prediction:
    """Return what the plan would bring about.

    `known` are the machine's speeds, where several plans are predicted one after the other.
    """
    known = known or speeds(situation)
    outcome = _OUTCOMES[plan.kind](situation, plan)
    _threads_change(situation, plan, outcome)
    before = state_now(situation)
    after = _state(situation, outcome)
    if before is None or after is None:
        return Prediction(None, outcome.node_bytes, None, tuple(outcome.assumptions))
    share = remote_share(known.machine, after)
    gain = speedup(known.machine, before, after)
    if outcome.factor != ONE_WAY:
        gain = _limited(gain.times(outcome.factor))
    low, high = max(0.0, share - outcome.points), min(1.0, share + outcome.points)
    return Prediction(
        Figure(share, "share", "model", low, high),
        outcome.node_bytes,
        Figure(gain.middle, "times", "model", gain.low, gain.high),
        (*outcome.assumptions, *known.assumptions),
    )


def _limited(gain: Range) -> Range:
    """Return a gain or loss of placement and of too many threads together, as far as was seen."""
    most = OVERSUBSCRIBED.high
    return Range(max(1 / most, min(most, gain.low)), min(most, gain.high))


def state_now(situation: Situation) -> State | None:
    """Return who reads what today, or None where the trace says too little.

    Where fewer reads are remote by measurement than by placement, threads keep to rows of their
    own: that part of the reads is their own also in the model.
    """
    threads = _on_known(situation, situation.compute_ns)
    weights = _on_known(situation, situation.weights.node_bytes)
    if not threads or not weights:
        return None
    own = 0.0
    expected, measured = situation.expected, situation.measured
    if expected is not None and measured is not None and 0 < measured.value < expected.value:
        own = 1.0 - measured.value / expected.value
    return State(threads, weights, _cores_now(situation), own)


def _on_known(situation: Situation, amounts: Mapping[int, int]) -> dict[int, float]:
    """Return shares of what is on nodes of the machine; a damaged trace may name others."""
    known = {node.node for node in situation.topology.nodes}
    return parts({node: amount for node, amount in amounts.items() if node in known})


def _state(situation: Situation, outcome: _Outcome) -> State | None:
    weights = _on_known(situation, outcome.node_bytes)
    if not weights or not outcome.threads:
        return None
    return State(outcome.threads, weights, outcome.cores, outcome.own, outcome.instances)


def _cores_now(situation: Situation) -> int:
    cpus = situation.allowed_cpus or situation.topology.cpu_to_node
    return max(1, min(core_count(situation, cpus), running_threads(situation)))


def _cores_after(situation: Situation, plan: Plan) -> int:
    threads = plan.threads or running_threads(situation)
    return max(1, min(core_count(situation, plan.cpus), threads))


def _by_cores(situation: Situation, cpus: Iterable[int]) -> dict[int, float]:
    """Return the share of threads on each node that the scheduler brings about: as many as CPUs."""
    node_of = situation.topology.cpu_to_node
    return parts(Counter(node_of[cpu] for cpu in cpus if cpu in node_of))


def _total(situation: Situation) -> int:
    return situation.weights.present_bytes + situation.weights.absent_bytes


# --- what each kind of plan brings about


def _one_node(situation: Situation, plan: Plan) -> _Outcome:
    """All on one node, but for mapped pages that stay where they are when nothing is evicted."""
    weights, node = situation.weights, plan.node
    stays = {} if plan.evict else dict(weights.mapped_bytes)
    stays.pop(node, None)
    held = {other: size for other, size in stays.items() if size}
    held[node] = _total(situation) - sum(held.values())
    return _Outcome({node: 1.0}, dict(sorted(held.items())), _cores_after(situation, plan))


def _live(situation: Situation, plan: Plan) -> _Outcome:
    found = _one_node(situation, replace(plan, evict=situation.weights.paths or ("",)))
    found.assumptions.append("all pages that the server maps can be moved, and none is in use")
    return found


def _interleave(situation: Situation, plan: Plan) -> _Outcome:
    found = _Outcome(
        _by_cores(situation, plan.cpus),
        _poured(situation, plan.nodes, _total(situation)),
        _cores_after(situation, plan),
    )
    found.assumptions.append("every thread reads from everywhere, page by page in turns")
    return found


def _poured(situation: Situation, nodes: tuple[int, ...], size: int) -> dict[int, int]:
    """Return bytes spread evenly; what a full node cannot take goes to the others."""
    need = max(1, need_bytes(situation))
    room = {node: room_bytes(situation, node) * size // need for node in nodes}
    held = dict.fromkeys(nodes, 0)
    left, open_ = size, sorted(nodes, key=lambda node: (room[node], node))
    for place, node in enumerate(open_):
        held[node] = min(room[node], left // (len(open_) - place))
        left -= held[node]
    if left > 0 and nodes:
        held[open_[-1]] += left
    return held


def _distribute(situation: Situation, plan: Plan) -> _Outcome:
    """ggml gives thread i to node i modulo N, and each thread the same part of every weight."""
    threads = plan.threads or running_threads(situation)
    on = Counter(plan.nodes[number % len(plan.nodes)] for number in range(min(threads, 1 << 14)))
    total = _total(situation)
    share = parts(on)
    held = {node: int(total * part) for node, part in share.items()}
    held[plan.nodes[0]] += total - sum(held.values())
    found = _Outcome(share, held, _cores_after(situation, plan), own=1.0 - LEAK)
    found.assumptions += [
        "the model's pages are not cached when it is started, and the first answers, which are"
        " slow, read them",
        "each thread always reads the same rows (ggml with --numa)",
    ]
    if plan.repack is False:
        found.factor = NO_REPACK
        found.assumptions.append("weights that are not repacked are read 0 to 20 % more slowly")
    return found


def _per_node(situation: Situation, plan: Plan) -> _Outcome:
    share = _by_cores(situation, plan.cpus)
    total = _total(situation)
    cores = core_count(situation, plan.cpus)
    found = _Outcome(
        share, dict.fromkeys(plan.nodes, total), cores, own=1.0, instances=len(plan.nodes)
    )
    found.assumptions += [
        "there are always as many requests as instances, shared out among them; the speed is that"
        " of all together",
        "each has its own copy of the weights (--no-mmap): mapped pages would be one copy for all",
    ]
    return found


def _same_memory(situation: Situation, plan: Plan) -> _Outcome:
    threads = _on_known(situation, situation.compute_ns)
    found = _Outcome(threads, situation.weights.node_bytes, _cores_now(situation))
    state = state_now(situation)
    found.own = state.own if state is not None else 0.0
    if plan.kind == "threads":
        found.threads = _by_cores(situation, plan.cpus)
        found.cores = _cores_after(situation, plan)
        found.assumptions.append("memory stays where it is; private memory is filled as before")
    return found


def _balancing(situation: Situation, plan: Plan) -> _Outcome:
    found = _same_memory(situation, plan)
    if plan.balancing and situation.weights.private_bytes:
        found.points = 1.0
        found.assumptions.append(
            "what the kernel moves, and when, cannot be foretold; mapped weights it never moves"
        )
    return found


_OUTCOMES: dict[Kind, Callable[[Situation, Plan], _Outcome]] = {
    "bind": _one_node,
    "cpuset": _one_node,
    "live": _live,
    "interleave": _interleave,
    "distribute": _distribute,
    "per-node": _per_node,
    "threads": _same_memory,
    "balancing": _balancing,
}


def _threads_change(situation: Situation, plan: Plan, outcome: _Outcome) -> None:
    """Count in that more threads than CPUs end, or begin."""
    if plan.kind == "balancing":
        return
    now = crowded(situation)
    threads = (plan.threads or running_threads(situation)) * outcome.instances
    room = cpu_limit(situation, len(plan.cpus))
    if now and threads <= room:
        outcome.factor = outcome.factor.times(OVERSUBSCRIBED)
        many = format_count(running_threads(situation), "thread")
        few = format_count(cpu_limit(situation, len(situation.allowed_cpus)), "CPU")
        outcome.assumptions.append(
            f"{many} on {few} wait for one another for whole time slices: 45 times slower was"
            " seen, and little where each operation takes long"
        )
    elif threads > room and not now:
        outcome.factor = outcome.factor.times(Range(1 / OVERSUBSCRIBED.high, 1.0))
        many, few = format_count(threads, "thread"), format_count(room, "CPU")
        outcome.assumptions.append(f"{many} would share {few}, and wait for one another")


def crowded(situation: Situation) -> bool:
    """Whether more compute threads run than there is CPU time for."""
    allowed = len(situation.allowed_cpus or situation.topology.cpu_to_node)
    return situation.threads_used > cpu_limit(situation, allowed)
