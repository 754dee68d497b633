"""Two recordings compared: what changed between them, as plain data that every renderer shares.

See report.py, whose figures it compares. Every change is AFTER less BEFORE.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Literal

from numatrace.model.findings import VerdictKind
from numatrace.model.measured import Figure
from numatrace.model.report import plain
from numatrace.model.views import Role, ThreadView

COMPARISON_VERSION = 1
"""Version of the JSON document of `Comparison.to_json`. Raised when a field changes meaning."""

Outcome = Literal[
    "as-predicted", "better", "same", "not-as-predicted", "worse", "above-limit", "cannot-tell"
]
Direction = Literal["better", "same", "worse", "unknown"]


@dataclass(frozen=True, slots=True)
class Change:
    """One figure before and after."""

    unit: Annotated[str, "unit of all of its numbers: `share` (0 to 1), `bytes`, `moves/s`, …"]
    before: Annotated[Figure | None, "null when unknown"]
    after: Annotated[Figure | None, "null when unknown"]
    change: Annotated[float | None, "after less before; null when one is unknown"] = None
    low: Annotated[float | None, "lower end of its 95 % interval; null if exact or unknown"] = None
    high: Annotated[float | None, "upper end of its 95 % interval; null if exact or unknown"] = None
    beyond_chance: Annotated[
        bool | None, "whether that interval leaves out 0; null where there is none"
    ] = None


@dataclass(frozen=True, slots=True)
class FigureChange:
    """A figure of the whole server that changed or did not."""

    name: Annotated[str, "what it is, in a few words"]
    change: Annotated[Change, "before and after"]


@dataclass(frozen=True, slots=True)
class PhaseChange:
    """The reads of weights in one phase of the server's work."""

    phase: Annotated[str, "phase as in the reports"]
    remote_share: Annotated[Change, "remote share of the reads of weights"]


@dataclass(frozen=True, slots=True)
class NodeChange:
    """One NUMA node before and after."""

    node: Annotated[int, "number of the node, as the kernel gives it"]
    weights_bytes: Annotated[Change, "the server's weights on it [bytes]"]
    weights_share: Annotated[Change, "the same, as a share of all weights in memory"]
    compute_share: Annotated[Change, "share of the compute threads' CPU time on it"]
    free_bytes: Annotated[Change, "free memory at the end of the recording [bytes]"]


@dataclass(frozen=True, slots=True)
class LayerChange:
    """The tensors of one layer before and after."""

    path: Annotated[str, "model file, as the recording after names it"]
    layer: Annotated[int | None, "number of the layer; null for what belongs to no layer"]
    bytes: Annotated[int, "size by the GGUF table"]
    before_node_bytes: Annotated[dict[int, int], "estimated bytes on each node before"]
    after_node_bytes: Annotated[dict[int, int], "estimated bytes on each node after"]
    moved_share: Annotated[
        float | None, "part of it that lies on another node now; null if nowhere in memory"
    ]
    remote_share: Annotated[Change, "measured remote share of its reads"]


@dataclass(frozen=True, slots=True)
class ThreadChange:
    """A thread of the server and its counterpart, found by role and order of CPU time."""

    role: Annotated[Role, "what both did"]
    rank: Annotated[int, "place in the order of CPU time among those of this role, from 1"]
    before: Annotated[ThreadView | None, "null where the recording before had fewer"]
    after: Annotated[ThreadView | None, "null where the recording after has fewer"]
    remote_share: Annotated[Change, "measured remote share of its reads"]
    moves_per_s: Annotated[Change, "moves between nodes per second of its CPU time"]


@dataclass(frozen=True, slots=True)
class Setting:
    """Something that was set when the server ran, in both recordings."""

    name: Annotated[str, "what is set"]
    before: Annotated[str, "empty when unknown"]
    after: Annotated[str, "empty when unknown"]


@dataclass(frozen=True, slots=True)
class Check:
    """A figure of a prediction against what the recording after shows."""

    name: Annotated[str, "what it is"]
    predicted: Annotated[float, "share (0 to 1)"]
    seen: Annotated[float | None, "share (0 to 1); null when the recording does not tell"]
    off: Annotated[float | None, "seen less predicted"]
    kept: Annotated[bool | None, "whether it is off by at most 0.05; null when unknown"]


@dataclass(frozen=True, slots=True)
class PredictionCheck:
    """Whether the plan that the report before chose did what was predicted of it."""

    plan: Annotated[str, "id of the plan, such as `bind:0`"]
    title: Annotated[str, "what it was to bring about"]
    checks: Annotated[tuple[Check, ...], "figure by figure"]
    cause: Annotated[str, "id of the cause that it was to end; empty without one"]
    cause_gone: Annotated[bool, "whether the report after no longer finds it"]
    kept: Annotated[bool | None, "all of it kept, and the cause gone; null when unknown"]


@dataclass(frozen=True, slots=True)
class LimitCheck:
    """Whether the remote share after keeps below a limit that was asked for."""

    limit: Annotated[float, "largest share that is allowed (0 to 1)"]
    seen: Annotated[Figure | None, "remote share after; null when unknown"]
    kept: Annotated[bool | None, "null when unknown"]


@dataclass(frozen=True, slots=True)
class SideView:
    """One of the two recordings."""

    kind: Annotated[VerdictKind, "its verdict, as in its report"]
    sentence: Annotated[str, "its verdict in words"]
    causes: Annotated[tuple[str, ...], "ids of the causes that its report finds"]
    duration_ns: Annotated[int, "from the first to the last event [ns]"]
    rung: Annotated[str, "what its shares rest on, as in its report; empty when unknown"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that a renderer of a comparison shows."""

    outcome: Annotated[Outcome, "the answer"]
    sentence: Annotated[str, "the answer in words"]
    direction: Annotated[
        Direction, "what became of the server, whatever was predicted or asked for"
    ]
    before: Annotated[SideView, "the first recording"]
    after: Annotated[SideView, "the second recording"]
    remote_share: Annotated[Change, "remote share of the server's reads of weights"]
    prediction: Annotated[PredictionCheck | None, "null where the report before chose no plan"]
    limit: Annotated[LimitCheck | None, "null where no limit was asked for"]
    phases: Annotated[tuple[PhaseChange, ...], "as in the reports"]
    figures: Annotated[tuple[FigureChange, ...], "further figures of the server"]
    nodes: Annotated[tuple[NodeChange, ...], "by number"]
    threads: Annotated[tuple[ThreadChange, ...], "the server's, compute threads first"]
    layers: Annotated[tuple[LayerChange, ...], "of the server's models"]
    settings: Annotated[tuple[Setting, ...], "how the server was run, changed or not"]
    notes: Annotated[tuple[str, ...], "what to know when reading this"] = ()
    schema_version: Annotated[int, "version of this document"] = field(default=COMPARISON_VERSION)

    def to_json(self) -> dict[str, object]:
        """Return it as dictionaries, lists and plain values; node numbers as strings."""
        return {part.name: plain(getattr(self, part.name)) for part in dataclasses.fields(self)}


COMPARISON_TYPES: tuple[type, ...] = (
    Comparison,
    SideView,
    Change,
    PredictionCheck,
    Check,
    LimitCheck,
    PhaseChange,
    FigureChange,
    NodeChange,
    ThreadChange,
    LayerChange,
    Setting,
    Figure,
)
"""The types that a comparison consists of, in the order of the reference page; of a report's own,
Figure. ThreadView is as in report.py."""
