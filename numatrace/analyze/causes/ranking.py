"""Look for every cause, tell several at once apart, and put the first one first."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from numatrace.analyze import evidence
from numatrace.analyze.causes import (
    c1_imbalance,
    c2_affinity,
    c3_too_small,
    c4_scheduler,
    c5_isolation,
    c6_oversubscription,
    c7_page_cache,
    c8_first_touch,
    c9_no_effect,
)
from numatrace.analyze.causes.base import WORTH_SHARE
from numatrace.analyze.causes.lost import capped, share_of_time
from numatrace.model.findings import Finding, RuledOut
from numatrace.model.units import format_share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numatrace.analyze.causes.base import Cause
    from numatrace.analyze.situation import Situation

CAUSES: tuple[Cause, ...] = (
    c6_oversubscription,
    c3_too_small,
    c5_isolation,
    c7_page_cache,
    c8_first_touch,
    c4_scheduler,
    c1_imbalance,
    c2_affinity,
    c9_no_effect,
)
"""In the order in which one accounts for the signs of another. Every module has `look`."""
FREE_OF_COST = (c6_oversubscription.ID, c9_no_effect.ID)
"""Causes that are not weighed by the time they cost: C6 always costs much, C9 nothing itself."""


@dataclass(slots=True)
class Judged:
    """What was found, the first cause first; what is there and costs too little; what is not."""

    findings: list[Finding] = field(default_factory=list)
    cheap: list[Finding] = field(default_factory=list)
    """Findings that are not worth a change; only where there are no others."""
    ruled_out: list[RuledOut] = field(default_factory=list)


def judge(situation: Situation, others: Sequence[Cause] = ()) -> Judged:
    """Return what is wrong, without our fixes, and what was looked for in vain.

    `others` are causes of other packages, which are judged beside CAUSES.
    """
    causes = (*CAUSES, *others)
    judged = _look(situation, causes)
    _mask(judged, c6_oversubscription.ID, c6_oversubscription.masked_by_it(situation))
    _explain(judged, causes)
    _mask(judged, c4_scheduler.ID, c4_scheduler.masked_by_it(situation))
    _weigh(judged, situation)
    # Not in place: the rank of one depends on which others there are.
    places = {cause.ID: place for place, cause in enumerate(causes)}
    judged.findings = sorted(
        judged.findings, key=lambda each: (*_rank(judged, situation, each), places[each.cause])
    )
    judged.ruled_out.sort(key=lambda ruled: ruled.cause)
    return judged


def judge_one_node(situation: Situation) -> Judged:
    """Return what can be wrong where all memory is local: too many threads."""
    return _look(situation, (c6_oversubscription,))


def _look(situation: Situation, causes: Iterable[Cause]) -> Judged:
    judged = Judged()
    for cause in causes:
        outcome = cause.look(situation)
        if isinstance(outcome, Finding):
            judged.findings.append(_with_cost(situation, outcome))
        else:
            judged.ruled_out.append(outcome)
    return judged


def _with_cost(situation: Situation, finding: Finding) -> Finding:
    if finding.lost_ns is None:
        return finding
    lost = capped(situation, finding.lost_ns)
    cost = evidence.lost(lost, share_of_time(situation, lost))
    return replace(finding, lost_ns=lost, evidence=(*finding.evidence, *cost))


def _find(judged: Judged, cause: str) -> Finding | None:
    return next((each for each in judged.findings if each.cause == cause), None)


def _mask(judged: Judged, masker: str, masked: tuple[str, ...]) -> None:
    """Take back what cannot be judged while another cause is there."""
    by = _find(judged, masker)
    if by is None:
        return
    why = f"It looks so, but cannot be judged until {by.cause}, {by.name}, is gone."
    _take_back(judged, masked, why, known=False)


def _explain(judged: Judged, causes: Iterable[Cause]) -> None:
    """Take back what another cause accounts for."""
    for cause in causes:
        by = _find(judged, cause.ID)
        if by is not None:
            why = f"{by.cause}, {by.name}, accounts for what looks like it."
            _take_back(judged, cause.EXPLAINS, why, known=True)


def _take_back(judged: Judged, causes: Sequence[str], why: str, *, known: bool) -> None:
    """Rule these causes out where they were found; `known`: whether that is a judgement."""
    for finding in [each for each in judged.findings if each.cause in causes]:
        judged.findings.remove(finding)
        judged.ruled_out.append(RuledOut(finding.cause, finding.name, judged=known, why=why))


def _weigh(judged: Judged, situation: Situation) -> None:
    """Take out what costs less than WORTH_SHARE; keep it apart if nothing else was found."""
    cheap = [each for each in judged.findings if _is_cheap(situation, each)]
    rest = [each for each in judged.findings if each not in cheap]
    if all(each.cause == c9_no_effect.ID for each in rest) and cheap:
        rest = []
        judged.cheap = sorted(cheap, key=lambda each: -_lost(each))
    judged.findings = rest
    for finding in cheap:
        assert finding.lost_ns is not None  # or it would not be cheap
        most = format_share(share_of_time(situation, finding.lost_ns)[2])
        why = f"It is there, but costs at most {most} of the compute threads' CPU time."
        judged.ruled_out.append(RuledOut(finding.cause, finding.name, judged=True, why=why))


def _is_cheap(situation: Situation, finding: Finding) -> bool:
    if finding.cause in FREE_OF_COST or finding.lost_ns is None:
        return False
    return share_of_time(situation, finding.lost_ns)[2] < WORTH_SHARE


def _lost(finding: Finding) -> float:
    return finding.lost_ns.value if finding.lost_ns is not None else 0.0


def _rank(judged: Judged, situation: Situation, finding: Finding) -> tuple[int, float]:
    """Return what to sort by: C6, which masks others; a C9 that explains others; time lost; C9."""
    if finding.cause == c6_oversubscription.ID:
        return 0, 0.0
    if finding.cause != c9_no_effect.ID:
        return 2, -_lost(finding)
    over = any(each.cause in c9_no_effect.FIRST_OVER for each in judged.findings)
    return (1 if over and c9_no_effect.comes_first(situation) else 3), 0.0
