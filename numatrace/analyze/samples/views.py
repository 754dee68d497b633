"""What the report says of its samples: their source, what became of them, and their phases."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.samples.access import ELSEWHERE
from numatrace.analyze.samples.columns import KERNEL_REASONS, REASONS, SAMPLES, TIME_NS, WAITING
from numatrace.analyze.samples.intervals import LEAST_SAMPLES, Weighed
from numatrace.model.access import OPERAND
from numatrace.model.measured import AccessView, CostView, PhaseView, RateView, TimeView

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numatrace.analyze.load import Loaded
    from numatrace.analyze.rows import Numbers
    from numatrace.analyze.samples.measure import Measure
    from numatrace.model.measured import Figure

SOURCE_NOTES = ("access sampling", "hardware samples")
"""Names of the notes in which the recorder says why a source is missing."""
RATES = 32
"""Changes of a rate that the report lists: the first ones and the last."""


def access_view(loaded: Loaded, measured: Measure, remote: Figure | None) -> AccessView:
    """Return the account of the samples; `remote` is the share that the verdict may rest on."""
    cells = measured.cells
    elsewhere = _elsewhere(loaded, hardware=measured.hardware)
    kernel = [view for view in elsewhere if view.reason in KERNEL_REASONS]
    waiting = [view for view in elsewhere if view.reason == WAITING]
    unplaced = [view for view in elsewhere if view.reason not in (*KERNEL_REASONS, WAITING)]
    every = [*elsewhere, _time("", cells.samples, cells.time_ns)]
    return AccessView(
        rung=measured.rung,
        why=_why(loaded, measured),
        source=_source(loaded, measured),
        samples=sum(view.samples for view in every),
        lost=loaded.documents.losses["access"],
        time_ns=sum(view.time_ns for view in every),
        placed=_time("an address in known memory", cells.samples, cells.time_ns),
        kernel=tuple(kernel),
        waiting=waiting[0] if waiting else TimeView(WAITING, 0, 0),
        unplaced=tuple(unplaced),
        unknown_node=_time(
            "the node of the memory or of the CPU is unknown",
            cells.samples[~cells.known],
            cells.time_ns[~cells.known],
        ),
        remote_share=remote,
        unnamed_weights=measured.unnamed,
        design_effect=measured.pool_effect,
        thread_design_effect=measured.thread_effect,
        least_samples=LEAST_SAMPLES,
        merged=loaded.access.merges > 0,
        rates=tuple(_rates(loaded)),
        ratios=measured.ratios.used(),
    )


def phase_views(loaded: Loaded, measured: Measure, tgid: int | None) -> tuple[PhaseView, ...]:
    """Return the phases that the recording has, in the order of Phases.names."""
    names = loaded.phases.names
    cells = measured.cells
    mine = (measured.slot_tgids == tgid)[cells.slot]
    weights = cells.sums(cells.phase, mine & measured.weights[cells.place])
    reads = cells.sums(cells.phase, mine)
    elsewhere = _by_phase(loaded, measured, tgid)
    durations: Counter[str] = Counter()
    for span in loaded.phases.spans:
        durations[span.phase] += max(0, span.end_ns - span.start_ns)
    counted: Counter[str] = Counter()
    for thread in loaded.residency.threads.values():
        if thread.tgid == tgid:
            counted.update(thread.phase_ns)
    sampled = not measured.hardware and measured.rung != "placement"
    views = []
    for index, name in enumerate(names):
        read, weight = reads.get(index, Weighed()), weights.get(index)
        samples = elsewhere[index][0] + read.samples
        if not (samples or durations[name] or counted[name]):
            continue
        read_ns, remote_share, _ = measured.trio(weight)
        views.append(
            PhaseView(
                phase=name,
                duration_ns=durations[name],
                oncpu_ns=elsewhere[index][1] + read.time_ns if sampled else counted[name],
                samples=samples,
                read_ns=read_ns,
                remote_share=remote_share,
                lost_ns=round(read.lost_ns),
                note="; ".join(loaded.phases.notes) if name == "compute" else "",
            )
        )
    return tuple(views)


def _elsewhere(loaded: Loaded, *, hardware: bool) -> list[TimeView]:
    """Return a source's samples without a place by reason, by falling time."""
    cells = loaded.access.elsewhere
    mine = (ELSEWHERE.field(cells.keys, "hardware") > 0) == hardware
    reasons = ELSEWHERE.field(cells.keys, "reason")
    views = [
        _time(
            REASONS[reason],
            cells.integers[mine & (reasons == reason), SAMPLES],
            cells.integers[mine & (reasons == reason), TIME_NS],
        )
        for reason in np.unique(reasons[mine]).tolist()
    ]
    return sorted(views, key=lambda view: (-view.time_ns, -view.samples, view.reason))


def _by_phase(loaded: Loaded, measured: Measure, tgid: int | None) -> list[tuple[int, int]]:
    """Return number and time of a process's samples without a place in each phase."""
    cells = loaded.access.elsewhere
    mine = (measured.slot_tgids == tgid)[ELSEWHERE.field(cells.keys, "slot")]
    mine &= (ELSEWHERE.field(cells.keys, "hardware") > 0) == measured.hardware
    phases = ELSEWHERE.field(cells.keys, "phase")[mine]
    count = len(loaded.phases.names)
    samples, times = (
        np.bincount(phases, cells.integers[mine, column], count).tolist()
        for column in (SAMPLES, TIME_NS)
    )
    return [(round(number), round(ns)) for number, ns in zip(samples, times, strict=True)]


def _time(reason: str, samples: Numbers, times: Numbers) -> TimeView:
    return TimeView(reason, int(samples.sum()), round(float(times.sum())))


def _source(loaded: Loaded, measured: Measure) -> str:
    """Return the name of the source that the report rests on, or of the one with most samples."""
    found = [
        (-count, name)
        for name, count in loaded.access.sources.items()
        if count and (name != OPERAND) == measured.hardware
    ]
    return min(found, default=(0, ""))[1]


def _why(loaded: Loaded, measured: Measure) -> str:
    """Say why shares rest on that rung and nothing more exact."""
    notes = [note for note in loaded.documents.notes if _is_about(note)]
    if measured.rung == "hardware sample":
        return ""
    if measured.rung == "operand sample":
        return "; ".join(notes) or "the trace has no samples of the hardware's"
    cells = measured.cells
    count = int(cells.samples[cells.known].sum())
    few = f"only {count} samples have an address and a node; {LEAST_SAMPLES} are needed"
    return "; ".join([few if loaded.access.recorded else "no access was sampled", *notes])


def _is_about(note: str) -> bool:
    """Whether a note is about sources of samples."""
    return note.partition(":")[0] in SOURCE_NOTES


def _rates(loaded: Loaded) -> Iterable[RateView]:
    rates = loaded.rates.rates
    shown = rates if len(rates) <= RATES else [*rates[: RATES - 1], rates[-1]]
    first = loaded.first_ns or 0
    for rate in shown:
        costs = dict(rate.costs)
        overhead, budget = costs.pop("overhead", None), costs.pop("budget", None)
        yield RateView(
            at_ns=max(0, rate.t_ns - first),
            source=rate.source,
            period_ns=rate.period_ns,
            period_events=rate.period_events,
            why=rate.why,
            overhead=overhead,
            budget=budget,
            costs=tuple(CostView(name, value) for name, value in costs.items()),
        )
