"""The report: what analysis found, as plain data that every renderer and `--json` share.

Every field carries its meaning in its annotation, so the reference page is generated from here.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Annotated, get_args, get_type_hints

from numatrace.model.findings import (
    DocumentCheck,
    Evidence,
    Finding,
    Fix,
    PlanView,
    RuledOut,
    Step,
    Verdict,
)
from numatrace.model.measured import (
    AccessView,
    CostView,
    Figure,
    GridView,
    NodeSteps,
    PhaseView,
    RateView,
    RatioView,
    ReadView,
    ShareSpan,
    Source,
    TimelineView,
    TimeView,
)
from numatrace.model.views import (
    FilterView,
    LayerView,
    LossView,
    MachineView,
    NodeView,
    ProcessView,
    RegionView,
    ServerView,
    ShareView,
    TensorView,
    ThreadView,
)

REPORT_VERSION = 3
"""Version of the JSON document of `Report.to_json`. Raised when a field changes meaning."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the report was made from, and what was missing."""

    trace_version: Annotated[int, "schema version of the trace"]
    rows: Annotated[int, "rows of the trace"]
    duration_ns: Annotated[int, "from the first to the last event [ns]"]
    ended: Annotated[str, "why the recording ended; empty when the trace holds no end row"]
    problems: Annotated[tuple[str, ...], "what is damaged or missing in the trace"]
    not_recorded: Annotated[tuple[str, ...], "probes and steps that were left out, and why"]
    sources: Annotated[tuple[Source, ...], "sources of the figures in this report"]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a renderer shows."""

    verdict: Annotated[Verdict, "the answer in one sentence"]
    findings: Annotated[tuple[Finding, ...], "causes, the first one first; empty unless `fix`"]
    machine: Annotated[MachineView, "the machine"]
    processes: Annotated[tuple[ProcessView, ...], "followed processes"]
    threads: Annotated[tuple[ThreadView, ...], "threads, by falling CPU time"]
    regions: Annotated[tuple[RegionView, ...], "memory, by falling size"]
    layers: Annotated[tuple[LayerView, ...], "layers of the mapped models"]
    tensors: Annotated[tuple[TensorView, ...], "tensors of the mapped models"]
    shares: Annotated[tuple[ShareView, ...], "compute threads by large regions of the server"]
    losses: Annotated[tuple[LossView, ...], "account of every family of events"]
    provenance: Annotated[Provenance, "what the report was made from"]
    notes: Annotated[tuple[str, ...], "further remarks"] = ()
    access: Annotated[AccessView | None, "what shares rest on, and the account of the samples"] = (
        None
    )
    phases: Annotated[tuple[PhaseView, ...], "what the server did when"] = ()
    reads: Annotated[tuple[ReadView, ...], "who reads what, by falling time lost"] = ()
    hot: Annotated[tuple[ReadView, ...], "the remote reads that cost most, over all phases"] = ()
    ruled_out: Annotated[tuple[RuledOut, ...], "causes looked for and not found"] = ()
    plans: Annotated[tuple[PlanView, ...], "placements that were weighed, the best first"] = ()
    corrections: Annotated[tuple[str, ...], "what circulating advice gets wrong here, and why"] = ()
    server: Annotated[ServerView | None, "the server that the verdict is about"] = None
    filters: Annotated[FilterView | None, "what it was restricted to; null for nothing"] = None
    grid: Annotated[
        tuple[GridView, ...], "threads by layers and regions, by falling time lost"
    ] = ()
    timeline: Annotated[TimelineView | None, "what happened when; null without events"] = None
    schema_version: Annotated[int, "version of this document"] = field(default=REPORT_VERSION)

    def to_json(self) -> dict[str, object]:
        """Return the report as dictionaries, lists and plain values; node numbers as strings."""
        return {part.name: plain(getattr(self, part.name)) for part in dataclasses.fields(self)}


TYPES: tuple[type, ...] = (
    Report,
    Verdict,
    Finding,
    Evidence,
    Figure,
    Fix,
    Step,
    DocumentCheck,
    RuledOut,
    PlanView,
    MachineView,
    NodeView,
    ProcessView,
    ServerView,
    FilterView,
    ThreadView,
    RegionView,
    LayerView,
    TensorView,
    ShareView,
    AccessView,
    TimeView,
    RateView,
    CostView,
    RatioView,
    PhaseView,
    ReadView,
    GridView,
    TimelineView,
    NodeSteps,
    ShareSpan,
    LossView,
    Provenance,
)
"""The types that a report consists of, in the order of the reference page."""


@dataclass(frozen=True, slots=True)
class FieldDoc:
    """A field of a report type, for the reference page."""

    name: str
    type: str
    doc: str


def describe(cls: type) -> tuple[FieldDoc, ...]:
    """Return name, type and meaning of every field of one of TYPES."""
    plain = get_type_hints(cls)
    annotated = get_type_hints(cls, include_extras=True)
    return tuple(
        FieldDoc(name, _type_name(plain[name]), get_args(annotated[name])[1])
        for name in (item.name for item in dataclasses.fields(cls))
    )


def _type_name(hint: object) -> str:
    """Name a type as a reader of the JSON document knows it."""
    if isinstance(hint, type) and not get_args(hint):
        return hint.__name__
    return re.sub(r"\b(?:typing|numatrace\.model\.\w+)\.", "", str(hint))


def plain(item: object) -> object:
    """Turn dataclasses, tuples and mappings into what JSON knows."""
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return {part.name: plain(getattr(item, part.name)) for part in dataclasses.fields(item)}
    if isinstance(item, dict):
        return {str(key): plain(value) for key, value in item.items()}
    if isinstance(item, tuple):
        return [plain(value) for value in item]
    return item
