"""A trace in the formats of other tools; reads the trace file and decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Format:
    """A format to export to: the endings of its files, the usual one first, and what opens it."""

    suffixes: tuple[str, ...]
    opens: str
    text: bool = False
    """Whether it may be shown on a terminal as it is: text without control characters."""


FORMATS: dict[str, Format] = {
    "perfetto": Format((".pftrace", ".perfetto-trace"), "open it in ui.perfetto.dev"),
    "parquet": Format((".parquet", ".pq"), "open it with polars or duckdb"),
    "csv": Format((".csv",), "open it with polars or duckdb"),
    "jsonl": Format((".jsonl", ".ndjson"), "open it with jq, polars or duckdb", text=True),
}
"""Each is written by the module of its name; see `write.py`."""


def format_of(path: Path) -> str | None:
    """Return the format that a file's ending stands for, None for any other ending."""
    endings = {suffix: name for name, each in FORMATS.items() for suffix in each.suffixes}
    return endings.get(path.suffix.lower())
