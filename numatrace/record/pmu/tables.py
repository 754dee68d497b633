"""The tables of CPUs and their memory events: read, checked strictly, looked up.

A file `<vendor>.toml` holds `[[cpu]]` rows, and the `[sampling.NAME]` and `[counts.NAME]` that
rows name. To add a CPU is to add a row (and, when its events are new, what the row names):

    [[cpu]]
    name = "..."                        as people call it
    vendor, family, models, steppings   as /proc/cpuinfo has them (x86); numbers or [first, last]
    implementer, parts                  of the main ID register (Arm), in place of these
    counters = 4                        general counters of one hardware thread
    sampling = "NAME"                   left out where the CPU has none
    counts = ["NAME", ...]              the best first; what fits in the counters is used

    [sampling.NAME]
    samples = "pebs"                    name of the `access` rows: pebs, ibs or spe
    pmu = "cpu"                         folder in /sys/bus/event_source/devices
    population = "..."                  what is sampled; {ldlat} is the least latency in cycles
    source = "..."                      where this is written
    period = 131072                     events per sample, for PMUs that refuse a frequency
    choices = [{ needs = ["format/ldlat"], events = ["cpu/mem-loads,ldlat={ldlat}/P"] }, ...]
                                        the first whose files exist below the PMU's folder, and
                                        that perf accepts

    [counts.NAME]
    id = "reads"                        begins the names of the `counter` rows: reads.local
    population, source
    local, remote, total = { name = "...", event = "..." }
                                        `remote`, with `local` (disjoint: share = remote / (local +
                                        remote)), with `total` (share = remote / total), or alone
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

from numatrace.model.access import HARDWARE_SOURCES
from numatrace.model.cpulist import format_cpulist
from numatrace.record.pmu.fields import Reader, TableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numatrace.record.pmu.cpu import Cpu

FILES = ("intel.toml", "amd.toml", "arm.toml")
PLACES = ("local", "remote", "total")


@dataclass(frozen=True, slots=True)
class Option:
    """Events to sample at once, and the files below the PMU's sysfs folder that they need."""

    needs: tuple[str, ...]
    events: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a CPU's memory accesses are sampled. `period` 0: by frequency."""

    name: str
    samples: str
    pmu: str
    population: str
    source: str
    choices: tuple[Option, ...]
    period: int = 0


@dataclass(frozen=True, slots=True)
class Count:
    """One counting event of a pair: `place` is `local`, `remote` or `total`."""

    id: str
    place: str
    name: str
    event: str
    population: str

    @property
    def counter(self) -> str:
        """Name of its `counter` rows."""
        return f"{self.id}.{self.place}"

    @property
    def argument(self) -> str:
        """The event as an argument of perf: it prints raw events in its own way unless named."""
        raw = self.event.endswith("/")
        return f"{self.event[:-1]},name={self.counter}/" if raw else self.event

    @property
    def detail(self) -> str:
        """What its `counter` rows say of themselves."""
        return f"{self.name}: {self.population}"


@dataclass(frozen=True, slots=True)
class Counts:
    """Counting events over one population, and where they are written down."""

    name: str
    source: str
    events: tuple[Count, ...]

    @property
    def formula(self) -> str:
        """How the remote share follows from the counts; "" where it does not."""
        places = {count.place for count in self.events}
        remote = {"local": "remote / (local + remote)", "total": "remote / total"}
        return next((text for place, text in remote.items() if place in places), "")


@dataclass(frozen=True, slots=True)
class Row:
    """A CPU of the tables."""

    name: str
    counters: int
    sampling: Sampling | None
    counts: tuple[Counts, ...]
    vendor: str = ""
    family: int = -1
    models: frozenset[int] = frozenset()
    steppings: frozenset[int] = frozenset()
    parts: frozenset[tuple[int, int]] = field(default_factory=frozenset)

    def matches(self, cpu: Cpu) -> bool:
        """Whether the row is of this CPU; for Arm, of all its kinds of core."""
        if self.parts:
            return bool(cpu.parts) and self.parts.issuperset(cpu.parts)
        known = (cpu.vendor, cpu.family) == (self.vendor, self.family)
        stepping = not self.steppings or cpu.stepping in self.steppings
        return known and cpu.model in self.models and stepping


def load(texts: Mapping[str, str] | None = None) -> tuple[Row, ...]:
    """Return every row of the tables that ship, or of `texts` (file name to content).

    Raises TableError for anything that is not of the form above.
    """
    if texts is None:
        folder = resources.files(__package__)
        texts = {name: (folder / name).read_text("utf-8") for name in FILES}
    return tuple(row for name, text in texts.items() for row in _rows(name, text))


def select(cpu: Cpu, rows: Iterable[Row]) -> Row | None:
    """Return the row of a CPU, or None."""
    return next((row for row in rows if row.matches(cpu)), None)


def reference(rows: Iterable[Row] | None = None) -> list[dict[str, str]]:
    """Return the rows of a page about the tables: name, match, sampling, counts, sources."""
    return [_described(row) for row in (load() if rows is None else rows)]


def _rows(file: str, text: str) -> list[Row]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TableError(f"{file}: {error}") from error
    top = Reader(file, document)
    sampling = {name: _sampling(reader) for name, reader in top.tables("sampling")}
    counts = {name: _counts(reader) for name, reader in top.tables("counts")}
    rows = [_row(reader, sampling, counts) for reader in top.rows("cpu")]
    top.done()
    unused = (sampling.keys() | counts.keys()) - {name for row in rows for name in _named(row)}
    if unused:
        raise TableError(f"{file}: no row names {', '.join(sorted(unused))}")
    return rows


def _named(row: Row) -> list[str]:
    return [each.name for each in row.counts] + ([row.sampling.name] if row.sampling else [])


def _sampling(reader: Reader) -> Sampling:
    sampling = Sampling(
        name=reader.name,
        samples=reader.word("samples", HARDWARE_SOURCES),
        pmu=reader.text("pmu"),
        population=reader.text("population"),
        source=reader.text("source"),
        choices=tuple(_option(each) for each in reader.rows("choices")),
        period=reader.number("period", 0, 1 << 32, default=0),
    )
    reader.done()
    if not sampling.choices:
        raise reader.error("choices", "is empty")
    return sampling


def _option(reader: Reader) -> Option:
    option = Option(reader.texts("needs"), reader.texts("events"))
    reader.done()
    if not option.events:
        raise reader.error("events", "is empty")
    return option


def _counts(reader: Reader) -> Counts:
    about = {name: reader.text(name) for name in ("id", "population")}
    source = reader.text("source")
    events = []
    for place in PLACES:
        event = reader.table(place)
        if event is not None:
            texts = {name: event.text(name) for name in ("name", "event")}
            events.append(Count(place=place, **about, **texts))
            event.done()
    reader.done()
    places = {count.place for count in events}
    if "remote" not in places or len(places) > 2:
        raise reader.error("remote", "must be there, alone or with one of local and total")
    return Counts(reader.name, source, tuple(events))


def _row(reader: Reader, sampling: dict[str, Sampling], counts: dict[str, Counts]) -> Row:
    chosen = reader.text("sampling", default="")
    if chosen and chosen not in sampling:
        raise reader.error("sampling", f"names {chosen!r}, which is not in the file")
    named = reader.texts("counts")
    if not counts.keys() >= set(named):
        raise reader.error("counts", f"names {sorted(set(named) - counts.keys())}")
    row = Row(
        name=reader.text("name"),
        counters=reader.number("counters", 1, 16),
        sampling=sampling.get(chosen),
        counts=tuple(counts[name] for name in named),
        **_match(reader),
    )
    reader.done()
    return row


def _match(reader: Reader) -> dict[str, Any]:
    if reader.has("implementer"):
        implementer = reader.number("implementer", 0, 0xFF)
        parts = reader.numbers("parts", 0xFFF)
        return {"parts": frozenset((implementer, part) for part in parts)}
    return {
        "vendor": reader.text("vendor"),
        "family": reader.number("family", 0, 0xFFF),
        "models": reader.numbers("models", 0xFF),
        "steppings": reader.numbers("steppings", 0xF) if reader.has("steppings") else frozenset(),
    }


def _described(row: Row) -> dict[str, str]:
    sampling = row.sampling
    choices = sampling.choices if sampling else ()
    sources = [sampling.source] if sampling else []
    return {
        "name": row.name,
        "match": _match_text(row),
        "samples": sampling.samples if sampling else "",
        "events": " or ".join(" with ".join(option.events) for option in choices),
        "population": sampling.population if sampling else "",
        "counts": "; ".join(_counts_text(each) for each in row.counts),
        "source": "; ".join(sources + [each.source for each in row.counts]),
    }


def _match_text(row: Row) -> str:
    if row.parts:
        kinds = sorted(row.parts)
        return f"implementer {kinds[0][0]:#x} part " + ", ".join(f"{part:#x}" for _, part in kinds)
    text = f"{row.vendor} family {row.family} model {format_cpulist(row.models)}"
    return f"{text} stepping {format_cpulist(row.steppings)}" if row.steppings else text


def _counts_text(counts: Counts) -> str:
    events = ", ".join(f"{count.counter} = {count.name} ({count.event})" for count in counts.events)
    share = f"; remote share = {counts.formula}" if counts.formula else ""
    return f"{events}: {counts.events[0].population}{share}"
