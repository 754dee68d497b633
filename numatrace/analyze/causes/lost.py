"""The CPU time that a cause costs: measured where samples tell, else from remote share and λ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.samples.ratios import ASSUMED, SLIT
from numatrace.model.measured import Figure

if TYPE_CHECKING:
    from numatrace.analyze.situation import Situation

READING = 0.5
"""The least part of its time that a computing thread waits for weights, where samples do not tell:
token generation is bound by memory, and 63 % of llama.cpp's samples there hit a load."""
GUESSED_RATIO = 1 / 3
"""The least part of a guessed ratio's excess over 1 that is true: where the firmware's distance
says 2.1 and 3.2, measured latencies say 1.4 to 1.5 and 1.7 to 2."""


def remote_lost(situation: Situation) -> Figure | None:
    """Return the CPU time of the compute threads that remote reads of weights cost [ns].

    Measured: CPU time x the part of the sampled time that remote reads of weights lost, which is
    their time x (1 - 1/λ). The upper end is as much of all CPU time as of these reads: at each of
    ggml's barriers, threads that have read wait for those that read remotely. Not measured: CPU
    time x remote share x (1 - 1/λ), which takes all of the time for reads of weights and is the
    upper end, too; the lower end takes READING of it. Where λ is guessed, the lower end takes
    GUESSED_RATIO of its excess.
    """
    remote = situation.remote
    if remote is None:
        return None
    certain, least = _parts_lost(situation)
    if not certain:
        return Figure(0.0, "ns", "model", 0.0, 0.0)
    doubt = least / certain
    low, high = _interval(remote)
    total = sum(situation.compute_ns.values())
    if situation.measured is not None:
        value, most = (total * part for part in situation.measured_lost)
        return Figure(value, "ns", remote.source, value * low * doubt, max(value, most * high))
    value = total * certain
    return Figure(value, "ns", "model", value * low * doubt * READING, value * high)


def share_of_time(situation: Situation, lost: Figure) -> tuple[float, float, float]:
    """Return lost time as a share of the compute threads' CPU time: value, low and high end."""
    total = sum(situation.compute_ns.values())
    if not total:
        return 0.0, 0.0, 0.0
    ends = (lost.value, *(lost.value if e is None else e for e in (lost.low, lost.high)))
    value, low, high = (min(1.0, max(0.0, end / total)) for end in ends)
    return value, low, high


def added(first: Figure | None, second: Figure | None) -> Figure | None:
    """Return the sum of two times; what is unknown adds nothing."""
    if first is None or second is None:
        return first or second
    source = first.source if first.value >= second.value else second.source
    return Figure(
        first.value + second.value,
        "ns",
        source,
        sum(each.value if each.low is None else each.low for each in (first, second)),
        sum(each.value if each.high is None else each.high for each in (first, second)),
    )


def capped(situation: Situation, lost: Figure) -> Figure:
    """Return a time with all ends at most the compute threads' CPU time: no more can be lost."""
    total = float(sum(situation.compute_ns.values()))
    low, high = (end if end is None else min(end, total) for end in (lost.low, lost.high))
    return Figure(min(lost.value, total), lost.unit, lost.source, low, high)


def _parts_lost(situation: Situation) -> tuple[float, float]:
    """Return the part of the time in reads of weights that is lost, by λ and by its least value."""
    times, weights = situation.compute_parts, situation.weights.parts
    certain = least = 0.0
    for cpu, time in times.items():
        for mem, size in weights.items():
            if cpu == mem:
                continue
            view = situation.ratios.of(cpu, mem)
            guessed = view.basis in (SLIT, ASSUMED)
            low = 1 + (view.ratio - 1) * (GUESSED_RATIO if guessed else 1.0)
            certain += time * size * (1 - 1 / max(1.0, view.ratio))
            least += time * size * (1 - 1 / max(1.0, low))
    return certain, least


def _interval(remote: Figure) -> tuple[float, float]:
    """Return the ends of the remote share's interval as multiples of its value."""
    if not remote.value or remote.low is None or remote.high is None:
        return 1.0, 1.0
    return remote.low / remote.value, remote.high / remote.value
