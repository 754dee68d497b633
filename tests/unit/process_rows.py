"""A stand-in for the trace's writer, whose `process` rows tests read back."""

from __future__ import annotations

import json

from numatrace.model.process import Process


class Rows:
    """Stands in for the trace's writer: keeps the rows."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, dict]] = []

    def add_rows(self, kind: str, rows: list[dict]) -> None:
        self.rows += [(kind, row) for row in rows]

    def processes(self) -> list[Process]:
        return [
            Process.from_json(json.loads(row["value"])) for k, row in self.rows if k == "process"
        ]
