"""A report cut to what a page may hold, and the count of what was left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numatrace.model.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Limits:
    """What fits; `scale` divides the rows of ROWS."""

    scale: int
    items: int
    """Of every other list."""
    nodes: int
    """Of every object with node numbers as keys."""
    chars: int
    command_chars: int


LEVELS = (
    Limits(1, 500, 1024, 2000, 20_000),
    Limits(4, 200, 256, 500, 8000),
    Limits(16, 60, 64, 250, 4000),
    Limits(64, 20, 16, 120, 1000),
    Limits(512, 8, 8, 80, 400),
)
"""Tried one after the other until the page is small enough."""
ROWS = {
    "processes": 128,
    "threads": 1024,
    "regions": 1024,
    "layers": 2048,
    "tensors": 8192,
    "shares": 4096,
    "grid": 4001,
    "hot": 100,
}
"""Rows of the report's long lists."""
LEAST_ROWS = 4
UNUSED = ("reads",)
"""Parts of the report that the page does not show: `grid` has them by thread and layer."""
UNSHOWABLE = "unshowable"
"""Beside a command that has characters which cannot be shown, or is too long: not to be copied."""


def bounded(parts: Mapping[str, Any], limits: Limits) -> tuple[dict[str, Any], Counter[str]]:
    """Return a report's plain values within the limits, and how many rows each list lost."""
    cut = _Cut(limits)
    kept = {name: cut.part(name, part) for name, part in parts.items() if name not in UNUSED}
    return kept, cut.left_out


class _Cut:
    """Cuts one report, and counts what it leaves out."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.left_out: Counter[str] = Counter()

    def part(self, name: str, part: Any) -> Any:
        """Return a part of the report within the limits."""
        if name == "timeline" and part is not None:
            phases = [_text(each, self._limits.chars) for each in part["phases"]]
            nodes = self._list(name, part["nodes"], self._limits.items)
            return part | {"phases": phases, "nodes": nodes}
        if not isinstance(part, list):
            return self._plain(name, part)
        most = self._limits.items
        if name in ROWS:
            most = max(ROWS[name] // self._limits.scale, LEAST_ROWS)
        return self._list(name, part, most)

    def _plain(self, name: str, item: Any) -> Any:
        limits = self._limits
        if isinstance(item, str):
            return _text(item, limits.chars)
        if isinstance(item, list):
            numbers = all(isinstance(each, int | float) for each in item)
            return item if numbers else self._list(f"parts of {name}", item, limits.items)
        if not isinstance(item, dict):
            return item
        if item and all(key.isdigit() for key in item):
            self.left_out[f"nodes of {name}"] += max(0, len(item) - limits.nodes)
            return dict(list(item.items())[: limits.nodes])
        made = {key: self._plain(name, value) for key, value in item.items()}
        return made | (_command(item["command"], limits) if "command" in item else {})

    def _list(self, name: str, items: list[Any], most: int) -> list[Any]:
        self.left_out[name] += max(0, len(items) - most)
        inner = name.removeprefix("parts of ")
        return [self._plain(inner, each) for each in items[:most]]


def _text(text: str, limit: int) -> str:
    """Return what `printable` does, at once where nothing is to be replaced."""
    head = text[: limit + 1]
    if not head.isprintable():
        return printable(text, limit)
    return head if len(head) <= limit else head[: limit - 1] + "…"


def _command(command: str, limits: Limits) -> dict[str, Any]:
    """Return a command as it is, or as what can be shown of it and a mark."""
    rows = command[: limits.command_chars + 1].strip("\n").split("\n")
    if len(command) <= limits.command_chars and all(map(str.isprintable, rows)):
        return {"command": "\n".join(rows)}
    shown = "\n".join(_text(row, limits.chars) for row in rows[: limits.items])
    return {"command": shown, UNSHOWABLE: True}
