"""What `numatrace record` says: at the beginning, while it runs, and at the end."""

from __future__ import annotations

import shlex
import textwrap
from typing import TYPE_CHECKING

from numatrace.model.events import EVENTS, FAMILIES
from numatrace.model.text import printable
from numatrace.model.units import format_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from numatrace.model.machine import Links
    from numatrace.record.options import Options
    from numatrace.record.summary import Status, Summary

REASONS = {
    "interrupted": "interrupted",
    "time": "the time given with -d is up",
    "targets": "the last target ended",
}


def links_text(links: Links) -> str:
    """What was measured between the nodes, in short."""
    latencies = [ns for row in links.latency_ns.values() for ns in row.values()]
    rates = [rate for row in links.bandwidth_bytes_s.values() for rate in row.values()]
    found = []
    if latencies:
        found.append(f"latency {_span([f'{ns:.0f}' for ns in sorted(latencies)])} ns")
    if rates:
        found.append(f"bandwidth {_span([f'{rate / 1e9:.1f}' for rate in sorted(rates)])} GB/s")
    if not found:
        why = next(iter(links.skipped.values()), "this process may use no CPU or no memory")
        return f"nothing measured between nodes: {printable(why)}"
    count = max(len(latencies), len(rates))
    pairs = "1 pair" if count == 1 else f"{count} pairs"
    return f"measured {pairs} of nodes in {links.took_s:.1f} s: {', '.join(found)}"


def _span(figures: list[str]) -> str:
    return figures[0] if figures[0] == figures[-1] else f"{figures[0]} to {figures[-1]}"


def start_text(options: Options, pids: list[int], command: list[str]) -> str:
    """What is recorded, and how to stop."""
    what = f"command {printable(command[0], 40)}" if command else "process"
    listed = ", ".join(map(str, pids[:8])) + (", ..." if len(pids) > 8 else "")
    below = " and all below" if options.follow else ""
    until = f"for {options.duration_s:g} s" if options.duration_s else "until Ctrl-C"
    return f"recording {what} {listed}{below} to {printable(str(options.output))}, {until}"


def status_text(status: Status) -> str:
    """Elapsed time, events, losses and size, in under 80 columns."""
    events = sum(families(status).values())
    lost = sum(status.lost.values())
    return (
        f"{status.elapsed_s:6.0f} s   {events:,} events   {lost:,} lost   "
        f"{format_bytes(status.size_bytes)}"
    )


def families(status: Status) -> dict[str, int]:
    """Rows in the trace, by family."""
    totals = dict.fromkeys(FAMILIES, 0)
    for event in EVENTS:
        totals[event.family] += status.rows.get(event.kind, 0)
    return {family: count for family, count in totals.items() if count}


def summary_text(summary: Summary, path: Path) -> str:
    """The end of a recording: file, events and losses by family, own cost, next command."""
    status = summary.status
    output = printable(str(path))
    recorder = (
        f"{summary.startup_cpu_s:.1f} s of CPU to start, then "
        f"{100 * summary.recording_cpu_s / max(status.elapsed_s, 1e-9):.1f} % of one CPU; "
        f"{format_bytes(summary.recorder_peak_bytes)} at most"
    )
    entries = [
        ("events", ", ".join(f"{name} {n:,}" for name, n in families(status).items())),
        ("lost", lost_text(status)),
        ("sampling", sampling_text(summary)),
        ("overhead", overhead_text(summary)),
        ("recorder", recorder),
        ("server", summary.server),
        *(("note", note) for note in summary.notes),
    ]
    lines = [
        f"wrote {output}: {format_bytes(status.size_bytes)}, {status.elapsed_s:.1f} s "
        f"({REASONS.get(summary.reason, summary.reason)})",
        *(_entry(name, text) for name, text in entries if text),
        f"next: numatrace analyze {shlex.quote(output)}",
    ]
    return "\n".join(lines)


def sampling_text(summary: Summary) -> str:
    """How memory accesses were sampled; empty where they were not."""
    sampling, overhead = summary.sampling, summary.overhead
    if sampling is None or overhead is None:
        return ""
    why = "fixed" if sampling.budget is None else f"for at most {100 * sampling.budget:g} %"
    return (
        f"{sampling.samples:,} accesses, {overhead.samples_per_s:,.0f} a second; at the end "
        f"every {sampling.period_ns / 1e6:.1f} ms of each of {sampling.cpus} CPUs ({why})"
    )


def overhead_text(summary: Summary) -> str:
    """What recording cost the server, and of what that consists."""
    overhead = summary.overhead
    if overhead is None:
        return ""
    whole = max(1.0, overhead.used_cpus)
    parts = {
        "recorder": overhead.recorder_cpus,
        "probes": overhead.program_cpus,
        "clock ticks": overhead.tick_cpus,
    }
    named = ", ".join(f"{name} {100 * cpus / whole:.2f}" for name, cpus in parts.items())
    of = f"the {whole:.1f} CPUs in use" if overhead.used_cpus > 1 else "one CPU"
    helpers = f"; {overhead.helpers_s:.1f} s of CPU once, by helpers" if overhead.helpers_s else ""
    return f"{100 * overhead.share:.2f} % of {of}: {named}{helpers}"


def _entry(name: str, text: str) -> str:
    """A line of the summary, folded to under 80 columns."""
    first, rest = f"  {name:<10}", " " * 12
    return textwrap.fill(
        printable(text), 79, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )


def lost_text(status: Status) -> str:
    """Losses by family, and what helps against them."""
    if not status.lost:
        return "none"
    named = ", ".join(f"{family} {n:,}" for family, n in status.lost.items())
    return f"{named}; record again with a larger --ring-pages"
