"""Figures of the whole server as rates, so that recordings of different length compare.

Rates are per second of CPU time: unlike the time from the first to the last event, that is exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.compare.changes import change, exact
from numatrace.analyze.compare.sides import WORK, compute_threads, oncpu_ns, server_threads
from numatrace.model.comparison import FigureChange

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numatrace.model.measured import Figure
    from numatrace.model.report import Report
    from numatrace.model.views import ThreadView

NS_PER_S = 1e9
LEAST_NS = 100_000_000
"""Rates of less CPU time than this are withheld: they would be one event, multiplied."""


def figures(before: Report, after: Report) -> tuple[FigureChange, ...]:
    """Return the figures of both recordings, in the order in which they are shown."""
    olds, news = _figures(before), _figures(after)
    return tuple(
        FigureChange(name, change(olds[name][1], news[name][1], unit))
        for name, (unit, _) in olds.items()
    )


def moves_per_s(threads: Iterable[ThreadView]) -> Figure | None:
    """Return moves between nodes per second of these threads' CPU time, if they have enough."""
    found = list(threads)
    moves = sum(thread.moves for thread in found)
    rate = _rate(moves, sum(map(oncpu_ns, found)))
    return exact(rate, "moves/s", "event")


def _figures(report: Report) -> dict[str, tuple[str, Figure | None]]:
    compute, every = compute_threads(report), server_threads(report)
    used, all_used = sum(map(oncpu_ns, compute)), sum(map(oncpu_ns, every))
    faults = _rate(sum(thread.faults for thread in every), all_used)
    moved = report.server.migrated_pages if report.server is not None else None
    migrations = _rate(moved, all_used) if moved is not None else None
    return {
        "compute threads": ("threads", exact(len(compute), "threads", "counter")),
        "CPU time of the compute threads": ("ns", exact(used, "ns", "counter")),
        "moves per thread-second": ("moves/s", moves_per_s(compute)),
        "page faults per thread-second": ("faults/s", exact(faults, "faults/s", "counter")),
        "page migrations per thread-second": ("pages/s", exact(migrations, "pages/s", "counter")),
        "time lost per second of compute": ("share", _lost(report)),
    }


def _lost(report: Report) -> Figure | None:
    """Return the part of the CPU time of computing that was lost to remote memory.

    None where no accesses were sampled. It depends on the latency ratio as well as on the samples,
    so it has no interval.
    """
    if report.access is None or report.access.rung == "placement":
        return None
    work = [phase for phase in report.phases if phase.phase in WORK]
    used = sum(phase.oncpu_ns for phase in work)
    if not used:
        return None
    return exact(sum(phase.lost_ns for phase in work) / used, "share", report.access.rung)


def _rate(count: int, ns: int) -> float | None:
    return count / ns * NS_PER_S if ns >= LEAST_NS else None
