"""From a finding to commands: plans in order of preference, linted, written for the deployment."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from numatrace.analyze.fixes import by_hand, systemd
from numatrace.analyze.fixes.common import title
from numatrace.analyze.fixes.quoting import RefusedError
from numatrace.analyze.plans.lint import lint
from numatrace.analyze.plans.plan import plans, root_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from numatrace.analyze.plans.plan import Plan
    from numatrace.analyze.situation import Situation
    from numatrace.model.process import Process
    from numatrace.model.report import Finding, Fix

DEPLOYMENTS: dict[str, Callable[[Situation, Plan, tuple[str, ...]], Fix]] = {
    "hand": by_hand.render,
    "systemd": systemd.render,
}
LOGIN_UNITS = re.compile(
    r"(ssh|sshd|ssh@.*|sshd@.*|user@.*|getty@.*|serial-getty@.*|cron|crond|atd|docker|containerd"
    r"|dbus|display-manager|gdm|sddm|lightdm)\.service"
)
"""Units that start what people run, and are not themselves the server."""


def with_fixes(situation: Situation, finding: Finding) -> Finding:
    """Return the finding with the first plan that passes, as a fix; refusals become notes."""
    deployment = deployment_of(root_process(situation))
    render = DEPLOYMENTS.get(deployment)
    if render is None:
        note = f"The server runs in a {deployment}; numatrace cannot write the fix for it yet."
        return replace(finding, notes=(*finding.notes, note))
    notes = list(finding.notes)
    for plan in plans(situation):
        checked = lint(situation, plan)
        try:
            if checked.failed:
                raise RefusedError("; ".join(checked.failed))
            fix = render(situation, plan, tuple(checked.passed))
        except RefusedError as refusal:
            notes.append(f"Refused to {title(plan)}: {refusal}.")
            continue
        return replace(finding, fixes=(fix,), notes=tuple(notes))
    return replace(finding, notes=(*notes, "No fix passed its checks on this machine."))


def deployment_of(root: Process) -> str:
    """Return how the process is run: `container`, `systemd` or `hand`."""
    deployment = root.deployment
    if deployment.container_kind or deployment.manager == "container":
        return "container"
    service = deployment.unit.endswith(".service") and not LOGIN_UNITS.fullmatch(deployment.unit)
    return "systemd" if service else "hand"
