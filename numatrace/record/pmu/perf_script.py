"""Reads the lines of `perf script --ns -F ...`: memory samples in, numpy columns out.

Nothing in the text is trusted. A line is bounded, a chunk is bounded, and what has not the form of
a sample is counted and dropped. The description that perf prints beside `data_src` is not read:
perf cuts it at 100 bytes and words it differently in every version; the number says it all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

MAX_LINE: Final = 2048
"""Bytes of the longest line that is read; perf's own are below 400."""
MAX_TEXT: Final = 1 << 18
"""Bytes of text that one chunk is made of, which bounds its rows at some 5,000."""
MAX_EVENTS: Final = 64
"""Distinct event names that are kept; a line with one more is malformed."""

# Every field that is asked for, in the order in which perf prints them whatever the order of -F
# (process_event() in tools/perf/builtin-script.c): -F name, PERF_SAMPLE_* bits of which one must
# be set, and what it looks like. A number of 19 digits or 16 hex digits fits 64 bits.
# phys_addr may follow ip without a space when it has all its 16 digits (perf 6.12).
_FORMS: Final[tuple[tuple[str, tuple[str, ...], bytes], ...]] = (
    ("pid", ("TID",), rb" *(?P<pid>-?\d{1,10})/"),
    ("tid", ("TID",), rb"(?P<tid>-?\d{1,10}) +"),
    ("cpu", ("CPU",), rb"(?:\[(?P<cpu>-?\d{1,10})\] +)?"),
    ("time", ("TIME",), rb" *(?P<time>\d{1,10}\.\d{9}): +"),
    ("period", (), rb"(?P<period>\d{1,19}) +"),
    ("event", (), rb"(?P<event>[^ \n][^\n]*?): +"),
    ("addr", ("ADDR",), rb"(?P<addr>[0-9a-f]{1,16}) +"),
    ("data_src", ("DATA_SRC",), rb"(?P<data_src>[0-9a-f]{1,16}) \|OP [^\n]* "),
    ("weight", ("WEIGHT", "WEIGHT_STRUCT"), rb"(?P<weight>\d{1,19}) +"),
    ("ip", ("IP",), rb"(?P<ip>[0-9a-f]{1,16})"),
    (
        "phys_addr",
        ("PHYS_ADDR",),
        rb"(?: +|(?=[0-9a-f]{16} *$))(?P<phys_addr>[0-9a-f]{1,16})",
    ),
)
_NEWLINE: Final = 10
_NEEDED: Final = ("pid", "tid", "time", "event", "ip")
_HEX: Final = ("addr", "data_src", "ip", "phys_addr")
_S32: Final = ("pid", "tid", "cpu")
_S32_LIMITS: Final = (-(1 << 31), (1 << 31) - 1)
# "PERF_RECORD_LOST lost 7", and in a dump "PERF_RECORD_LOST_SAMPLES: id:1: lost samples :7".
_LOST: Final = re.compile(
    rb": PERF_RECORD_LOST(?:_SAMPLES)?[ :][^\n]*?\blost(?: samples ?)?[ :]+(\d{1,19})"
)
_RECORD: Final = re.compile(rb": PERF_RECORD_([A-Z_0-9]{1,32})")


class Samples(NamedTuple):
    """Columns of one length. `event` is an index of `ScriptReader.events`.

    `cpu` is -1 where the recording does not say; `pid` and `tid` are perf's, -1 where it lost
    track; the other columns are 0 where the recording has no such field.
    """

    t_ns: NDArray[np.uint64]
    pid: NDArray[np.int32]
    tid: NDArray[np.int32]
    cpu: NDArray[np.int32]
    event: NDArray[np.int32]
    addr: NDArray[np.uint64]
    phys_addr: NDArray[np.uint64]
    data_src: NDArray[np.uint64]
    weight: NDArray[np.uint64]
    ip: NDArray[np.uint64]
    period: NDArray[np.uint64]


@dataclass(slots=True)
class ScriptTotals:
    """Lines by what they were: samples + malformed + lost + throttled + unthrottled + others.

    `lost_events` is the sum of what the `lost` lines report. `cut`, one of `malformed`: the
    output ended within a line.
    """

    lines: int = 0
    samples: int = 0
    malformed: int = 0
    cut: int = 0
    lost: int = 0
    lost_events: int = 0
    throttled: int = 0
    unthrottled: int = 0
    others: int = 0

    def check(self) -> bool:
        """Every line is accounted for."""
        told = self.lost + self.throttled + self.unthrottled + self.others
        return self.lines == self.samples + self.malformed + told


def fields_for(sample_type: Collection[str]) -> tuple[str, ...] | None:
    """Fields for -F that recordings with these PERF_SAMPLE_* bits can print, in perf's order.

    None when samples lack a thread, a time or an instruction pointer, and so are of no use.
    """
    fields = tuple(
        name for name, bits, _ in _FORMS if not bits or not frozenset(bits).isdisjoint(sample_type)
    )
    return fields if frozenset(_NEEDED) <= frozenset(fields) else None


def script_arguments(fields: Sequence[str]) -> tuple[str, ...]:
    """Arguments of `perf script` whose output `ScriptReader(fields)` reads."""
    return ("--ns", "-F", ",".join(fields), "--show-lost-events")


class ScriptReader:
    """Turns output that arrives in pieces into chunks of samples. Never raises on any bytes."""

    def __init__(self, fields: Sequence[str]) -> None:
        self.events: list[str] = []
        self.totals = ScriptTotals()
        self._form = _form(fields)
        self._columns = sorted(self._form.groupindex, key=self._form.groupindex.__getitem__)
        self._codes: dict[bytes, int] = {}
        self._tail = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[Samples]:
        """Samples of the lines that `data` completes, at most MAX_TEXT of text in each chunk."""
        chunks = []
        for start in range(0, len(data), MAX_TEXT):
            block = self._complete(data[start : start + MAX_TEXT])
            samples = self._block(block) if block else None
            if samples is not None:
                chunks.append(samples)
        return chunks

    def close(self) -> list[Samples]:
        """The output has ended. A line without its end is cut, however whole it looks."""
        if self._tail or self._skipping:
            self.totals.cut += 1
            # The overlong line was counted when it began.
            self.totals.lines += not self._skipping
            self.totals.malformed += not self._skipping
        self._tail, self._skipping = b"", False
        return []

    def _complete(self, data: bytes) -> bytes:
        """Whole lines, each with its end; what follows the last one is kept for later."""
        if self._skipping:
            _, end, data = data.partition(b"\n")
            if not end:
                return b""
            self._skipping = False
        data = self._tail + data
        end_at = data.rfind(b"\n") + 1
        self._tail = data[end_at:]
        if len(self._tail) > MAX_LINE:
            self._tail, self._skipping = b"", True
            self.totals.lines += 1
            self.totals.malformed += 1
        return data[:end_at]

    def _block(self, block: bytes) -> Samples | None:
        ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == _NEWLINE)
        self.totals.lines += len(ends)
        # No expression ever sees a line longer than MAX_LINE: some take time with its square.
        bounded = int(np.diff(ends, prepend=-1).max()) <= MAX_LINE
        rows = self._form.findall(block) if bounded else []
        if len(rows) != len(ends):
            rows = self._sorted_out(block)
        return self._samples(rows) if rows else None

    def _sorted_out(self, block: bytes) -> list[tuple[bytes, ...]]:
        """The same rows, with the lines that are none of them counted by what they are."""
        rows = []
        for line in block[:-1].split(b"\n"):
            match = self._form.match(line) if len(line) <= MAX_LINE else None
            if match is not None:
                rows.append(match.groups(b""))
            else:
                self._count(line[:MAX_LINE])
        return rows

    def _count(self, line: bytes) -> None:
        totals = self.totals
        record = _RECORD.search(line)
        kind = record[1] if record else b""
        lost = _LOST.search(line)
        if lost is not None:
            totals.lost += 1
            totals.lost_events += int(lost[1])
        elif kind == b"THROTTLE":
            totals.throttled += 1
        elif kind == b"UNTHROTTLE":
            totals.unthrottled += 1
        elif kind or not line.strip():
            totals.others += 1
        else:
            totals.malformed += 1

    def _samples(self, rows: list[tuple[bytes, ...]]) -> Samples | None:
        texts = dict(zip(self._columns, zip(*rows, strict=True), strict=True))
        count = len(rows)
        columns: dict[str, NDArray[Any]] = {}
        good = np.ones(count, dtype=np.bool_)
        for name in _S32:
            wide = _numbers(texts.get(name), count, np.dtype(np.int64), missing=-1)
            good &= (wide >= _S32_LIMITS[0]) & (wide <= _S32_LIMITS[1])
            columns[name] = wide.astype(np.int32)
        for name in ("addr", "phys_addr", "data_src", "ip", "weight", "period"):
            base = 16 if name in _HEX else 10
            columns[name] = _numbers(texts.get(name), count, np.dtype(np.uint64), base)
        times = [text.replace(b".", b"") for text in texts["time"]]
        columns["t_ns"] = _numbers(times, count, np.dtype(np.uint64))
        events = [self._event(name) for name in texts["event"]]
        columns["event"] = np.array(events, dtype=np.int32)
        good &= columns["event"] >= 0
        return self._kept(columns, good)

    def _kept(self, columns: dict[str, NDArray[Any]], good: NDArray[np.bool_]) -> Samples | None:
        kept = int(good.sum())
        self.totals.samples += kept
        self.totals.malformed += len(good) - kept
        if kept < len(good):
            columns = {name: column[good] for name, column in columns.items()}
        return Samples(**columns) if kept else None

    def _event(self, name: bytes) -> int:
        code = self._codes.get(name)
        if code is None:
            if len(self.events) == MAX_EVENTS:
                return -1
            code = self._codes[name] = len(self.events)
            self.events.append(name.decode("utf-8", "replace"))
        return code


def parse(pieces: Iterable[bytes], fields: Sequence[str]) -> tuple[ScriptReader, Iterator[Samples]]:
    """The reader, and the chunks that it makes of `pieces` as they are asked for."""
    reader = ScriptReader(fields)

    def chunks() -> Iterator[Samples]:
        for piece in pieces:
            yield from reader.feed(piece)
        yield from reader.close()

    return reader, chunks()


def _form(fields: Sequence[str]) -> re.Pattern[bytes]:
    """Regular expression of a line with these fields, a group for each.

    Without `data_src` nothing separates the event's name from numbers but its last colon.
    """
    forms = b"".join(form for name, _, form in _FORMS if name in fields)
    return re.compile(rb"(?m)^" + forms + rb" *$")


def _numbers(
    texts: Sequence[bytes] | None,
    count: int,
    dtype: np.dtype[np.int64] | np.dtype[np.uint64],
    base: int = 10,
    missing: int = 0,
) -> NDArray[np.int64]:
    if texts is None:
        return np.full(count, missing, dtype=dtype)
    try:
        values = [int(text, base) for text in texts]
    except ValueError:  # An optional field that some line lacks.
        values = [int(text, base) if text else missing for text in texts]
    return np.array(values, dtype=dtype)
