"""The account of every family of events: attributed + unattributed + lost = recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.model.events import FAMILIES
from numatrace.model.views import LossView

if TYPE_CHECKING:
    from numatrace.analyze.load import Loaded


def losses(loaded: Loaded) -> tuple[LossView, ...]:
    """Return the account of every family that has one, checked."""
    documents, rows = loaded.documents, loaded.rows
    mapped = rows["map"] + rows["unmap"] + rows["tensor_at"] + rows["buffer"]
    # Every map and unmap row changes an address space or is nonsense, which was left out.
    changes = loaded.locator.spaces.changes
    views = [
        _faults(loaded),
        _account(loaded, "sched", loaded.residency.recorded, loaded.residency.attributed),
        _account(loaded, "access", loaded.access.recorded, loaded.access.attributed),
        _account(loaded, "place", loaded.places.recorded, loaded.places.attributed),
        _account(
            loaded,
            "map",
            mapped + documents.recorded["map"],
            changes + loaded.named + documents.attributed["map"],
        ),
        _account(
            loaded,
            "system",
            documents.recorded["system"] + rows["rate"],
            documents.attributed["system"] + loaded.rates.attributed,
        ),
    ]
    kept = [view for view in views if view.recorded]
    known = {view.family for view in views}
    for family in sorted(set(documents.losses) - known):
        lost = documents.losses[family]
        kept.append(LossView(family, lost, 0, 0, lost))
    for view in kept:
        view.check()
    return tuple(kept)


def _faults(loaded: Loaded) -> LossView:
    """Faults in the exact counts that no sampled row stands for are unattributed."""
    faults, lost = loaded.faults, loaded.documents.losses["fault"]
    recorded = max(loaded.residency.exact_faults, faults.kept + lost)
    rest = recorded - faults.kept - lost
    return LossView("fault", recorded, faults.attributed, faults.unattributed + rest, lost)


def _account(loaded: Loaded, family: str, kept: int, attributed: int) -> LossView:
    lost = loaded.documents.losses[family]
    return LossView(family, kept + lost, attributed, kept - attributed, lost)


assert {"fault", "sched", "access", "place", "map", "system"} <= set(FAMILIES)
