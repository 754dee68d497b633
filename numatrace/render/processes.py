"""Processes by name, and lists of what belongs to them in two parts: the server's, the others'."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from numatrace.render.width import clean, clip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numatrace.model.report import Report
    from numatrace.model.views import RegionView, ThreadView

    Owned = TypeVar("Owned", ThreadView, RegionView)

NAME_COLUMNS = 24


def process_name(report: Report, tgid: int) -> str:
    """Return `llama-server (pid 4711)`."""
    names = (process.name for process in report.processes if process.tgid == tgid)
    name = clip(clean(next(names, "")), NAME_COLUMNS)
    return f"{name} (pid {tgid})" if name else f"pid {tgid}"


def by_process(items: Sequence[Owned], report: Report) -> list[tuple[str, list[Owned], bool]]:
    """Return parts of a list: a title, the items, and whether one process has them all.

    The server's come first, under its name; then those of all others. Without other processes
    there is one part without a title.
    """
    tgids = {item.tgid for item in items}
    if len(tgids | {process.tgid for process in report.processes}) <= 1:
        return [("", list(items), True)] if items else []
    servers = [process.tgid for process in report.processes if process.is_server]
    parts = [
        (f"of {process_name(report, tgid)}:", [item for item in items if item.tgid == tgid], True)
        for tgid in dict.fromkeys(servers)
    ]
    others = [item for item in items if item.tgid not in servers]
    parts.append(("of other processes:" if servers else "", others, False))
    return [part for part in parts if part[1]]
