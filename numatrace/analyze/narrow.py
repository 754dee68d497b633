"""A report of one process or one phase: what is taken, what is left out, and what cannot be."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from numatrace.model.errors import UsageError
from numatrace.model.text import printable
from numatrace.model.units import format_count, format_ns
from numatrace.model.views import FilterView

if TYPE_CHECKING:
    from numatrace.analyze.load import Loaded
    from numatrace.analyze.samples.measure import Measure
    from numatrace.analyze.threads.residency import ThreadSums
    from numatrace.model.report import Report

NAMED = 16
"""Processes that an error lists."""
OF_ALL_PHASES = (
    "verdict, causes and fixes: they are judged on the whole recording",
    "moves and faults of threads: they are counted over the whole recording",
    "memory, layers and tensors on the nodes: as they lie at the end",
    "the timeline: it goes through all phases",
)
OF_ALL_PROCESSES = ("the account of events and of samples, and the machine",)


@dataclass(frozen=True, slots=True)
class Narrow:
    """What the tables of a report are restricted to; None for everything."""

    pid: int | None = None
    phase: str | None = None

    def __bool__(self) -> bool:
        """Whether anything is left out."""
        return self.pid is not None or self.phase is not None


def check(narrow: Narrow, loaded: Loaded) -> None:
    """Raise UsageError unless the trace has the process and the phase; it lists what there is."""
    names = {tgid: each.comm for tgid, each in loaded.documents.processes.items()}
    known = {*names, *(each.tgid for each in loaded.residency.threads.values())} - {0}
    if narrow.pid is not None and narrow.pid not in known:
        why = f"the trace has {_processes(loaded, sorted(known), names)}"
        raise UsageError(f"no process {narrow.pid} in this trace", why, "choose one with --pid")
    phases = _phase_times(loaded)
    if narrow.phase is not None and not phases[narrow.phase]:
        there = [f"{name} ({format_ns(ns)})" for name, ns in phases.items() if ns]
        why = f"the trace has {', '.join(there) or 'no phases'}"
        todo = "choose one with --phase"
        if narrow.phase in ("prompt", "decode") and phases["compute"]:
            todo += "; compute is a prompt or decoding that could not be told apart"
        raise UsageError(f"no phase {narrow.phase} in this trace", why, todo)


def narrowed(loaded: Loaded, narrow: Narrow) -> Loaded:
    """Return the trace with CPU time and threads as far as they are asked for."""
    if not narrow:
        return loaded
    residency = copy.copy(loaded.residency)
    residency.threads = {
        key: _in_phase(each, narrow.phase)
        for key, each in loaded.residency.threads.items()
        if narrow.pid in (None, each.tgid)
    }
    return replace(loaded, residency=residency)


def narrowed_measure(measured: Measure, loaded: Loaded, narrow: Narrow) -> Measure:
    """Return the samples as far as they are asked for."""
    if not narrow:
        return measured
    cells = measured.cells
    chosen = cells.samples >= 0
    if narrow.pid is not None:
        chosen &= (measured.slot_tgids == narrow.pid)[cells.slot]
    phase = None
    if narrow.phase is not None:
        phase = loaded.phases.names.index(narrow.phase)
        chosen &= cells.phase == phase
    return replace(measured, cells=cells.only(chosen), phase=phase)


def narrowed_report(report: Report, narrow: Narrow) -> Report:
    """Return the report with the lists that were made of everything cut, and what was left out."""
    if not narrow:
        return report
    found = replace(
        report,
        phases=tuple(each for each in report.phases if narrow.phase in (None, each.phase)),
        filters=_view(report, narrow),
    )
    if narrow.pid is None:
        return found
    return replace(
        found,
        processes=tuple(each for each in report.processes if each.tgid == narrow.pid),
        regions=tuple(each for each in report.regions if each.tgid == narrow.pid),
        layers=tuple(each for each in report.layers if each.tgid == narrow.pid),
        tensors=tuple(each for each in report.tensors if each.tgid == narrow.pid),
    )


def _view(report: Report, narrow: Narrow) -> FilterView:
    left_out: list[str] = []
    whole: list[str] = []
    if narrow.pid is not None:
        others = sum(each.tgid != narrow.pid for each in report.processes)
        left_out.append(f"{format_count(others, 'other process', 'other processes')}")
        whole += OF_ALL_PROCESSES
    if narrow.phase is not None:
        phases = [each for each in report.phases if each.phase != narrow.phase]
        left_out += [f"phase {each.phase} ({format_ns(each.duration_ns)})" for each in phases]
        whole += OF_ALL_PHASES
    return FilterView(narrow.pid, narrow.phase, tuple(left_out), tuple(whole))


def _in_phase(sums: ThreadSums, phase: str | None) -> ThreadSums:
    if phase is None:
        return sums
    mine = {node: ns for (name, node), ns in sums.phase_node_ns.items() if name == phase}
    return replace(sums, oncpu_ns=Counter(mine))


def _phase_times(loaded: Loaded) -> Counter[str]:
    times: Counter[str] = Counter(dict.fromkeys(loaded.phases.names, 0))
    for span in loaded.phases.spans:
        times[span.phase] += max(0, span.end_ns - span.start_ns)
    for thread in loaded.residency.threads.values():
        for name, ns in thread.phase_ns.items():
            times[name] = max(times[name], ns)
    return times


def _processes(loaded: Loaded, known: list[int], names: dict[int, str]) -> str:
    times: Counter[int] = Counter()
    for thread in loaded.residency.threads.values():
        times[thread.tgid] += thread.total_ns
    busiest = sorted(known, key=lambda tgid: (-times[tgid], tgid))
    shown = [f"{tgid} {printable(names.get(tgid, ''), 24)}".strip() for tgid in busiest[:NAMED]]
    more = f" and {len(known) - NAMED} more" if len(known) > NAMED else ""
    return (", ".join(shown) or "no process") + more
