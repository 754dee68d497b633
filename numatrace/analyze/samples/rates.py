"""How often samples were taken, why, and what taking them cost: the rows of kind `rate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from numatrace.model.document import loads
from numatrace.model.errors import TraceError

if TYPE_CHECKING:
    from numatrace.analyze.rows import Rows

RATES = 256
"""Rates that are kept of a recording; of more, the first ones and the last."""
COSTS = 32
"""Numbers that a rate may carry."""


@dataclass(frozen=True, slots=True)
class Rate:
    """From `t_ns` on the source took a sample every so much CPU time, or every so many events."""

    t_ns: int
    source: str
    period_ns: int
    period_events: int
    why: str
    costs: dict[str, float]


class Rates:
    """All rates, in one pass over the batches."""

    def __init__(self) -> None:
        self.rates: list[Rate] = []
        self.attributed = 0

    def take(self, rows: Rows | None) -> None:
        """Take a batch's rows."""
        if rows is None:
            return
        numbers = (rows.integers(name) for name in ("t_ns", "time_ns", "count"))
        texts = (rows.texts(name) for name in ("name", "detail", "value"))
        for t_ns, time_ns, count, name, why, value in zip(*numbers, *texts, strict=True):
            if not name:
                continue
            self.attributed += 1
            if len(self.rates) >= RATES:
                self.rates.pop()
            self.rates.append(Rate(t_ns, name[:64], time_ns, count, why[:1024], _costs(value)))


def _costs(text: str) -> dict[str, float]:
    """Return the numbers of a rate's document, those of an object in it as `object.name`.

    What else it holds, or damage, is left out.
    """
    try:
        values = loads(text, "rate").values
    except TraceError:
        return {}
    flat: list[tuple[str, object]] = []
    for name, value in values.items():
        inner = value.items() if isinstance(value, dict) else ()
        flat += [(f"{name}.{key}", each) for key, each in inner] or [(name, value)]
    found = {name[:64]: _number(value) for name, value in flat[:COSTS]}
    return {name: value for name, value in found.items() if value is not None}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1 << 63 else None  # false for NaN, too
