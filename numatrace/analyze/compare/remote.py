"""The remote share of the reads of weights, before and after: overall and in each phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.compare.changes import change
from numatrace.analyze.phases.phases import Phases
from numatrace.model.comparison import PhaseChange

if TYPE_CHECKING:
    from numatrace.model.comparison import Change
    from numatrace.model.measured import Figure
    from numatrace.model.report import Report

MIXED = (
    "The two remote shares were not measured in the same way ({before} before, {after} after), so"
    " what is compared is what is expected of both, from where weights lie and threads ran."
)
EXPECTED = (
    "Remote shares are expected, from where weights lie and threads ran, not measured; an interval,"
    " where there is one, is only that of the pages that were looked at."
)


def remote_share(before: Report, after: Report) -> tuple[Change, list[str]]:
    """Return the change of the remote share, and what to know of it.

    Where the two are of different sources (see `change`), the expected shares are taken of both.
    """
    old, new = _share(before), _share(after)
    if old is None or new is None:
        return change(old, new), []
    if old.source == new.source:
        return change(old, new), [EXPECTED] if old.source == "model" else []
    note = MIXED.format(before=_named(old), after=_named(new))
    return change(_expected(before), _expected(after)), [note]


def phases(before: Report, after: Report) -> tuple[PhaseChange, ...]:
    """Return the measured remote share of every phase that either recording has, in their order."""
    olds = {phase.phase: phase.remote_share for phase in before.phases}
    news = {phase.phase: phase.remote_share for phase in after.phases}
    names = [name for name in Phases.names if name in olds or name in news]
    return tuple(PhaseChange(name, change(olds.get(name), news.get(name))) for name in names)


def _share(report: Report) -> Figure | None:
    return report.server.remote_share if report.server is not None else None


def _expected(report: Report) -> Figure | None:
    return report.server.expected_share if report.server is not None else None


def _named(figure: Figure) -> str:
    return "expected" if figure.source == "model" else f"{figure.source}s"
