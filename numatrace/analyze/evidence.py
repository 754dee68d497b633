"""Sentences of evidence, with their figures, that causes and verdicts share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.model.measured import Figure
from numatrace.model.report import Evidence
from numatrace.model.units import format_bytes, format_count, format_nodes, format_ns, format_share

if TYPE_CHECKING:
    from numatrace.analyze.situation import Situation


def weights_by_node(situation: Situation) -> Evidence:
    """Say where the weights are."""
    weights = situation.weights
    each = [
        f"{format_share(share)} ({format_bytes(weights.node_bytes[node])}) on node {node}"
        for node, share in weights.parts.items()
    ]
    error = weights.error_bytes
    figures = tuple(
        Figure(size, "bytes", "placement", max(0, size - error), size + error)
        if error
        else Figure(size, "bytes", "placement")
        for size in weights.node_bytes.values()
    )
    return Evidence(f"Location of the {weights.name}: {_join(each)}.", figures)


def threads_by_node(situation: Situation) -> Evidence:
    """Say where the compute threads ran."""
    times = situation.compute_ns
    each = [
        f"{format_share(share)} of it ({format_ns(times[node])}) on node {node}"
        for node, share in situation.compute_parts.items()
    ]
    count = format_count(len(situation.compute), "compute thread")
    figures = tuple(Figure(ns, "ns", "counter") for ns in times.values())
    text = f"{count} used {format_ns(sum(times.values()))} of CPU time: {_join(each)}."
    return Evidence(text, figures)


def remote(situation: Situation) -> Evidence:
    """Say what part of the reads is remote: measured, or else expected."""
    figure = situation.measured
    if figure is not None:
        return Evidence(
            f"Measured remote share of weight reads: {format_share(figure.value)}"
            f"{format_interval(figure)}, from {situation.measured_samples:,} samples.",
            (figure,),
        )
    figure = situation.expected
    if figure is None:
        return Evidence("The expected remote share is unknown.")
    return Evidence(
        f"Expected remote share of weight reads: {format_share(figure.value)}, from where the"
        " weights lie and where the threads ran, not from measured accesses.",
        (figure,),
    )


def format_interval(figure: Figure) -> str:
    """Return ` (46 to 50 %)`, or nothing for a figure without an interval."""
    if figure.low is None or figure.high is None:
        return ""
    return f" (95 % interval {100 * figure.low:.0f} to {100 * figure.high:.0f} %)"


def constraints(situation: Situation) -> list[Evidence]:
    """Say what ties threads and memory to nodes: allowed CPUs, memory policy, cpuset."""
    found = []
    if situation.confined_to:
        found.append(
            Evidence(f"The compute threads may run on {format_nodes(situation.confined_to)} only.")
        )
    if situation.policy_nodes:
        found.append(Evidence(f"The server's memory policy is {situation.server.policy}."))
    if situation.mems:
        nodes = format_nodes(situation.mems)
        found.append(Evidence(f"Its cpuset lets it take memory from {nodes} only."))
    return found


def _join(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts)
