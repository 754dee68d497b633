"""The causes that numatrace knows, in the order in which they are looked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.causes import c1_imbalance, c2_affinity

if TYPE_CHECKING:
    from numatrace.analyze.causes.base import Cause
    from numatrace.analyze.situation import Situation
    from numatrace.model.report import Finding

CAUSES: tuple[Cause, ...] = (c1_imbalance, c2_affinity)
"""Every module has `look`. At most one of C1 and C2 holds: each leaves the other's cases out."""


def find_causes(situation: Situation) -> list[Finding]:
    """Return what is wrong, the first cause first; without fixes."""
    found = (cause.look(situation) for cause in CAUSES)
    return [finding for finding in found if finding is not None]
