"""What a caller may choose about the look of a report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from numatrace.model.report import Report

LEAST_WIDTH = 80
"""The tables are made for terminals of at least this many columns."""
DEFAULT_TOP = 10
SHORT_TOP = 5

By = Literal["thread", "slot", "layer", "tensor", "node", "phase"]


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """Options of all renderers; each uses those that mean something to it.

    `width` is that of the terminal: lines stay one column below it, commands excepted. `height` is
    its lines, None where there is no terminal: a text that is longer ends with the answer. `top` is
    how many rows a list shows, None for its own default. `tensors` lists tensors, too. `by` asks
    for one table, of what it names. `ascii` is for outputs that can show nothing else.
    """

    width: int = LEAST_WIDTH
    top: int | None = None
    tensors: bool = False
    colour: bool = False
    height: int | None = None
    by: By | None = None
    ascii: bool = False

    @property
    def columns(self) -> int:
        """Columns that a line may fill."""
        return max(self.width, LEAST_WIDTH) - 1

    @property
    def rows(self) -> int:
        """Rows that a list of threads, regions or the like shows."""
        return DEFAULT_TOP if self.top is None else self.top

    @property
    def few(self) -> int:
        """Rows that a list of details shows."""
        return SHORT_TOP if self.top is None else self.top


Renderer = Callable[[Report, RenderOptions], str]
