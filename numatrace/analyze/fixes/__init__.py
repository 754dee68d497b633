"""From a finding to commands: the best plans first, linted, written for how the server is run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from numatrace.analyze.fixes import (
    by_hand,
    cgroup,
    docker,
    kubernetes,
    live,
    podman,
    sysctl,
    systemd,
)
from numatrace.analyze.fixes.quoting import RefusedError
from numatrace.analyze.plans.choose import choose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numatrace.analyze.plans.choose import Choice
    from numatrace.analyze.plans.plan import Plan
    from numatrace.analyze.situation import Situation
    from numatrace.model.findings import Finding, Fix

    Render = Callable[[Situation, Plan, tuple[str, ...]], Fix]

DEPLOYMENTS: dict[str, Render] = {
    "hand": by_hand.render,
    "systemd": systemd.render,
    "docker": docker.render,
    "podman": podman.render,
    "kubernetes": kubernetes.render,
    "cgroup": cgroup.render,
}
"""How the fix is written, by how the server is run. Whatever else runs containers (LXC, containerd
alone) has settings of its own: there only a fix without a restart is given."""
EVERYWHERE: dict[str, Render] = {"balancing": sysctl.render}
"""Kinds of plans that are carried out the same way, however the server is run."""
ONE_NODE = ("bind", "cpuset")
"""Kinds of plans that a live one can bring about in part, while the server runs on."""


def with_fixes(
    situation: Situation, finding: Finding, choices: Sequence[Choice] | None = None
) -> Finding:
    """Return the finding with its fixes; why one was refused becomes a note.

    The first plan that answers the finding and that can be carried out exactly where the server
    runs; and, where that ties it to a node, the same without a restart. `choices` are those of
    `choose` for this finding, if they are known already.
    """
    notes = list(finding.notes)
    known = choose(situation, finding) if choices is None else choices
    answers = [choice for choice in known if choice.answers and choice.passed]
    chosen, fix = _first(situation, answers, notes)
    fixes = [] if fix is None else [fix]
    kinds = {choice.plan.kind for choice in answers} if chosen is None else {chosen.plan.kind}
    if kinds & set(ONE_NODE):
        fixes += _live(situation, known, chosen, notes)
    if not fixes:
        notes.append("No fix passed its checks on this machine.")
    return replace(finding, fixes=tuple(fixes), notes=tuple(notes))


def _first(
    situation: Situation, answers: Sequence[Choice], notes: list[str]
) -> tuple[Choice | None, Fix | None]:
    """Return the first plan that can be written for this deployment, and the fix."""
    for choice in answers:
        render = EVERYWHERE.get(choice.plan.kind) or DEPLOYMENTS.get(situation.deployment)
        if render is None:
            notes.append(
                f"The server runs in a container of a kind ({_container(situation)}) whose settings"
                " numatrace does not know: what is here lasts until the container is restarted."
            )
            return None, None
        try:
            return choice, render(situation, choice.plan, tuple(choice.checked.passed))
        except RefusedError as refusal:
            notes.append(f"Refused to {choice.plan.title}: {refusal}.")
    return None, None


def _live(
    situation: Situation, known: Sequence[Choice], chosen: Choice | None, notes: list[str]
) -> list[Fix]:
    """Return the fix without a restart, for the node of the chosen plan; else none."""
    for choice in known:
        same = chosen is None or choice.plan.nodes == chosen.plan.nodes
        if choice.plan.kind != "live" or not choice.passed or not same:
            continue
        try:
            return [live.render(situation, choice.plan, tuple(choice.checked.passed))]
        except RefusedError as refusal:
            notes.append(f"Without a restart it cannot be done: {refusal}.")
    return []


def _container(situation: Situation) -> str:
    return situation.root.deployment.container_kind or situation.deployment
