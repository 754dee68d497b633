"""Tell prompts from tokens: by the pace at which each mode of work passes over the weights.

A prompt's pass computes hundreds of tokens and takes many times as long as the pass of one token.
So of the modes that sweep the same memory, the slow ones are prompts and the fast ones decode.
With one pace only, work is decoding where the passes are so fast that each can be for a few
tokens at most.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from numatrace.analyze.phases.dwell import GRANULE_SHIFT
from numatrace.analyze.phases.groups import group_modes
from numatrace.analyze.phases.sweeps import measure, where, windows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numatrace.analyze.phases.dwell import Pace
    from numatrace.analyze.phases.segments import Segment
    from numatrace.analyze.phases.sweeps import Measure, Sweeps

SLOWER = 3.0
"""A prompt's pass takes at least so many times as long as a token's."""
LONG = 0.5
"""Passes can be seen to be fast only in stretches of so many times a slow pass."""
DENSE = 0.1
ALIKE_DENSE = 0.5
"""Work with less than this part of the fastest mode's samples in weights, for its CPU time, is
not known to sweep them; with so much, it is a kind of its own."""
FAST = 4.0
"""Modes whose passes are known to take at most so many times as long as the fastest's may be
it."""
COVERED = 0.2
"""The fastest mode must read so much of a model's bytes, by their size, if it is not known where
they are: caches, which it reads too, are smaller."""
OWN_SAMPLES = 64
"""From so many samples in weights on, a stretch is judged by itself, too."""
PASSES = 10
"""Passes that a stretch must have to be decoding if there is no slower mode to compare with."""
THREAD_BYTES_PER_S = 5e8
"""Bytes of weights per second and thread above which a pass is for a few tokens: for each token, a
thread multiplies and adds every byte or two of them, and 10¹¹ a second are many for one core."""

ONE_PACE = "all passes over the weights take about as long: prompts cannot be told from tokens"
NO_PACE = "too few samples hit the weights to tell how long a pass over them takes"


class Reference(NamedTuple):
    """The paces of a recording that has two: of its fastest mode, and that of slow ones [ns]."""

    fastest: Measure
    slow_low_ns: float

    def phase(self, found: Measure) -> str:
        """Return what work is; "" where that is unclear."""
        if is_slow(found.pace, self.fastest):
            return "prompt"
        limit_ns = max(2 * self.fastest.pace.high, self.slow_low_ns / SLOWER)
        is_long = found.length_ns >= LONG * self.slow_low_ns
        is_dense = found.density >= DENSE * self.fastest.density
        return "decode" if found.pace.high <= limit_ns and is_long and is_dense else ""


def name_work(
    sweeps: Sweeps, work: list[Segment], weight_bytes: int
) -> tuple[list[Segment], tuple[str, ...]]:
    """Return stretches of computing with their phase, and why some are only `compute`.

    Stretches of which parts differ are returned in parts.
    """
    for segment in work:
        segment.phase = "compute"
    modes = _known_modes(sweeps, work)
    if not modes:
        return work, (NO_PACE,)
    # The fastest mode reads little but weights: where it reads, the others read weights, too.
    number = _fastest(sweeps, modes)
    sweeps = where(sweeps, _of(work, [number]))
    modes = _known_modes(sweeps, work)
    if number not in modes or not _covers(sweeps, modes[number], weight_bytes):
        return work, (NO_PACE,)
    dense = [found for found in modes.values() if _is_alike(found, modes[number])]
    fastest = min(dense, key=lambda found: found.pace.high)
    # Operations of a slow pass take turns; the modes that read as many weights are no operations.
    alone = {mode for mode, found in modes.items() if _stands_alone(found, fastest)}
    groups = group_modes(work, {segment.mode for segment in work} - alone)
    groups += [{mode} for mode in sorted(alone)]
    measures = [(group, measure(sweeps, _of(work, group))) for group in groups]
    slow = [found.pace.low for _, found in measures if is_slow(found.pace, fastest)]
    if not slow:
        return _one_pace(sweeps, work, measures, weight_bytes)
    reference = Reference(fastest, min(slow))
    for group, found in measures:
        for segment in _of(work, group):
            segment.phase = reference.phase(found) or "compute"
    return [part for each in work for part in _judged(sweeps, each, reference)], ()


def _judged(sweeps: Sweeps, segment: Segment, reference: Reference) -> list[Segment]:
    """Return a stretch in parts as long as a slow pass, each judged by its own pace, too."""
    parts = windows(sweeps, segment, reference.slow_low_ns)
    for part in parts if len(sweeps.inside([segment])) >= OWN_SAMPLES else ():
        own = measure(sweeps, [part])
        contradicts = own.pace.high < reference.slow_low_ns and part.phase == "prompt"
        part.phase = reference.phase(own) or ("compute" if contradicts else part.phase)
    return parts


def is_slow(pace: Pace, fastest: Measure) -> bool:
    """Return whether passes take SLOWER times as long as the fastest ones, or more."""
    return pace.low >= SLOWER * fastest.pace.high


def _of(work: list[Segment], modes: Iterable[int]) -> list[Segment]:
    chosen = set(modes)
    return [segment for segment in work if segment.mode in chosen]


def _known_modes(sweeps: Sweeps, work: list[Segment]) -> dict[int, Measure]:
    """Return the modes of which the pace is known, and that last for a pass or more."""
    stretches: defaultdict[int, list[Segment]] = defaultdict(list)
    for segment in work:
        stretches[segment.mode].append(segment)
    found = {mode: measure(sweeps, each) for mode, each in stretches.items()}
    return {mode: each for mode, each in found.items() if each.pace.high <= each.length_ns}


def _fastest(sweeps: Sweeps, modes: dict[int, Measure]) -> int:
    """Return the fastest mode; where no weights are known, one of the fast ones: the widest.

    A prompt that reads its activations more than weights looks fast as well, in less memory.
    """
    if sweeps.is_known:
        return min(modes, key=lambda mode: (modes[mode].pace.high, -modes[mode].density))
    limit_ns = FAST * min(found.pace.high for found in modes.values())
    fast = [mode for mode, found in modes.items() if found.pace.high <= limit_ns]
    return max(fast, key=lambda mode: modes[mode].granules)


def _covers(sweeps: Sweeps, fastest: Measure, weight_bytes: int) -> bool:
    """Return whether a mode reads as much memory as a pass over the model must."""
    covered_bytes = fastest.granules * (1 << GRANULE_SHIFT)
    return sweeps.is_known or covered_bytes >= COVERED * weight_bytes


def _is_alike(found: Measure, fastest: Measure) -> bool:
    return found.density >= ALIKE_DENSE * fastest.density


def _stands_alone(found: Measure, fastest: Measure) -> bool:
    return _is_alike(found, fastest) and not is_slow(found.pace, fastest)


def _one_pace(
    sweeps: Sweeps,
    work: list[Segment],
    measures: list[tuple[set[int], Measure]],
    weight_bytes: int,
) -> tuple[list[Segment], tuple[str, ...]]:
    """Name work where no mode is slower than another: it decodes if its passes are fast enough."""
    limit_ns = weight_bytes / THREAD_BYTES_PER_S * 1e9 if sweeps.is_known else 0.0
    high_ns = {mode: found.pace.high for group, found in measures for mode in group}
    named: list[Segment] = []
    for segment in work:
        longest_ns = min(high_ns[segment.mode], limit_ns / max(segment.threads, 1.0))
        if segment.duration_ns < PASSES * longest_ns or not longest_ns:
            named.append(segment)
            continue
        # All parts must be fast, lest a slow one hide among many that are not.
        for part in windows(sweeps, segment, PASSES * longest_ns):
            if measure(sweeps, [part]).pace.high <= limit_ns / max(segment.threads, 1.0):
                part.phase = "decode"
            named.append(part)
    is_told = any(segment.phase == "decode" for segment in named)
    return named, () if is_told else (ONE_PACE,)
