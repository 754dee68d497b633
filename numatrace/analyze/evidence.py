"""Sentences of evidence, with their figures, that causes and verdicts share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.samples.shares import parts
from numatrace.model.cpulist import format_cpulist
from numatrace.model.findings import Evidence
from numatrace.model.measured import Figure
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


def private_weights(situation: Situation) -> Evidence:
    """Say how much of the weights is private memory, and where that is."""
    weights = situation.weights
    held = parts(weights.private_bytes)
    each = [f"{format_share(share)} of it on node {node}" for node, share in held.items()]
    return Evidence(
        f"{format_share(weights.private_share)} of the {weights.name} is private memory, no page"
        f" cache: {_join(each)}.",
        tuple(Figure(size, "bytes", "placement") for size in weights.private_bytes.values()),
    )


def mapped_weights(situation: Situation) -> Evidence:
    """Say where the mapped weights are."""
    held = situation.weights.mapped_bytes
    each = [
        f"{format_bytes(held[node])} ({format_share(share)}) on node {node}"
        for node, share in parts(held).items()
    ]
    return Evidence(
        f"The mapped weights are page cache of the model's file: {_join(each)}.",
        tuple(Figure(size, "bytes", "placement") for size in held.values()),
    )


def moves(situation: Situation) -> Evidence:
    """Say how often the compute threads moved between nodes."""
    count = sum(thread.moves for thread in situation.compute)
    rate = situation.moves_per_thread_s
    text = f"The compute threads moved between nodes {format_count(count, 'time')}"
    if rate is None:
        return Evidence(f"{text}.", (Figure(count, "moves", "event"),))
    return Evidence(
        f"{text}: {rate.value:.2g} times per second of CPU time.",
        (Figure(count, "moves", "event"), rate),
    )


def threads_and_cpus(situation: Situation) -> Evidence:
    """Say how many threads computed at once, and on how many CPUs they may."""
    cpus, quota = situation.allowed_cpus, situation.quota_cpus
    used = format_count(situation.threads_used, "thread")
    text = f"{used} computed at the same time; they may run on {format_count(len(cpus), 'CPU')}"
    figures = [
        Figure(situation.threads_used, "threads", "counter"),
        Figure(len(cpus), "CPUs", "counter"),
    ]
    if cpus:
        text += f" ({format_cpulist(cpus)})"
    if quota is not None:
        text += f", for {quota:.3g} CPUs' time (cpu.max)"
        figures.append(Figure(quota, "CPUs", "counter"))
    return Evidence(f"{text}.", tuple(figures))


def lost(figure: Figure | None, share: tuple[float, float, float]) -> list[Evidence]:
    """Say how much of the compute threads' CPU time a cause costs, if that is known."""
    if figure is None:
        return []
    value, low, high = share
    ends = f" ({100 * low:.0f} to {100 * high:.0f} %)" if high - low >= 0.005 else ""
    return [
        Evidence(
            f"It costs about {format_share(value)}{ends} of the compute threads' CPU time,"
            f" {format_ns(figure.value)}.",
            (figure,),
        )
    ]


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
