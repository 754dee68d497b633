"""What a recording's samples hold: the text of `perf evlist -v`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_TEXT: Final = 1 << 20
"""Bytes of the text that are looked at; a hundred events take some 50 KiB."""

# A name may hold colons, but perf's list of attributes begins with the type or the size.
_LINE: Final = re.compile(
    r"^(?P<name>\S.*?): (?:type: (?P<type>\d+)[^,]*, )?size: \d+(?P<rest>,.*)?$"
)
_SAMPLE_TYPE: Final = re.compile(r", sample_type: ([A-Z_0-9|]+)")
_NUMBER: Final = r"(?:, | )%s: (0x[0-9a-f]{1,16}|\d{1,19})\b"
_CONFIG: Final = re.compile(_NUMBER % "config")
_PERIOD: Final = re.compile(_NUMBER % re.escape("{ sample_period, sample_freq }"))
_DUMMY: Final = (1, 9)
"""PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY."""
_SPE: Final = frozenset(("IP", "TID", "ADDR", "DATA_SRC", "WEIGHT", "PHYS_ADDR"))
_FREQUENCY: Final = re.compile(r", freq: 1\b")


@dataclass(frozen=True, slots=True)
class EventAttr:
    """One event. `sample_type`: names of the PERF_SAMPLE_* bits as perf prints them.

    `period` is a number of events, or samples per second if `by_frequency`.
    """

    name: str
    sample_type: frozenset[str]
    type: int
    config: int
    period: int
    by_frequency: bool


def parse(text: bytes) -> tuple[EventAttr, ...]:
    """Events of the output of `perf evlist -v`; lines of any other form are passed over."""
    lines = text[:MAX_TEXT].decode("utf-8", "replace").split("\n")
    found = (_event(line) for line in lines)
    return tuple(event for event in found if event is not None)


def _event(line: str) -> EventAttr | None:
    match = _LINE.match(line)
    if match is None or match["rest"] is None:
        return None
    rest = match["rest"]
    bits = _SAMPLE_TYPE.search(rest)
    return EventAttr(
        name=match["name"],
        sample_type=frozenset(bits[1].split("|")) if bits else frozenset(),
        type=int((match["type"] or "0")[:9]),
        config=_number(_CONFIG, rest),
        period=_number(_PERIOD, rest),
        by_frequency=_FREQUENCY.search(rest) is not None,
    )


def _number(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.search(text)
    if match is None:
        return 0
    digits = match[1].lower()
    return int(digits, 16) if digits.startswith("0x") else int(digits)


def common_sample_type(events: Iterable[EventAttr]) -> frozenset[str]:
    """Bits that the samples of every event have; perf refuses a field that one event lacks.

    perf's dummy event, which takes no samples, does not count. Arm SPE's bits are those of the
    events that `perf script` makes out of its records (tools/perf/util/arm-spe.c).
    """
    sets = [
        event.sample_type | (_SPE if event.name.startswith("arm_spe") else frozenset())
        for event in events
        if (event.type, event.config) != _DUMMY
    ]
    return frozenset.intersection(*sets) if sets else frozenset()
