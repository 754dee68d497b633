"""From a trace to a report: the steps of analysis, in order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from numatrace.analyze.causes import find_causes
from numatrace.analyze.fixes import with_fixes
from numatrace.analyze.load import load
from numatrace.analyze.regions import regions
from numatrace.analyze.shares import share_views
from numatrace.analyze.situation import compute_threads, find_server, situation
from numatrace.analyze.tensors import layer_views, tensor_views
from numatrace.analyze.verdict import early_verdict, verdict
from numatrace.analyze.views import machine_view, process_views, thread_views
from numatrace.model.report import Provenance, Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa

    from numatrace.analyze.load import Loaded
    from numatrace.analyze.regions import Region
    from numatrace.analyze.situation import Situation
    from numatrace.model.process import Process
    from numatrace.model.report import Finding, LossView, Source, Verdict
    from numatrace.trace.reader import Trace

SHARED_CLASSES = ("weights", "heap", "anonymous weights, KV cache or compute buffers (private)")
SHARED_BYTES = 1 << 20
"""Regions smaller than this are left out of the table of threads by regions."""


def analyze_trace(trace: Trace) -> Report:
    """Return the report of a trace. The same trace gives the same report, on any machine."""
    report = analyze_batches(trace.batches(), trace.schema_version)
    # What is missing is known only after the last batch.
    problems = (*trace.problems, *report.provenance.problems)
    return replace(report, provenance=replace(report.provenance, problems=problems))


def analyze_batches(batches: Iterable[pa.RecordBatch], trace_version: int) -> Report:
    """Return the report of record batches with the columns of the event table."""
    loaded = load(batches)
    found = regions(loaded)
    server, reason = find_server(loaded, found)
    now = situation(loaded, found, server, reason) if server is not None else None
    losses = loaded.losses()
    answer, findings = _judge(loaded, losses, now)
    tgid = server.tgid if server is not None else None
    threads = [each for each in loaded.residency.threads.values() if each.tgid == tgid]
    compute = compute_threads(threads)
    topology = loaded.documents.topology
    one_node = topology is not None and not topology.has_numa
    tensors = tensor_views(loaded.documents.tensors.values(), loaded.pieces)
    return Report(
        verdict=answer,
        findings=tuple(findings),
        machine=machine_view(loaded),
        processes=process_views(loaded, server),
        threads=thread_views(loaded, compute),
        regions=tuple(region.view() for region in found),
        layers=layer_views(tensors),
        tensors=tensors,
        shares=share_views(compute, _shared(found, tgid), one_node=one_node),
        losses=losses,
        provenance=_provenance(loaded, trace_version, answer),
        notes=tuple(_notes(server, reason, now)),
    )


def _judge(
    loaded: Loaded, losses: Sequence[LossView], now: Situation | None
) -> tuple[Verdict, list[Finding]]:
    early = early_verdict(loaded.documents.topology, losses, now)
    if early is not None or now is None:
        assert early is not None  # without a situation there is always an early verdict
        return early, []
    findings = [with_fixes(now, finding) for finding in find_causes(now)]
    return verdict(now, findings), findings


def _shared(found: list[Region], tgid: int | None) -> list[Region]:
    return [
        region
        for region in found
        if region.key.tgid == tgid
        and region.key.cls in SHARED_CLASSES
        and sum(region.node_bytes.values()) >= SHARED_BYTES
    ]


def _provenance(loaded: Loaded, trace_version: int, answer: Verdict) -> Provenance:
    sources: list[Source] = []
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
