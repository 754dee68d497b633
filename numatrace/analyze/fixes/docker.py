"""The fix for a docker container; one that docker compose made goes through compose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.fixes import compose, engine

if TYPE_CHECKING:
    from numatrace.analyze.plans.plan import Plan
    from numatrace.analyze.situation import Situation
    from numatrace.model.findings import Fix


def render(situation: Situation, plan: Plan, passed: tuple[str, ...]) -> Fix:
    """Return the plan as commands for docker. Raises RefusedError where none can be exact."""
    if situation.root.deployment.compose_project:
        return compose.render(situation, plan, passed)
    return engine.render(situation, plan, passed, "docker")
