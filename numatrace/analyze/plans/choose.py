"""Choose among the plans: the one to carry out first, and of each other one why it is not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from numatrace.analyze.causes.c4_scheduler import is_hopping
from numatrace.analyze.plans.candidates import bound_to, candidates
from numatrace.analyze.plans.lint import SAME_NODE, lint
from numatrace.analyze.plans.predict import predict
from numatrace.analyze.plans.speeds import speeds
from numatrace.model.findings import PlanView
from numatrace.model.units import format_nodes, format_share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numatrace.analyze.plans.lint import Checked
    from numatrace.analyze.plans.plan import Kind, Plan
    from numatrace.analyze.plans.predict import Prediction
    from numatrace.analyze.situation import Situation
    from numatrace.model.findings import Finding

NOT_WORSE = 0.95
"""Binding to one node goes first as long as it is not predicted to be slower than today: it makes
every access local whatever the server does, and is the most consistently reported gain."""
ONE_SIDED = 0.75
"""With more of the weights on one node than this, or with more reads remote than FAR, placement is
wrong as well where there are too many threads; evenly spread weights stay below it."""
FAR = 0.20
REFUSED = "it cannot be carried out exactly for how this server is run"

PLACEMENT: tuple[Kind, ...] = ("bind", "interleave", "distribute")
ANSWERS: dict[str, tuple[Kind, ...]] = {
    "C4": ("bind", "distribute", "interleave"),
    "C5": ("cpuset", "bind", "interleave", "distribute"),
    "C6": ("threads",),
    "C8": ("interleave", "distribute", "bind"),
}
"""Kinds of plans that put a cause right, the preferred one first; PLACEMENT for all other causes.
Threads that hop are not held by interleaving, so it comes last; memory that one thread filled is
better spread than moved."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A plan with all that is known of it. The one to carry out has no `why_not`."""

    plan: Plan
    prediction: Prediction
    checked: Checked
    why_not: str = ""
    answers: bool = False
    """Whether it puts the cause right: the next one of these stands in for one that is refused."""

    @property
    def passed(self) -> bool:
        """Whether it may become a fix at all."""
        return not self.checked.failed


def choose(situation: Situation, finding: Finding | None) -> tuple[Choice, ...]:
    """Return all plans for a finding, the recommended one first, then the others as they come.

    Without a finding, or when no plan both answers it and passes the lint, none is recommended.
    """
    known = speeds(situation)
    weighed = [
        Choice(plan, predict(situation, plan, known), lint(situation, plan))
        for plan in candidates(situation)
    ]
    answers = _answers(situation, finding)
    able = [
        replace(each, answers=True) for each in weighed if each.passed and each.plan.kind in answers
    ]
    able.sort(key=lambda each: answers.index(each.plan.kind))
    best = _best(able)
    rest = [each for each in weighed if not each.passed or each.plan.kind not in answers]
    order = [*able, *rest]
    others = [each for each in order if each is not best]
    refused = tuple(
        replace(each, why_not=_why_not(situation, each, best, finding))
        for each in sorted(others, key=lambda each: not each.passed)
    )
    return (best, *refused) if best is not None else refused


def to_views(choices: Iterable[Choice], done: str) -> tuple[PlanView, ...]:
    """Return the plans as the report shows them; `done` is the id of the one that the fix does.

    That may be another than the best, which how the server is run can rule out, or "" for none.
    """
    return tuple(
        PlanView(
            id=each.plan.id,
            title=each.plan.title,
            chosen=each.plan.id == done,
            remote_share=each.prediction.remote_share,
            node_bytes=each.prediction.node_bytes,
            speedup=each.prediction.speedup,
            assumptions=each.prediction.assumptions,
            why_not="" if each.plan.id == done else each.why_not or REFUSED,
            lint=tuple(each.checked.failed),
        )
        for each in choices
    )


def _answers(situation: Situation, finding: Finding | None) -> tuple[Kind, ...]:
    if finding is None:
        return ()
    if finding.cause == "C4" and situation.numa_balancing and not is_hopping(situation):
        return ("balancing", *ANSWERS["C4"])
    if finding.cause == "C6" and _placed_wrongly(situation):
        return (*PLACEMENT, "threads")
    return ANSWERS.get(finding.cause, PLACEMENT)


def _placed_wrongly(situation: Situation) -> bool:
    """Whether reads are remote that need not be, and not only as the price of spreading."""
    remote = situation.remote
    largest = max(situation.weights.parts.values(), default=0.0)
    return remote is not None and remote.value > FAR and largest > ONE_SIDED


def _best(able: Sequence[Choice]) -> Choice | None:
    """Return the first plan, unless a later one is clearly faster.

    That is one whose least speed is more than the other's most; or, where the first is predicted
    to be slower than today, any that is faster.
    """
    best = able[0] if able else None
    for each in able[1:]:
        if best is not None and _clearly_faster(each, best):
            best = each
    return best


def _clearly_faster(one: Choice, other: Choice) -> bool:
    fast, slow = one.prediction.speedup, other.prediction.speedup
    if fast is None or slow is None:
        return False
    low, high = fast.low or fast.value, slow.high or slow.value
    return low > high or (slow.value < NOT_WORSE and fast.value > slow.value)


def _why_not(
    situation: Situation, choice: Choice, best: Choice | None, finding: Finding | None
) -> str:
    """Say in a few words why a plan is not the one to carry out."""
    if not choice.passed:
        return "; ".join(choice.checked.failed)
    if finding is None:
        return _ALTERNATIVES.get(choice.plan.kind, "nothing is found wrong that it would put right")
    if best is None or choice.plan.kind not in _answers(situation, finding):
        return _ALTERNATIVES.get(choice.plan.kind, "fewer threads are enough: memory may stay")
    return _compared(situation, choice, best)


_ALTERNATIVES: dict[Kind, str] = {
    "per-node": "for many requests at once only: a single one gets one node's speed",
    "live": "lasts until the model is loaded again; a restart under the setting stays",
    "balancing": "no memory policy: it moves threads and private pages as the kernel sees fit, and"
    " mapped weights never",
    "threads": "memory would stay where it is",
    "cpuset": "no cpuset keeps the threads from their memory",
}


def _compared(situation: Situation, choice: Choice, best: Choice) -> str:
    plan, other = choice.plan, best.plan
    fast, slow = best.prediction.speedup, choice.prediction.speedup
    if plan.kind in SAME_NODE and plan.kind == other.kind:
        return _other_node(situation, plan, other)
    if fast is not None and slow is not None and _clearly_faster(best, choice):
        return f"slower: {_times(slow.low, slow.high)} against {_times(fast.low, fast.high)}"
    if other.kind in SAME_NODE and choice.prediction.remote_share is not None:
        share = format_share(choice.prediction.remote_share.value)
        if plan.kind == "distribute":
            return "not clearly faster, and it needs cold pages and many slow answers to begin with"
        return f"not clearly faster, and {share} of the reads stay remote"
    return "not clearly faster"


def _other_node(situation: Situation, plan: Plan, other: Plan) -> str:
    if situation.gpu_nodes and plan.node not in situation.gpu_nodes:
        return f"the GPU is attached to {format_nodes(situation.gpu_nodes)}"
    if bound_to(situation) == other.node:
        return f"CPUs and memory policy are bound to node {other.node} already, on purpose"
    if other.node == situation.weights.holder:
        return f"most of the weights are on node {other.node} already"
    return f"node {other.node} has as many cores, as near and as much room, or more"


def _times(low: float | None, high: float | None) -> str:
    return f"{low or 0.0:.1f} to {high or 0.0:.1f} times today's speed"
