"""The map of a report, second part: threads, and what they are expected to read remotely."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from numatrace.model.units import format_count, format_ns
from numatrace.render.bars import Heat
from numatrace.render.layout import INDENT, bullets, faint, heading, paragraph
from numatrace.render.options import DEFAULT_TOP
from numatrace.render.processes import by_process
from numatrace.render.split import NOTHING, Split, count_cell, share_cell_of
from numatrace.render.tables import Column, table
from numatrace.render.width import clean, clip_middle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numatrace.model.measured import Figure
    from numatrace.model.report import Report
    from numatrace.model.views import ShareView, ThreadView
    from numatrace.render.options import RenderOptions

SHARE_REGIONS = 4
"""Regions that fit beside one another, each with an interval."""
TRIFLE = 0.01
"""Threads with less than this share of the CPU time are only counted, unless asked for."""
LETTERS = "ABCD"
LIMITS_SHOWN = 3
ALL_MEASURED = "Measured; in brackets 95 % intervals."
SOME_MEASURED = "Measured where there are enough samples; the others, with a ~, are c"
MODEL = (
    "omputed, not measured: 100 % less the sum over all nodes of (part of the thread's CPU time) x"
    " (part of the memory there). It is right if the thread reads all of the memory alike."
)

Key = tuple[int, int]
RegionKey = tuple[int, str, int]


def threads(report: Report, options: RenderOptions) -> list[str]:
    """Return the threads with the most CPU time: where they ran, moves and faults."""
    if not report.threads:
        return []
    count = options.rows if options.top is not None else _busy(report)
    shown, rest = report.threads[:count], report.threads[count:]
    split = Split(report, (thread.oncpu_ns for thread in report.threads), "work")
    lines = [heading("Threads: where they ran", options)]
    for title, group, alone in by_process(shown, report):
        lines += ["", *(paragraph(title, options) if title else [])]
        lines += _thread_table(group, split, report, options, alone=alone)
    if rest:
        time = format_ns(sum(sum(thread.oncpu_ns.values()) for thread in rest))
        more = format_count(len(rest), "more thread")
        lines += paragraph(f"and {more} with {time} of CPU time together", options)
    text = "Moves: how often the thread began to run on another node. Faults: page faults, exact."
    if any(thread.balance_moves for thread in shown):
        text += " In brackets: moves that the kernel's NUMA balancing made."
    lines += faint(text, options)
    return lines + bullets(_limits(report, shown), options)


def shares(report: Report, options: RenderOptions) -> list[str]:
    """Return the remote share of threads by regions, measured or expected, as a matrix."""
    if not report.shares:
        return []
    expected = [share.remote_share.source == "model" for share in report.shares]
    title = "Remote reads of the compute threads"
    text = ALL_MEASURED if not any(expected) else SOME_MEASURED + MODEL
    if all(expected):
        title, text = f"Expected {title[0].lower()}{title[1:]}", "C" + MODEL
    lines = [heading(title, options), "", *paragraph(text, options)]
    by_process: defaultdict[int, list[ShareView]] = defaultdict(list)
    for share in report.shares:
        by_process[share.tgid].append(share)
    for group in by_process.values():
        lines += ["", *_matrix(group, report, options, mark=not all(expected))]
    return lines


def _busy(report: Report) -> int:
    """Return how many threads have more than a trifle of the CPU time, within the usual rows."""
    times = [sum(thread.oncpu_ns.values()) for thread in report.threads[:DEFAULT_TOP]]
    least = TRIFLE * sum(times)
    return max(1, sum(1 for ns in times if ns > least))


def _thread_table(
    group: Sequence[ThreadView],
    split: Split,
    report: Report,
    options: RenderOptions,
    *,
    alone: bool,
) -> list[str]:
    """Return threads as a table; without their names where all have that of their process."""
    names = {process.tgid: process.name for process in report.processes}
    named = not alone or any(thread.comm != names.get(thread.tgid) for thread in group)
    heads = [Column("thread")] if alone else [Column("pid"), Column("thread")]
    heads += [Column("name", right=False, least=6)] if named else []
    heads += [Column("role", right=False)] if alone else []
    heads += [Column("CPU time"), *split.heads, Column("moves"), Column("faults")]
    rows = [_thread(thread, split, alone=alone, named=named) for thread in group]
    return table(heads, rows, options)


def _thread(thread: ThreadView, split: Split, *, alone: bool, named: bool) -> list[str]:
    first = [str(thread.tid)] if alone else [str(thread.tgid), str(thread.tid)]
    moves = count_cell(thread.moves)
    if thread.balance_moves:
        moves += f" ({count_cell(thread.balance_moves)})"
    cells = [*first, *([thread.comm or NOTHING] if named else [])]
    cells += [role_name(thread)] if alone else []
    cells += [format_ns(sum(thread.oncpu_ns.values())), *split.cells(thread.oncpu_ns)]
    return [*cells, moves, count_cell(thread.faults)]


def role_name(thread: ThreadView) -> str:
    """Return `compute`, `compute x20` for a worker slot of 20 threads; "" for no special role."""
    members = f"x{thread.members}" if thread.members > 1 else ""
    return f"{'' if thread.role == 'other' else thread.role} {members}".strip()


def _limits(report: Report, shown: Sequence[ThreadView]) -> list[str]:
    """Say which of the shown threads may run on other CPUs than their process."""
    usual = {process.tgid: process.allowed_cpus for process in report.processes}
    found: defaultdict[str, list[str]] = defaultdict(list)
    for thread in shown:
        if thread.allowed_cpus and thread.allowed_cpus != usual.get(thread.tgid, ""):
            found[thread.allowed_cpus].append(str(thread.tid))
    texts = [
        f"{'Threads' if len(tids) > 1 else 'Thread'} {', '.join(tids)}: allowed on CPUs"
        f" {clip_middle(clean(cpus), 40)}"
        for cpus, tids in found.items()
    ]
    rest = len(texts) - LIMITS_SHOWN
    return texts[:LIMITS_SHOWN] + ([f"and {rest} more sets of allowed CPUs"] if rest > 0 else [])


def _matrix(
    group: list[ShareView], report: Report, options: RenderOptions, *, mark: bool
) -> list[str]:
    """Return one process's threads by regions; regions have letters, their names are above.

    With `mark` expected shares are told apart from measured ones.
    """
    cells: defaultdict[Key, dict[RegionKey, Figure]] = defaultdict(dict)
    seen: Counter[tuple[int, int, str]] = Counter()
    for share in group:
        # Two regions may have the same label: they are told apart by their order.
        place = seen[share.tgid, share.tid, share.region]
        seen[share.tgid, share.tid, share.region] += 1
        region = (share.tgid, share.region, place)
        cells[share.tgid, share.tid][region] = share.remote_share
    regions = list(dict.fromkeys(region for row in cells.values() for region in row))
    weights = {(each.tgid, each.label) for each in report.regions if each.cls == "weights"}
    regions.sort(key=lambda key: key[:2] not in weights)
    shown = dict(zip(LETTERS, regions[:SHARE_REGIONS], strict=False))
    lines = [_legend(letter, key[1], options) for letter, key in shown.items()]
    if len(regions) > len(shown):
        more = format_count(len(regions) - len(shown), "region is", "regions are")
        lines += paragraph(f"{more} left out; --json has them.", options)
    names = {(thread.tgid, thread.tid): thread.comm for thread in report.threads}
    heads = [Column("thread"), Column("name", right=False, least=8), *map(Column, shown)]
    rows = [
        [
            str(key[1]),
            names.get(key, ""),
            *(_share(row.get(region), mark=mark) for region in shown.values()),
        ]
        for key, row in list(cells.items())[: options.rows]
    ]
    lines += ["", *table(heads, rows, options)]
    if len(cells) > options.rows:
        more = format_count(len(cells) - options.rows, "more thread")
        lines += paragraph(f"and {more}", options)
    return lines


def _legend(letter: str, label: str, options: RenderOptions) -> str:
    first = f"{INDENT}{letter}  "
    return first + clip_middle(clean(label), options.columns - len(first))


def _share(share: Figure | None, *, mark: bool) -> str:
    if share is None:
        return share_cell_of(None)
    text = ("~" if mark and share.source == "model" else "") + share_cell_of(share)
    return Heat(text, share.value, "loss")
