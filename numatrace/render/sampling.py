"""What the measured part of a report rests on: source and rate of samples, and their account."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from numatrace.model.access import HOW
from numatrace.model.units import format_count, format_ns, format_share
from numatrace.render.layout import bullets, paragraph

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numatrace.model.measured import AccessView, RateView, RatioView, TimeView
    from numatrace.model.report import Report
    from numatrace.render.options import RenderOptions

RUNGS = {
    "hardware sample": "Measured by the CPU's own samples of memory accesses",
    "operand sample": "Measured by operand samples: the memory operand of the instruction that a"
    " thread was at",
    "placement": "Not measured: shares are expected, from where memory lies and threads ran",
}
RATIOS_SHOWN = 4
REASONS_SHOWN = 5
ALIKE = 1.1
"""Below this design effect intervals are hardly wider."""


def source(access: AccessView, options: RenderOptions) -> list[str]:
    """Return what the shares rest on, and why."""
    text = RUNGS[access.rung] + (f" ({access.why})" if access.why else "")
    return paragraph(f"{text}.", options)


def sampling(report: Report, options: RenderOptions) -> list[str]:
    """Return how the samples were taken and what became of them."""
    access = report.access
    if access is None or not access.samples:
        return []
    facts = [_rate(access), *_account(access)]
    if access.rung != "placement":
        facts += [*_intervals(access), *(_ratios(access.ratios) if report.hot else ())]
    return bullets(facts, options)


def _rate(access: AccessView) -> str:
    found = [rate for rate in access.rates if rate.source == access.source]
    lost = f"{access.lost:,} lost" if access.lost else "none lost"
    text = f"{format_count(access.samples, 'sample')}, {lost}"
    if not found:
        return text
    last = found[-1]
    text += f"; {_period(last)}"
    changes = sum(a.period_ns != b.period_ns for a, b in pairwise(found))
    if changes:
        text += f" at last ({format_count(changes, 'change')})"
    text += f": {last.why}" if last.why else ""
    if last.overhead is not None:
        text += f"; tracing cost {format_share(last.overhead)} of the CPU time"
        text += f", {format_share(last.budget)} allowed" if last.budget is not None else ""
    return text


def _period(rate: RateView) -> str:
    if rate.period_events:
        return f"one every {rate.period_events:,} events"
    return f"one every {format_ns(rate.period_ns)} of CPU time"


def _account(access: AccessView) -> Iterable[str]:
    """Return where the samples' time went; by number where samples have no time."""
    timed = access.time_ns > 0
    total = access.time_ns if timed else access.samples

    def part(*views: TimeView) -> str:
        return format_share(sum(v.time_ns if timed else v.samples for v in views) / total)

    whole = f"Of {format_ns(access.time_ns)} of sampled time" if timed else "Of the samples"
    yield (
        f"{whole}: {part(access.placed)} in accesses to known memory, {part(access.waiting)}"
        f" waiting for another thread (a barrier, polled), {part(*access.kernel)} in the kernel,"
        f" {part(*access.unplaced)} without a place"
    )
    for kind, views in (("In the kernel", access.kernel), ("Without a place", access.unplaced)):
        if views:
            named = [f"{part(view)} {_reason(view)}" for view in views[:REASONS_SHOWN]]
            rest = views[REASONS_SHOWN:]
            yield f"{kind}: {'; '.join(named)}" + (f"; {part(*rest)} other" if rest else "")
    if access.unknown_node.samples:
        yield f"{part(access.unknown_node)} in known memory whose node is unknown"


def _reason(view: TimeView) -> str:
    return HOW.get(view.reason, view.reason).removeprefix("in the kernel, ")


def _intervals(access: AccessView) -> Iterable[str]:
    text = "In brackets: 95 % intervals"
    effect = access.design_effect
    if effect is not None and effect > ALIKE:
        text += f", {effect**0.5:.1f} times as wide as if samples in a row were independent"
    yield (f"{text}. Fewer than {access.least_samples} independent samples are too few for a share")
    if access.merged:
        yield "There was more than fits: small entries are merged into their layers and regions"


def _ratios(ratios: tuple[RatioView, ...]) -> Iterable[str]:
    each = [
        f"{ratio.ratio:.1f} on node {ratio.cpu_node} for memory of node {ratio.mem_node}"
        for ratio in ratios[:RATIOS_SHOWN]
    ]
    bases = "; ".join(dict.fromkeys(ratio.basis for ratio in ratios))
    more = ", …" if len(ratios) > RATIOS_SHOWN else ""
    yield (
        "Lost: remote time x (1 - 1/ratio), where remote memory takes ratio times as long:"
        f" {', '.join(each)}{more} ({bases})"
    )
