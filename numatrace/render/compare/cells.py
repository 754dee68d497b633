"""Figures before and after as cells of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.model.units import format_bytes, format_ns, format_share
from numatrace.render.split import NOTHING, share_cell_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numatrace.model.comparison import Change, Comparison
    from numatrace.model.measured import Figure

YES_NO = {None: NOTHING, True: "yes", False: "no"}
DECIMALS = ((100, 0), (1, 1), (0, 2))
NODE_SHARES = 3
"""Nodes whose shares are written beside one another."""


def arrow(before: str, after: str) -> str:
    """Return both sides as one cell."""
    return f"{before} → {after}"


UNITS: dict[str, Callable[[float], str]] = {
    "share": format_share,
    "ns": format_ns,
    "threads": lambda count: f"{count:,.0f}",
}
"""How figures of a unit are written; others as rates."""


def number(figure: Figure | None, unit: str) -> str:
    """Return a figure, or a dash where it is unknown."""
    return NOTHING if figure is None else UNITS.get(unit, _decimal)(figure.value)


def _decimal(value: float) -> str:
    """Return a rate with about three digits: `0.25`, `3.1`, `1,234`."""
    if not value:
        return "0"
    return next(f"{value:,.{digits}f}" for least, digits in DECIMALS if abs(value) >= least)


def points(share: float) -> str:
    """Return a change of a share in points of per cent: `-45`, `+0.4`."""
    value = round(100 * share, 1)
    if not value:
        return "0"
    return f"{value:+.1f}" if abs(value) < 1 else f"{value:+.0f}"


def share_change(change: Change) -> str:
    """Return a change of a share with its interval: `-45 (-47 to -43)`."""
    if change.change is None:
        return NOTHING
    text = points(change.change)
    if change.low is None or change.high is None:
        return text
    return f"{text} ({100 * change.low:+.0f} to {100 * change.high:+.0f})"


def sourced(share: Figure | None) -> str:
    """Return the share, with a ~ where it is expected and not measured."""
    expected = share is not None and share.source == "model"
    return ("~" if expected else "") + share_cell_of(share)


def share_cell(share: Figure | None) -> str:
    """Return a share without its interval."""
    return format_share(share.value) if share is not None else NOTHING


def bytes_cell(size: Figure | None) -> str:
    """Return an amount of memory."""
    return format_bytes(size.value) if size is not None else NOTHING


def amount(size: Figure | None, share: Figure | None) -> str:
    """Return an amount of memory and what share of all it is."""
    if size is None or share is None:
        return NOTHING
    return f"{format_bytes(size.value)}, {share_cell(share)}" if size.value else "0 %"


def remote_cell(change: Change) -> str:
    """Return a remote share on both sides, with a * where the change is beyond chance."""
    text = arrow(share_cell(change.before), share_cell(change.after))
    return text + (" *" if change.beyond_chance else "")


class Places:
    """How amounts per node are shown: `53/47`, or the largest where there are many nodes."""

    def __init__(self, comparison: Comparison) -> None:
        self._nodes = [each.node for each in comparison.nodes]
        self._few = 1 < len(self._nodes) <= NODE_SHARES
        names = "/".join(map(str, self._nodes))
        self.title = f"% on nodes {names}" if self._few else "most on"

    def of(self, amounts: Mapping[int, int]) -> str:
        """Return the shares of the amounts, which are of the comparison's nodes."""
        total = sum(amounts.values())
        if not total:
            return NOTHING
        if self._few and amounts.keys() <= set(self._nodes):
            return "/".join(f"{100 * amounts.get(node, 0) / total:.0f}" for node in self._nodes)
        node = min(amounts, key=lambda each: (-amounts[each], each))
        return f"{node}: {format_share(amounts[node] / total)}"
