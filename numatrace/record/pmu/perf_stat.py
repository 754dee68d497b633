"""Reads what `perf stat` counts: the objects of `-j`, and as a fallback the rows of `-x SEP`.

The objects look like JSON and are not: perf 6.1 prints a thread's name as it is, quotes and line
ends included. So a row is read by the form that perf prints (tools/perf/util/stat-display.c),
beginning with the last place where its fixed part can begin: a name of 15 bytes cannot hold one.
Run it with LC_ALL=C, and `-x` with ';' or '|': commas stand in names of events.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Final

MAX_ROW: Final = 1024
"""Bytes of the longest row that is read; perf's own are below 400."""
_MAX_NAME: Final = 15
"""Bytes of a thread's name that may be anything; kernel workers' are longer, on one line."""


@dataclass(frozen=True, slots=True)
class Count:
    """One counter of one thread, node, ... in one interval.

    `t_s`: seconds since the start, 0 without intervals. `kind`: "all", or what perf was told to
    count by: "thread", "node", "socket", "die", "core", "cpu". `where`: whose it is, as perf names
    it (`N0`, `S0-D0-C1`), or the thread's name; `tid` is -1 unless it is a thread, and `number` is
    that of a node, socket or CPU, else -1. `value` is in `unit` ("" is events), scaled by perf to
    the whole interval; None for the `reason`, "not counted" or "not supported".
    `running_share`: part of the interval in which the counter was on the hardware, 0 where it
    never was. `running_ns`: the time it was on the hardware while its thread ran.
    """

    t_s: float
    kind: str
    where: str
    tid: int
    number: int
    event: str
    value: float | None
    reason: str
    unit: str
    running_share: float
    metric: float | None
    metric_unit: str
    running_ns: int = 0


@dataclass(slots=True)
class StatTotals:
    """Rows by what they were.

    `others`: comments, blank lines, what perf says between rows, and rows with metrics only.
    """

    counts: int = 0
    malformed: int = 0
    others: int = 0


_FLOAT: Final = r"-?\d{1,20}(?:\.\d{1,12})?"
_VALUE: Final = rf"(?P<value>{_FLOAT}|<not counted>|<not supported>)"
_JSON_ROW: Final = re.compile(
    rf'\s*\{{(?:"interval" : (?P<t>{_FLOAT}), )?'
    r'(?:"(?P<kind>thread|node|socket|die|cluster|cache|core|cpu)" : "(?P<where>.*)", ?)?'
    rf'(?:"(?:aggregate-number|counters)" : {_FLOAT}, )?'
    rf'"counter-value" : "{_VALUE}", (?:"unit" : "(?P<unit>[^"]*)", )?'
    r'"event" : "(?P<event>.+?)", (?P<rest>"(?:variance|cgroup|event-runtime)" : .*)\}\s*',
    re.DOTALL,
)
_JSON_MEMBER: Final = re.compile(r'"([a-z-]{1,32})" : (?:"([^"]*)"|([^",}\s]+))')
# What can be the beginning of a row whose thread has a line end in its name.
_JSON_BEGUN: Final = re.compile(
    rf'\s*\{{(?:"interval" : {_FLOAT}, )?"thread" : "(?s:.{{0,{_MAX_NAME}}})'
)
_ONE_NUMBER: Final = re.compile(r"(?:N|S|CPU)?(\d{1,9})")
_PLACE: Final = re.compile(r"(?:N|CPU|S)\d{1,9}|S\d{1,9}-D\d{1,9}(?:-C\d{1,9})?")
_THREAD: Final = re.compile(r"(.*)-(\d{1,10})", re.DOTALL)
_LETTERS: Final = {"N": "node", "S": "socket", "CPU": "cpu"}
_KINDS: Final = ("thread", "node", "socket", "die", "core", "cpu")


def _csv_row(separator: str) -> re.Pattern[str]:
    sep = re.escape(separator)
    text = rf"(?:(?!{sep}).)*"
    return re.compile(
        rf" *(?:(?P<t>\d{{1,12}}\.\d{{1,9}}) ?{sep})?(?:(?P<where>.*){sep})?"
        rf"{_VALUE}{sep}(?:(?P<unit>{text}){sep})?(?P<event>[^\s\d<].*?){sep}"
        rf"(?P<runtime>\d{{1,20}}){sep}(?P<share>\d{{1,3}}\.\d\d)(?:{sep}(?P<rest>.*))?\s*",
        re.DOTALL,
    )


def _csv_begun(separator: str) -> re.Pattern[str]:
    sep = re.escape(separator)
    return re.compile(rf" *\d{{1,12}}\.\d{{1,9}} ?{sep}(?s:.{{0,{_MAX_NAME}}})")


class StatReader:
    """Turns output that arrives in pieces into counts. Never raises on any bytes.

    `separator` is that of `-x`, one character; None reads the objects of `-j`.
    """

    def __init__(self, separator: str | None = None) -> None:
        self.totals = StatTotals()
        self._separator = separator
        self._form = _JSON_ROW if separator is None else _csv_row(separator)
        self._begin = _JSON_BEGUN if separator is None else _csv_begun(separator)
        self._tail = b""
        self._skipping = False
        self._begun = ""

    def feed(self, data: bytes) -> list[Count]:
        """Counts of the rows that `data` completes."""
        counts = []
        for start in range(0, len(data), MAX_ROW):
            for line in self._lines(data[start : start + MAX_ROW]):
                count = self._line(line.decode("utf-8", "replace"))
                if count is not None:
                    counts.append(count)
        self.totals.counts += len(counts)
        return counts

    def close(self) -> None:
        """The output has ended: what has not become a row by now will not."""
        for rest in (self._begun, self._tail.decode("utf-8", "replace")):
            if rest:
                self._drop(rest)
        self._tail, self._begun = b"", ""

    def _lines(self, data: bytes) -> list[bytes]:
        *lines, self._tail = (self._tail + data).split(b"\n")
        if self._skipping and lines:
            self._skipping = False
            del lines[0]
        if len(self._tail) > MAX_ROW:
            self.totals.malformed += not self._skipping
            self._skipping = True
        if self._skipping:
            self._tail = b""
        return lines

    def _line(self, line: str) -> Count | None:
        begun, self._begun = self._begun, ""
        if begun:
            count = self._row(f"{begun}\n{line}")
            if count is not None:
                return count
            if self._begin.fullmatch(f"{begun}\n{line}"):
                self._begun = f"{begun}\n{line}"
                return None
            self._drop(begun)
        count = self._row(line)
        if count is None and self._begin.fullmatch(line):
            self._begun = line
        elif count is None:
            self._drop(line)
        return count

    def _drop(self, line: str) -> None:
        if self._separator is None:
            no_count = '"metric-value"' in line and '"counter-value"' not in line
        else:
            no_count = self._separator * 3 in line
        if line.lstrip()[:1] not in set("{<0123456789") or no_count:
            self.totals.others += 1
        else:
            self.totals.malformed += 1

    def _row(self, text: str) -> Count | None:
        match = self._form.fullmatch(text) if len(text) <= MAX_ROW else None
        if match is None:
            return _from_json(text) if self._separator is None else None
        groups = {name: value or "" for name, value in match.groupdict().items()}
        if self._separator is None:
            return _from_object(groups)
        return _from_csv(groups, self._separator)


def _from_object(groups: dict[str, str]) -> Count | None:
    members = {name: text or bare for name, text, bare in _JSON_MEMBER.findall(groups["rest"])}
    return _count(groups, groups["kind"] or "all", members)


def _from_json(text: str) -> Count | None:
    """A row whose members stand in another order than those of the versions known."""
    if not text.startswith("{") or len(text) > MAX_ROW:
        return None
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not {"event", "counter-value"} <= row.keys():
        return None
    members = {str(key): str(value) for key, value in row.items()}
    kind = next((kind for kind in _KINDS if kind in members), "all")
    groups = {
        "t": members.get("interval", ""),
        "where": members.get(kind, ""),
        "value": members["counter-value"],
        "unit": members.get("unit", ""),
        "event": members["event"],
    }
    return _count(groups, kind, members)


def _from_csv(groups: dict[str, str], separator: str) -> Count | None:
    where = groups["where"]
    # A number of CPUs follows every id but a thread's and a CPU's.
    head, _, cpus = where.rpartition(separator)
    if head and cpus.isdecimal():
        groups["where"] = where = head
    kind = "all" if not where else "thread"
    if _PLACE.fullmatch(where):
        kind = _LETTERS.get(where.rstrip("0123456789"), "core" if "-C" in where else "die")
    metric, _, unit = groups["rest"].partition(separator)
    members = {
        "event-runtime": groups["runtime"],
        "pcnt-running": groups["share"],
        "metric-value": metric,
        "metric-unit": unit,
    }
    return _count(groups, kind, members)


def _count(groups: dict[str, str], kind: str, members: dict[str, str]) -> Count | None:
    whose = _whose(kind, groups["where"])
    value, reason = _real(groups["value"]), groups["value"].strip("<>")
    if whose is None or (value is None and reason not in ("not counted", "not supported")):
        return None
    where, tid, number = whose
    ran = value is not None and _real(members.get("event-runtime", "")) != 0
    share = (_real(members.get("pcnt-running", "")) or 0.0) / 100 if ran else 0.0
    return Count(
        t_s=_real(groups["t"]) or 0.0,
        kind=kind,
        where=where,
        tid=tid,
        number=number,
        event=groups["event"],
        value=value,
        reason="" if value is not None else reason,
        unit=groups["unit"],
        running_share=min(max(share, 0.0), 1.0),
        metric=_real(members.get("metric-value", "")),
        metric_unit=members.get("metric-unit", ""),
        running_ns=max(0, int(_real(members.get("event-runtime", "")) or 0)),
    )


def _whose(kind: str, where: str) -> tuple[str, int, int] | None:
    """Name, thread id and number; None if there is no such thread."""
    if kind == "thread":
        match = _THREAD.fullmatch(where)
        if match is None or int(match[2]) >= 1 << 31:
            return None
        if "\n" in match[1] and len(match[1]) > _MAX_NAME:
            return None
        return match[1], int(match[2]), -1
    match = _ONE_NUMBER.fullmatch(where)
    return where, -1, int(match[1]) if match else -1


def _real(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
