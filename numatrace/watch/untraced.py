"""A writer for a recording that nobody keeps: its rows go to the tap alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numatrace.trace.writer import TraceWriter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numatrace.trace.writer import Tap


class Untraced(TraceWriter):
    """Takes rows like a trace, and writes no file."""

    def __init__(self, tap: Tap) -> None:
        self.path = Path(os.devnull)
        self.rows: dict[str, int] = {}
        self.tap = tap

    def add_columns(self, kind: str, columns: Mapping[str, Any], n: int) -> None:
        """Show the rows to the tap."""
        if n and self.tap is not None:
            self.rows[kind] = self.rows.get(kind, 0) + n
            self.tap(kind, columns, n)

    def flush(self) -> None:
        """Nothing waits."""

    def publish(self) -> None:
        """There is no file."""

    def close(self) -> None:
        """There is no file."""

    def abandon(self) -> None:
        """There is no file."""

    @property
    def bytes_written(self) -> int:
        """None."""
        return 0
