"""The page `numatrace guide cpus`: the tables of CPUs and their memory events."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from numatrace.record.pmu.choose import LDLAT
from numatrace.record.pmu.tables import Counts, Sampling, load, reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Named = TypeVar("Named", Sampling, Counts)


def cpus_page() -> str:
    """Return the page, from the TOML files beside numatrace/record/pmu/tables.py."""
    rows = load()
    lines = [
        "# CPUs and their memory events",
        "",
        "<!-- Generated from numatrace/record/pmu by scripts/gen-reference: do not edit. -->",
        "",
        "Which of the CPU's own samples and counters `numatrace record` uses, through perf. Events "
        "are tried, and those that the machine refuses are left out; `numatrace doctor` says what "
        "is left. Any other CPU is recorded by samples of threads' registers. None of these has "
        "been verified on hardware yet; each line names the source that it was taken from.",
        "",
        "| CPU | known by | samples | counters |",
        "|---|---|---|---|",
    ]
    for row, known in zip(rows, reference(rows), strict=True):
        samples = row.sampling.name if row.sampling else "–"
        counts = ", ".join(each.name for each in row.counts) or "–"
        lines.append(f"| {row.name} | {known['match']} | {samples} | {counts} |")
    lines += ["", "## Samples"]
    for sampling in _once(row.sampling for row in rows if row.sampling):
        lines += ["", *_sampling(sampling)]
    lines += ["", "## Counters"]
    for counts in _once(each for row in rows for each in row.counts):
        lines += ["", *_counts(counts)]
    return "\n".join(lines) + "\n"


def _once(found: Iterable[Named]) -> list[Named]:
    return list({each.name: each for each in found}.values())


def _sampling(sampling: Sampling) -> Iterator[str]:
    yield f"### {sampling.name}"
    yield from (
        "",
        f"Rows `access` of the source `{sampling.samples}`: {_filled(sampling.population)}.",
        "",
    )
    for option in sampling.choices:
        needs = ", ".join(f"`{need}`" for need in option.needs)
        events = " with ".join(f"`{_filled(event)}`" for event in option.events)
        yield f"- {events}" + (f", where the PMU `{sampling.pmu}` has {needs}" if needs else "")
    yield from ("", f"Source: {sampling.source}.")


def _counts(counts: Counts) -> Iterator[str]:
    yield f"### {counts.name}"
    yield from ("", f"{_upper(counts.events[0].population)}.", "")
    for count in counts.events:
        yield f"- `{count.counter}`: {count.name}, `{count.event}`"
    if counts.formula:
        yield from ("", f"Remote share: {counts.formula}.")
    yield from ("", f"Source: {counts.source}.")


def _filled(text: str) -> str:
    return text.replace("{ldlat}", str(LDLAT))


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
