"""From a trace to a report: the steps of analysis, in order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from numatrace.analyze.account import losses
from numatrace.analyze.causes import CAUSES, judge, judge_one_node
from numatrace.analyze.corrections import corrections
from numatrace.analyze.fixes import with_fixes
from numatrace.analyze.load import load
from numatrace.analyze.memory.classes import PRIVATE, WEIGHTS
from numatrace.analyze.memory.regions import region_views, regions
from numatrace.analyze.memory.tensors import layer_views, tensor_views
from numatrace.analyze.narrow import (
    Narrow,
    check,
    narrowed,
    narrowed_measure,
    narrowed_report,
)
from numatrace.analyze.plans.choose import choose, to_views
from numatrace.analyze.samples.measure import measure
from numatrace.analyze.samples.reads import Reads
from numatrace.analyze.samples.shares import Measured, share_views
from numatrace.analyze.samples.views import access_view, phase_views
from numatrace.analyze.serverview import server_view
from numatrace.analyze.situation import compute_threads, find_server, situation
from numatrace.analyze.threads.behaviour import roles
from numatrace.analyze.timeline import timeline_view
from numatrace.analyze.verdict import early_verdict, verdict
from numatrace.analyze.views import machine_view, process_views, thread_views
from numatrace.model.report import Provenance, Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow as pa

    from numatrace.analyze.causes.base import Cause
    from numatrace.analyze.load import Loaded
    from numatrace.analyze.memory.regions import Region
    from numatrace.analyze.plans.choose import Choice
    from numatrace.analyze.samples.measure import Measure
    from numatrace.analyze.situation import Situation
    from numatrace.model.findings import Finding, PlanView, RuledOut, Verdict
    from numatrace.model.measured import Source
    from numatrace.model.process import Process
    from numatrace.model.views import LossView
    from numatrace.trace.reader import Trace

SHARED_CLASSES = (*WEIGHTS, "KV cache", "compute", "heap", PRIVATE)
SHARED_BYTES = 1 << 20
"""Regions smaller than this are left out of the table of threads by regions."""


EVERYTHING = Narrow()


class _Batches:
    """A trace's batches, read anew each time."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self._trace.batches()


def analyze_trace(
    trace: Trace, others: Sequence[Cause] = (), narrow: Narrow = EVERYTHING
) -> Report:
    """Return the report of a trace. The same trace gives the same report, on any machine.

    `others` are causes of other packages, which are judged beside our own. Raises UsageError when
    the trace has not got what `narrow` restricts the report to.
    """
    report = analyze_batches(_Batches(trace), trace.schema_version, others, narrow)
    # What is missing is known only after the last batch.
    problems = (*trace.problems, *report.provenance.problems)
    return replace(report, provenance=replace(report.provenance, problems=problems))


def analyze_batches(
    batches: Iterable[pa.RecordBatch],
    trace_version: int,
    others: Sequence[Cause] = (),
    narrow: Narrow = EVERYTHING,
) -> Report:
    """Return the report of record batches with the columns of the event table.

    They are read twice: `batches` is a list, or an object that begins anew each time.
    """
    loaded = load(batches)
    check(narrow, loaded)
    found = regions(loaded)
    server, reason = find_server(loaded, found, narrow.pid)
    tgid = server.tgid if server is not None else None
    measured = measure(loaded, found, tgid)
    role_of = roles(loaded, measured)
    compute = compute_threads(loaded, role_of, tgid)
    now = situation(loaded, found, measured, compute, (server, reason)) if server else None
    accounts = losses(loaded)
    # Before causes and plans ask for more ratios than the samples are weighed with.
    access = access_view(loaded, measured, now.measured if now is not None else None)
    answer = _judge(loaded, accounts, now, others)
    topology = loaded.documents.topology
    one_node = topology is not None and not topology.has_numa
    part, seen = narrowed(loaded, narrow), narrowed_measure(measured, loaded, narrow)
    tensors = tensor_views(part, seen)
    reads = Reads(part, found, seen)
    by_thread = Measured(part, found, seen)
    shown = compute_threads(part, role_of, tgid)
    report = Report(
        verdict=answer.verdict,
        findings=answer.findings,
        machine=machine_view(loaded),
        processes=process_views(part, server),
        threads=thread_views(part, role_of, seen),
        regions=region_views(found, seen),
        layers=layer_views(part, seen, tensors),
        tensors=tensors,
        shares=share_views(shown, _shared(found.of(tgid)), by_thread, one_node=one_node),
        losses=accounts,
        provenance=_provenance(loaded, trace_version, measured),
        notes=tuple(_notes(server, reason, now)),
        access=access,
        phases=phase_views(loaded, measured, tgid),
        reads=reads.rows(),
        hot=reads.hot(tgid),
        grid=reads.grid(),
        timeline=timeline_view(loaded, measured, tgid),
        ruled_out=answer.ruled_out,
        plans=answer.plans,
        corrections=answer.corrections,
        server=server_view(now) if now is not None else None,
    )
    return narrowed_report(report, narrow)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the report says of causes and plans."""

    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    ruled_out: tuple[RuledOut, ...] = ()
    plans: tuple[PlanView, ...] = ()
    corrections: tuple[str, ...] = ()


def _judge(
    loaded: Loaded,
    accounts: Sequence[LossView],
    now: Situation | None,
    others: Sequence[Cause],
) -> _Answer:
    early = early_verdict(loaded.documents.topology, accounts, now)
    if now is None or (early is not None and early.kind != "one-node"):
        assert early is not None  # without a situation there is always an early verdict
        return _Answer(early)
    judged = judge_one_node(now) if early is not None else judge(now, others)
    if early is not None and not judged.findings:
        return _Answer(early, ruled_out=tuple(judged.ruled_out))
    choices = choose(now, next((each for each in judged.findings if _is_ours(each)), None))
    findings = _fixed(now, judged.findings, choices)
    done = next((fix.plan for each in findings for fix in each.fixes if fix.plan), "")
    return _Answer(
        verdict(now, judged),
        findings,
        tuple(judged.ruled_out),
        to_views(choices, done),
        corrections(now, findings, evicts=any(c.plan.evict for c in choices if not c.why_not)),
    )


def _fixed(
    now: Situation, findings: Sequence[Finding], choices: Sequence[Choice]
) -> tuple[Finding, ...]:
    """Return the findings with their fixes; each fix once, with the first one that it is for.

    `choices` are the plans for our first finding. A finding of another package keeps its own fixes:
    our plans put remote memory right, which it may have nothing to do with.
    """
    found: list[Finding] = []
    for finding in findings:
        if not _is_ours(finding):
            found.append(finding)
            continue
        ours = [each for each in found if _is_ours(each)]
        fixed = with_fixes(now, finding, None if ours else choices)
        ids = {fix.id for fix in fixed.fixes}
        same = next((each for each in ours if ids & {fix.id for fix in each.fixes}), None)
        if same is not None:
            note = f"The fix for {same.cause} puts this right as well."
            fixed = replace(finding, notes=(*finding.notes, note))
        found.append(fixed)
    return tuple(found)


def _is_ours(finding: Finding) -> bool:
    return any(finding.cause == cause.ID for cause in CAUSES)


def _shared(found: list[Region]) -> list[Region]:
    return [
        region
        for region in found
        if region.key.cls in SHARED_CLASSES
        and max(region.named_bytes, sum(region.node_bytes.values())) >= SHARED_BYTES
    ]


def _provenance(loaded: Loaded, trace_version: int, measured: Measure) -> Provenance:
    sources: list[Source] = [] if measured.rung == "placement" else [measured.rung]
    if loaded.rows["oncpu"] or loaded.rows["fault_count"]:
        sources.append("counter")
    if loaded.rows["fault"] or loaded.rows["move"]:
        sources.append("event")
    if loaded.pieces:
        sources.append("placement")
    if loaded.pieces and loaded.rows["oncpu"]:
        sources.append("model")
    return Provenance(
        trace_version=trace_version,
        rows=sum(loaded.rows.values()),
        duration_ns=loaded.duration_ns,
        ended=loaded.documents.ended,
        problems=tuple(loaded.documents.problems),
        not_recorded=tuple(loaded.documents.notes),
        sources=tuple(sources),
    )


def _notes(server: Process | None, reason: str, now: Situation | None) -> list[str]:
    notes = []
    if reason:
        notes.append(f"Inference server: {reason}.")
    if now is not None and now.weights.absent_bytes:
        total = now.weights.present_bytes + now.weights.absent_bytes
        notes.append(
            f"{now.weights.absent_bytes:,} of {total:,} bytes of the mapped weights were not"
            " present in the server's memory."
        )
    return notes
