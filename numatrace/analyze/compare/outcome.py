"""The answer of a comparison: better, worse, as predicted, or that it cannot be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from numatrace.analyze.compare.changes import notable
from numatrace.model.comparison import LimitCheck
from numatrace.model.units import format_share

if TYPE_CHECKING:
    from numatrace.model.comparison import (
        Change,
        Check,
        Direction,
        Outcome,
        PredictionCheck,
        SideView,
    )
    from numatrace.model.measured import Figure

OTHER_HARM = frozenset({"C3", "C4", "C6"})
"""Causes that cost time by other ways than remote reads: memory that does not fit, moves between
nodes, more threads than CPUs. That one of them came or went counts for more than the remote share,
which a fix for them may even raise. The other causes are as bad as their remote reads."""


@dataclass(frozen=True, slots=True)
class Case:
    """All that an outcome rests on."""

    before: SideView
    after: SideView
    remote: Change
    prediction: PredictionCheck | None
    limit: LimitCheck | None

    @property
    def withheld(self) -> list[str]:
        """The recordings without a verdict."""
        sides = (("BEFORE", self.before), ("AFTER", self.after))
        return [name for name, side in sides if side.kind == "withheld"]

    @property
    def gone(self) -> list[str]:
        """Causes with OTHER_HARM that the second report no longer finds."""
        return [each for each in self.before.causes if each in OTHER_HARM - {*self.after.causes}]

    @property
    def new(self) -> list[str]:
        """Causes with OTHER_HARM that the first report did not find."""
        return [each for each in self.after.causes if each in OTHER_HARM - {*self.before.causes}]


def limit_check(after: SideView, share: Figure | None, limit: float | None) -> LimitCheck | None:
    """Return whether the remote share after is at most the limit; None without a limit.

    It is the share itself that counts, wherever its interval ends.
    """
    if limit is None:
        return None
    if after.kind == "withheld" or share is None:
        return LimitCheck(limit, share, None)
    return LimitCheck(limit, share, share.value <= limit)


def direction(case: Case) -> Direction:
    """Return what became of the server, whatever was predicted."""
    if case.withheld:
        return "unknown"
    if bool(case.gone) != bool(case.new):
        return "better" if case.gone else "worse"
    if case.remote.change is None:
        return "unknown"
    if not notable(case.remote):
        return "same"
    return "better" if case.remote.change < 0 else "worse"


def outcome(case: Case) -> Outcome:
    """Return the answer: what was asked for first, then the prediction, then the direction."""
    if case.limit is not None and case.limit.kept is not True:
        return "cannot-tell" if case.limit.kept is None else "above-limit"
    way = direction(case)
    if way == "unknown":
        return "cannot-tell"
    kept = case.prediction.kept if case.prediction is not None else None
    if kept:
        return "as-predicted"
    if kept is False and way == "same":
        return "not-as-predicted"
    return way


def sentence(case: Case) -> str:
    """Return the answer in words."""
    found = outcome(case)
    if found == "cannot-tell":
        return f"Cannot tell: {_unknown(case)}."
    if found == "above-limit":
        return f"Above the limit: {_above(case.limit)}."
    if found == "not-as-predicted":
        return f"Not as predicted, and no better: {_missed(case.prediction)}."
    words = {"as-predicted": "As predicted", "better": "Better", "worse": "Worse"}
    return f"{words.get(found, 'No difference')}: {_what_changed(case)}."


def _unknown(case: Case) -> str:
    if case.withheld:
        which = " and ".join(case.withheld)
        return f"the report of {which} has no verdict, and what it lacks is not guessed here"
    return "the remote share of the reads of weights is not known of both recordings"


def _above(limit: LimitCheck | None) -> str:
    assert limit is not None  # it is above it
    assert limit.seen is not None
    share, allowed = format_share(limit.seen.value), format_share(limit.limit)
    return f"{share} of the reads of weights {_are(limit.seen)} remote in AFTER, {allowed} allowed"


def _missed(prediction: PredictionCheck | None) -> str:
    assert prediction is not None  # it was not kept
    if not prediction.cause_gone:
        return f"{prediction.cause} is still found after plan {prediction.plan}"
    worst = max(
        (check for check in prediction.checks if check.kept is False),
        key=lambda check: abs(check.off or 0.0),
    )
    return f"plan {prediction.plan} was to bring {_wanted(worst)}"


def _wanted(check: Check) -> str:
    seen = format_share(check.seen or 0.0)
    return f"{check.name} to {format_share(check.predicted)}, and it is {seen}"


def _what_changed(case: Case) -> str:
    parts = []
    if bool(case.gone) != bool(case.new):
        parts += [f"{', '.join(case.gone)} is gone"] if case.gone else []
        parts += [f"{', '.join(case.new)} is new"] if case.new else []
    old, new = case.remote.before, case.remote.after
    if old is not None and new is not None:
        parts.append(
            f"{format_share(old.value)} of the reads of weights {_are(old)} remote in BEFORE,"
            f" {format_share(new.value)} in AFTER"
        )
    return "; ".join(parts) or "the remote share of the reads of weights is not known"


def _are(share: Figure) -> str:
    return "are expected to be" if share.source == "model" else "are"
