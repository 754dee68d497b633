"""Figures of a report and what samples of memory accesses add to it.

See report.py; kept apart from it because it is long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

Source = Literal["hardware sample", "operand sample", "placement", "counter", "model", "event"]
"""Where a figure comes from: `placement` is `move_pages(2)` in query mode, `counter` a kernel
counter or an exact BPF sum, `event` a traced event, `model` a computation from other figures."""

PHASES = ("load", "prompt", "decode", "compute", "idle")
"""What a server does; `compute` is a prompt or decoding where these are not told apart."""

Rung = Literal["hardware sample", "operand sample", "placement"]
"""What the remote shares rest on, the most exact first."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the report, with its unit, its source and, where it is known, its range."""

    value: Annotated[float, "the number itself"]
    unit: Annotated[str, "its unit: `bytes`, `ns`, `share` (0 to 1), `threads`, `moves`, `nodes`"]
    source: Annotated[Source, "where it comes from"]
    low: Annotated[float | None, "lower end of the 95 % interval; null if exact or unknown"] = None
    high: Annotated[float | None, "upper end of the 95 % interval; null if exact or unknown"] = None


ReadNs = Annotated[int, "measured CPU time in accesses to memory, outside of loading [ns]"]
RemoteShare = Annotated[
    Figure | None, "remote part of that time; null without samples or with too few"
]
LostNs = Annotated[int, "of that, time lost because it was remote; see AccessView.ratios [ns]"]
"""What threads, layers, tensors and regions have measured of them."""


@dataclass(frozen=True, slots=True)
class TimeView:
    """Samples of one kind, and the CPU time that they stand for."""

    reason: Annotated[str, "what the time went to, or why a sample has no place"]
    samples: Annotated[int, "samples"]
    time_ns: Annotated[int, "CPU time that they stand for [ns]"]


@dataclass(frozen=True, slots=True)
class CostView:
    """One measured cost of sampling."""

    name: Annotated[str, "name of the cost, with its unit, as the recorder wrote it"]
    value: Annotated[float, "the number"]


@dataclass(frozen=True, slots=True)
class RateView:
    """How often a source took samples from some time on."""

    at_ns: Annotated[int, "since when, from the first event [ns]; 0 for the start"]
    source: Annotated[str, "`operand`, `pebs`, `ibs`, `spe`"]
    period_ns: Annotated[int, "CPU time from sample to sample [ns]; 0 for hardware"]
    period_events: Annotated[int, "events from sample to sample; 0 for operand samples"]
    why: Annotated[str, "why this rate"]
    overhead: Annotated[float | None, "measured cost of all tracing, as a share of CPU time"] = None
    budget: Annotated[float | None, "the share that it was to stay below"] = None
    costs: Annotated[tuple[CostView, ...], "what else was measured of the costs"] = ()


@dataclass(frozen=True, slots=True)
class RatioView:
    """How much longer memory of one node takes from CPUs of another than their own."""

    cpu_node: Annotated[int, "node of the CPUs"]
    mem_node: Annotated[int, "node of the memory"]
    ratio: Annotated[float, "remote latency as a multiple of the local one; at least 1"]
    source: Annotated[Source, "`hardware sample` where latencies were sampled, else `model`"]
    basis: Annotated[str, "what it rests on; a SLIT distance is no latency"]


@dataclass(frozen=True, slots=True)
class AccessView:
    """The samples of memory accesses that the report rests on, and how far they reach."""

    rung: Annotated[Rung, "what the remote shares rest on"]
    why: Annotated[str, "why that and nothing more exact"]
    source: Annotated[str, "`operand`, `pebs`, `ibs`, `spe`; empty without samples"]
    samples: Annotated[int, "samples of this source that were kept"]
    lost: Annotated[int, "samples that were counted and not kept"]
    time_ns: Annotated[int, "CPU time that the samples stand for [ns]; 0 if they have none"]
    placed: Annotated[TimeView, "samples whose address lies in known memory"]
    kernel: Annotated[tuple[TimeView, ...], "samples in the kernel, by what it did"]
    waiting: Annotated[
        TimeView, "samples of threads that waited for another one, in a loop that polls memory"
    ]
    unplaced: Annotated[tuple[TimeView, ...], "the other samples, by what is missing"]
    unknown_node: Annotated[TimeView, "of the placed samples, those whose node is not known"]
    remote_share: Annotated[
        Figure | None, "of the server's reads of weights while it computed; null if too few samples"
    ]
    unnamed_weights: Annotated[
        bool, "whether private memory without a name counts as weights, as it is read for longer"
    ]
    design_effect: Annotated[
        float | None,
        "variance of a share of all threads against that of independent samples; null if unknown",
    ]
    thread_design_effect: Annotated[float | None, "the same for shares of single threads"]
    least_samples: Annotated[int, "a share from less than so many independent samples is withheld"]
    merged: Annotated[bool, "whether small entries were merged into their layers and regions"]
    rates: Annotated[tuple[RateView, ...], "how often samples were taken"]
    ratios: Annotated[tuple[RatioView, ...], "what `lost_ns` is worked out with"]


@dataclass(frozen=True, slots=True)
class PhaseView:
    """One phase of the server's work, all of its spans together."""

    phase: Annotated[str, "`load`, `prompt`, `decode`, `compute` (either), `idle`"]
    duration_ns: Annotated[int, "how long it took [ns]"]
    oncpu_ns: Annotated[int, "CPU time of the server's threads in it: sampled, else estimated [ns]"]
    samples: Annotated[int, "samples of the server's threads in it, in the kernel or not"]
    read_ns: Annotated[int, "measured CPU time in accesses to weights [ns]"]
    remote_share: Annotated[Figure | None, "remote part of these; null if too few samples"]
    lost_ns: Annotated[int, "time lost to remote memory, weights or not [ns]"]
    note: Annotated[str, "of `compute`: why it is not told apart"] = ""


@dataclass(frozen=True, slots=True)
class ReadView:
    """A cell of the matrix: what a thread read of a layer or region from a node, in a phase.

    All cells together are all placed samples: beyond a number of rows, the smallest are one row
    of thread 0.
    """

    tgid: Annotated[int, "process id; 0 for the rest"]
    tid: Annotated[int, "thread or worker slot, as in `threads`; 0 for the rest"]
    region: Annotated[str, "label of the region, as in `regions`"]
    path: Annotated[str, "model or other file; empty for other private memory"]
    layer: Annotated[int | None, "number of the layer; null outside of the layers"]
    cpu_node: Annotated[int | None, "node of the CPU; null when unknown"]
    mem_node: Annotated[int | None, "node of the memory; null when unknown"]
    phase: Annotated[str, "phase as in `phases`; empty in `hot`: all but loading"]
    samples: Annotated[int, "samples"]
    time_ns: Annotated[int, "CPU time that they stand for [ns]"]
    lost_ns: Annotated[int, "of it, time lost because it was remote [ns]"]


@dataclass(frozen=True, slots=True)
class GridView:
    """A cell of the map of threads by layers and regions: what a thread read of one, but loading.

    Beyond a number of cells, the smallest are one of thread 0.
    """

    tgid: Annotated[int, "process id; 0 for the rest"]
    tid: Annotated[int, "thread or worker slot, as in `threads`; 0 for the rest"]
    region: Annotated[str, "label of the region, as in `regions`"]
    path: Annotated[str, "model or other file; empty for other private memory"]
    layer: Annotated[int | None, "number of the layer; null outside of the layers"]
    samples: Annotated[int, "samples"]
    read_ns: ReadNs = 0
    remote_share: RemoteShare = None
    lost_ns: LostNs = 0


@dataclass(frozen=True, slots=True)
class NodeSteps:
    """CPU time on one node, step by step."""

    node: Annotated[int, "number of the node"]
    oncpu_ns: Annotated[tuple[int, ...], "CPU time in every step [ns]"]


@dataclass(frozen=True, slots=True)
class ShareSpan:
    """The remote share of reads in a span that is long enough to have samples for it."""

    start_ns: Annotated[int, "where it begins, from the first event [ns]"]
    end_ns: Annotated[int, "where it ends [ns]"]
    remote_share: Annotated[Figure | None, "remote share of its reads; null if too few samples"]


@dataclass(frozen=True, slots=True)
class TimelineView:
    """What the server did when, or all processes where there is none; in equal steps of time."""

    step_ns: Annotated[int, "length of a step [ns]; the first one begins at the first event"]
    phases: Annotated[tuple[str, ...], "phase in the middle of every step, as in `phases`"]
    nodes: Annotated[tuple[NodeSteps, ...], "CPU time by node"]
    source: Annotated[
        Source, "of the CPU time: samples; or `counter`, spread evenly between two readings"
    ]
    moves: Annotated[tuple[int, ...], "times a thread began to run on another node, by step"]
    faults: Annotated[tuple[int, ...], "page faults by step, estimated from the sampled ones"]
    shares: Annotated[tuple[ShareSpan, ...], "remote share of reads, in order of time"]
