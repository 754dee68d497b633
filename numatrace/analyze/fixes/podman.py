"""The fix for a podman container: docker's options, and podman's own conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.fixes import engine

if TYPE_CHECKING:
    from numatrace.analyze.plans.plan import Plan
    from numatrace.analyze.situation import Situation
    from numatrace.model.findings import Fix


def render(situation: Situation, plan: Plan, passed: tuple[str, ...]) -> Fix:
    """Return the plan as commands for podman. Raises RefusedError where none can be exact."""
    return engine.render(situation, plan, passed, "podman")
