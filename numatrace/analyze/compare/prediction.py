"""What the report before predicted of its fix, against what the recording after shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.compare.changes import NOTABLE
from numatrace.analyze.samples.shares import parts
from numatrace.model.comparison import Check, PredictionCheck

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.model.findings import PlanView
    from numatrace.model.report import Report

ROUNDING = 1e-9


def prediction(before: Report, after: Report) -> PredictionCheck | None:
    """Return how the chosen plan of the report before fared, or None where it chose none."""
    plan = next((plan for plan in before.plans if plan.chosen), None)
    if plan is None:
        return None
    checks = tuple(_checks(plan, after))
    cause = before.findings[0].cause if before.findings else ""
    gone = all(finding.cause != cause for finding in after.findings)
    return PredictionCheck(plan.id, plan.title, checks, cause, gone, _kept(checks, gone=gone))


def _kept(checks: tuple[Check, ...], *, gone: bool) -> bool | None:
    """Whether all is as predicted. A figure that is off decides, even if others are unknown."""
    kept = [check.kept for check in checks]
    if False in kept or not gone:
        return False
    return True if kept and None not in kept else None


def _checks(plan: PlanView, after: Report) -> Iterator[Check]:
    server = after.server
    if plan.remote_share is not None:
        share = server.remote_share if server is not None else None
        seen = share.value if share is not None else None
        yield _check("remote reads of the weights", plan.remote_share.value, seen)
    predicted = parts(plan.node_bytes)
    shares = parts(server.weights_bytes) if server is not None else {}
    for node in sorted({*predicted, *shares} if predicted else ()):
        seen = shares.get(node, 0.0) if shares else None
        yield _check(f"weights on node {node}", predicted.get(node, 0.0), seen)


def _check(name: str, predicted: float, seen: float | None) -> Check:
    if seen is None:
        return Check(name, predicted, None, None, None)
    off = seen - predicted
    return Check(name, predicted, seen, off, abs(off) <= NOTABLE + ROUNDING)
