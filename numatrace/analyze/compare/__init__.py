"""Two reports in, what changed between them out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.compare.comparable import check_comparable
from numatrace.analyze.compare.outcome import Case, direction, limit_check, outcome, sentence
from numatrace.analyze.compare.parts import layers, nodes, threads
from numatrace.analyze.compare.prediction import prediction
from numatrace.analyze.compare.rates import figures
from numatrace.analyze.compare.remote import phases, remote_share
from numatrace.analyze.compare.sides import settings, side
from numatrace.model.comparison import Comparison

if TYPE_CHECKING:
    from numatrace.model.report import Report

__all__ = ["compare"]

NOT_APPLIED = (
    "What the recordings hold of how the server was run is the same in both: it seems that the fix"
    " was not carried out, or not on this server."
)


def compare(before: Report, after: Report, max_remote: float | None = None) -> Comparison:
    """Return what changed; `max_remote` is the largest remote share (0 to 1) that AFTER may have.

    Raises ComparisonError where the two are of different machines or models.
    """
    notes = check_comparable(before, after)
    remote, more = remote_share(before, after)
    ways = settings(before, after)
    old, new = side(before), side(after)
    share = after.server.remote_share if after.server is not None else None
    case = Case(old, new, remote, prediction(before, after), limit_check(new, share, max_remote))
    if outcome(case) == "not-as-predicted" and all(each.before == each.after for each in ways):
        more = [*more, NOT_APPLIED]
    return Comparison(
        outcome=outcome(case),
        sentence=sentence(case),
        direction=direction(case),
        before=old,
        after=new,
        remote_share=remote,
        prediction=case.prediction,
        limit=case.limit,
        phases=phases(before, after),
        figures=figures(before, after),
        nodes=nodes(before, after),
        threads=threads(before, after),
        layers=layers(before, after),
        settings=ways,
        notes=(*notes, *more),
    )
