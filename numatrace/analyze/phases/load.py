"""Tell loading: from a process's beginning to its first computation, or while memory is filled."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING

from numatrace.analyze.phases.events import by_process
from numatrace.analyze.phases.segments import FILLING_SHARE, is_parallel, is_preparing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numatrace.analyze.phases.events import Area
    from numatrace.analyze.phases.segments import Segment

MUCH_NS = 100_000_000
"""CPU time of filling memory that is more than what a request needs."""
PAUSE_NS = 5_000_000_000
"""A longer pause without a sample is no wait for the disk."""
WARM_UP_SHARE = 0.10
WARM_UP_NS = 100_000_000
"""A first computation is a warm-up if it took at most this share of the loading before it, or so
long, and nothing follows it at once."""
DOUBT_NS = 1_000_000_000
"""A first computation that is longer than a warm-up may still be one up to here, or as long as
the load."""
NEAR_NS = 2_000_000_000
"""The recorder looks for new mappings once a second."""


def mark_loads(
    segments: list[Segment], born: Mapping[int, int], weights: Iterable[Area]
) -> list[tuple[int, int]]:
    """Give the phase `load` to the stretches that load; return the loads [start, end), ns.

    A load has pauses, too. Stretches that only prepare a computation get the phase `other`.
    """
    parallel = is_parallel(segments)
    of_process: defaultdict[int, list[Segment]] = defaultdict(list)
    for segment in segments:
        of_process[segment.tgid].append(segment)
    areas = by_process(weights)
    loads: list[tuple[int, int]] = []
    for tgid, mine in of_process.items():
        preparing = [is_preparing(segment, parallel=parallel) for segment in mine]
        began, done = born.get(tgid), 0
        if began is not None:
            done = _first_load(mine, preparing, began, loads, parallel=parallel)
        appeared = sorted(area.t_ns for area in areas.get(tgid, ()))
        rest = list(zip(mine, preparing, strict=True))[done:]
        _later_loads(rest, appeared, loads, early=began is None)
    return loads


def _first_load(
    mine: list[Segment],
    preparing: list[bool],
    began: int,
    loads: list[tuple[int, int]],
    *,
    parallel: bool,
) -> int:
    """Mark the load that a process begins with; return the number of stretches up to its end."""
    first = next((number for number, each in enumerate(mine) if each.end_ns > began), len(mine))
    if not parallel:
        preparing = _without_threads(mine, first, preparing)
    done = _loaded(mine, preparing, first)
    if done > first:
        start_ns = mine[first].start_ns
        start_ns = min(began, start_ns) if start_ns - began <= PAUSE_NS else start_ns
        loads.append((start_ns, mine[done - 1].end_ns))
    for each in mine[first:done]:
        each.phase = "load"
    return done


def _later_loads(
    rest: list[tuple[Segment, bool]],
    appeared: list[int],
    loads: list[tuple[int, int]],
    *,
    early: bool,
) -> None:
    """Mark loads of a process that runs: it fills memory, and has not computed or has new weights.

    `early`: it may have been loading when the recording began.
    """
    for each, prepares in rest:
        early = early and prepares
        if not prepares or each.phase:
            continue
        each.phase = "other"
        if _fills(each) and (early or _is_near(each, appeared)):
            each.phase = "load"
            loads.append((each.start_ns, each.end_ns))


def _without_threads(mine: list[Segment], first: int, preparing: list[bool]) -> list[bool]:
    """Judge by modes where one thread does everything: a load's do not come back later."""
    burst = mine[first].burst if first < len(mine) else -1
    later = {each.mode for each in mine[first:] if each.burst != burst}
    return [
        prepares or (each.burst == burst and each.mode not in later and bool(later))
        for each, prepares in zip(mine, preparing, strict=True)
    ]


def _loaded(mine: list[Segment], preparing: list[bool], first: int) -> int:
    """Return the number of stretches up to the end of the load that begins with `first`."""
    count = first
    while count < len(mine):
        each = mine[count]
        pause_ns = each.start_ns - mine[count - 1].end_ns if count > first else 0
        if preparing[count]:
            if pause_ns > PAUSE_NS or (pause_ns > 0 and not _fills(each)):
                break
            count += 1
            continue
        last = _end_of_work(mine, preparing, count)
        if pause_ns > 0:
            break
        if not _is_warm_up(mine, first, count, last):
            _doubt(mine, first, count, last)
            break
        count = last
    return count


def _doubt(mine: list[Segment], load: int, first: int, last: int) -> None:
    """Leave a longer first computation open, which may be a warm-up or a request that waited."""
    follows = last < len(mine) and mine[last].burst == mine[first].burst
    took_ns = mine[last - 1].end_ns - mine[first].start_ns
    loaded_ns = mine[first].start_ns - mine[load].start_ns
    if first > load and not follows and took_ns <= max(DOUBT_NS, loaded_ns):
        for each in mine[first:last]:
            each.phase = "compute"


def _end_of_work(mine: list[Segment], preparing: list[bool], first: int) -> int:
    """Return the end of the run of computing stretches in one burst that begins with `first`."""
    last = first
    while last < len(mine) and mine[last].burst == mine[first].burst and not preparing[last]:
        last += 1
    return last


def _is_warm_up(mine: list[Segment], load: int, first: int, last: int) -> bool:
    if first == load:
        return False
    took_ns = mine[last - 1].end_ns - mine[first].start_ns
    loaded_ns = mine[first].start_ns - mine[load].start_ns
    return took_ns <= max(WARM_UP_NS, WARM_UP_SHARE * loaded_ns)


def _fills(segment: Segment) -> bool:
    return segment.filling >= FILLING_SHARE and segment.cpu_ns >= MUCH_NS


def _is_near(segment: Segment, times: list[int]) -> bool:
    """Return whether one of the times, ascending, is about that of the stretch."""
    place = bisect_left(times, segment.start_ns - NEAR_NS)
    return place < len(times) and times[place] <= segment.end_ns + NEAR_NS
