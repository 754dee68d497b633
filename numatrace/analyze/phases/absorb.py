"""Give short stretches whose phase their own samples do not tell that of what lies beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.analyze.phases.segments import Segment

BRIEF_NS = 50_000_000
BRIEF_SHARE = 0.1
"""Work of at most so long, or this share of what lies beside it, belongs to that: taking a
request apart, choosing a token."""
UNTOLD = ("compute", "other")
TOLD = ("prompt", "decode")


def absorb(segments: list[Segment]) -> None:
    """Give stretches that are `other` or `compute` the phase of their surroundings, or `compute`.

    What is left is the server's work, but neither surely a prompt's nor a token's.
    """
    for number, each in enumerate(segments):
        if each.phase in UNTOLD:
            beside = list(_beside(segments, number))
            told = [near for near in beside if near.phase in TOLD]
            each.phase = _phase(each, told, len(beside))


def _beside(segments: list[Segment], number: int) -> Iterator[Segment]:
    for near in (number - 1, number + 1):
        if 0 <= near < len(segments) and segments[near].burst == segments[number].burst:
            yield segments[near]


def _phase(segment: Segment, told: list[Segment], beside: int) -> str:
    """Return the phase of a stretch between those that are told."""
    around_ns = sum(near.duration_ns for near in told)
    if not told or segment.duration_ns > max(BRIEF_NS, BRIEF_SHARE * around_ns):
        return "compute"
    phases = {near.phase for near in told}
    is_amid = len(phases) == 1 and len(told) == beside
    if segment.phase == "other" or is_amid:
        return max(told, key=lambda near: near.duration_ns).phase
    return "compute"
