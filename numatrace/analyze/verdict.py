"""The answer: a fix, not worth one, healthy, one node only, or withheld, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze import evidence
from numatrace.analyze.causes.base import REMOTE_SHARE, WORTH_SHARE, main_nodes, share_on
from numatrace.analyze.causes.lost import share_of_time
from numatrace.model.findings import Evidence, Verdict
from numatrace.model.measured import Figure
from numatrace.model.units import (
    format_bytes,
    format_count,
    format_nodes,
    format_ns,
    format_share,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numatrace.analyze.causes import Judged
    from numatrace.analyze.situation import Situation
    from numatrace.model.findings import Finding
    from numatrace.model.topology import Topology
    from numatrace.model.views import LossView

LOSS_SHARE = 0.05
"""Above this share of lost events of a family, what was kept may not be what happened."""
IDLE_SHARE = 0.10
"""Below this share of one CPU, over the recording, a server did not serve: one that answers keeps
every compute thread's CPU busy for seconds. Waiting takes next to nothing, but a question for
the server's version, which the recorder asks too, can take an emulated CPU half a second."""
FEW_NS = 20_000_000
"""Less CPU time than this is five ticks of a 250 Hz kernel: too little to say where threads run."""
UNEVEN_SHARE = 0.25
"""Weights are spread as long as no node is this far from its even part, or from its part of the
threads' time. On two nodes that is where C1 begins."""


def early_verdict(
    topology: Topology | None, losses: Sequence[LossView], situation: Situation | None
) -> Verdict | None:
    """Return the verdict that needs no look at causes, or None."""
    if topology is None:
        return _withheld("The trace does not say what nodes the machine has.", [_again()])
    if topology.has_numa:
        return _lost(losses) or _too_little(situation)
    return _one_node(topology)


def verdict(situation: Situation, judged: Judged) -> Verdict:
    """Return the verdict of a situation that has enough in it to judge by."""
    if judged.findings:
        return Verdict("fix", judged.findings[0].sentence, judged.findings[0].evidence)
    if judged.cheap:
        return _not_worth(situation, judged.cheap[0])
    remote = situation.remote
    if remote is not None and remote.value <= REMOTE_SHARE:
        return _bound(situation, remote)
    if _is_spread(situation):
        return _spread(situation)
    return _unexplained(situation)


def _not_worth(situation: Situation, finding: Finding) -> Verdict:
    assert finding.lost_ns is not None  # what costs nothing known is not cheap
    _, _, most = share_of_time(situation, finding.lost_ns)
    return Verdict(
        "not-worth-fixing",
        f"Not worth fixing: {finding.cause}, {finding.name}, costs at most {format_share(most)} of"
        f" the compute threads' CPU time, below {format_share(WORTH_SHARE)}.",
        finding.evidence,
    )


def _one_node(topology: Topology) -> Verdict:
    node = topology.nodes[0]
    cpus = format_count(len(node.cpus), "CPU")
    text = f"Node {node.node} has all of the machine's {cpus} and {format_bytes(node.total_bytes)}."
    return Verdict(
        "one-node",
        "This machine has one node: all of its memory is local, nothing is remote here.",
        (Evidence(text, (Figure(node.total_bytes, "bytes", "counter"),)),),
    )


def _lost(losses: Sequence[LossView]) -> Verdict | None:
    bad = [loss for loss in losses if loss.lost_share > LOSS_SHARE]
    if not bad:
        return None
    worst = max(bad, key=lambda loss: (loss.lost_share, loss.family))
    return _withheld(
        f"{format_share(worst.lost_share)} of the {worst.family} events were lost"
        f" ({worst.lost:,} of {worst.recorded:,}): what was kept may not be what happened.",
        [
            *(
                Evidence(
                    f"{loss.family}: {loss.lost:,} of {loss.recorded:,} events lost.",
                    (Figure(loss.lost, "events", "counter"),),
                )
                for loss in bad
            ),
            Evidence(_advice(bad)),
        ],
    )


def _advice(bad: Sequence[LossView]) -> str:
    """Say how to lose less: fewer samples, or more room for them."""
    larger = "with larger buffers: numatrace record --ring-pages 4096 …"
    if any(loss.family == "access" for loss in bad):
        return f"Record again with fewer samples (numatrace record -F 100 …), or {larger}"
    return f"Record again {larger}"


def _too_little(situation: Situation | None) -> Verdict | None:
    if situation is None:
        return _withheld("The trace holds no process that could be judged.", [_again()])
    load = "Record again while the server answers requests, for 10 seconds or more."
    silent = not situation.duration_ns or not situation.server_ns
    if not silent and _is_idle(situation):
        used, span = format_ns(situation.server_ns), format_ns(situation.duration_ns)
        return _withheld(
            f"The server was idle: it used {used} of CPU time in {span}, too little to judge by.",
            [
                Evidence(
                    f"CPU time of the server: {used}.",
                    (Figure(situation.server_ns, "ns", "counter"),),
                ),
                Evidence(load),
            ],
        )
    if silent or not situation.compute_ns:
        return _withheld("The trace does not say where any thread ran.", [Evidence(load)])
    if not situation.weights.present_bytes:
        return _withheld(
            "The trace does not say where any of the server's weights lie.",
            [Evidence("Record again once the model is loaded.")],
        )
    return None


def _is_idle(situation: Situation) -> bool:
    least = max(FEW_NS, IDLE_SHARE * situation.duration_ns)
    return situation.server_ns < least


def _is_spread(situation: Situation) -> bool:
    """Whether the weights lie on the nodes of the threads, evenly or as the threads' time does.

    Then no other placement of single copies has far fewer remote reads, as long as the threads run
    on all of these nodes.
    """
    nodes = main_nodes(situation.compute_parts)
    parts, times = situation.weights.parts, situation.compute_parts
    if len(nodes) < 2 or share_on(parts, nodes) < 1.0 - REMOTE_SHARE:
        return False
    uneven = max(abs(parts.get(node, 0.0) - 1 / len(nodes)) for node in nodes)
    unlike = max(abs(parts.get(node, 0.0) - times[node]) for node in nodes)
    return min(uneven, unlike) <= UNEVEN_SHARE


def _bound(situation: Situation, remote: Figure) -> Verdict:
    nodes = format_nodes(main_nodes(situation.compute_parts))
    return Verdict(
        "healthy",
        f"Healthy: threads and {situation.weights.name} are together on {nodes}"
        f" ({format_share(remote.value)} of reads {_are(remote)} remote).",
        _reasons(situation),
    )


def _spread(situation: Situation) -> Verdict:
    share = situation.remote.value if situation.remote is not None else 0.0
    nodes = format_nodes(main_nodes(situation.compute_parts))
    return Verdict(
        "healthy",
        f"Healthy: {situation.weights.name} and threads are both spread over {nodes}. That"
        f" {format_share(share)} of the reads are remote is the price of spreading.",
        _reasons(situation),
    )


def _unexplained(situation: Situation) -> Verdict:
    share = situation.remote.value if situation.remote is not None else 0.0
    return _withheld(
        f"{format_share(share)} of weight reads are {_are(situation.remote)} remote, and no cause"
        " that this version knows explains it.",
        list(_reasons(situation)),
    )


def _are(remote: Figure | None) -> str:
    """Return how a remote share is known, before the word `remote`."""
    return "expected to be" if remote is None or remote.source == "model" else "measured to be"


def _reasons(situation: Situation) -> tuple[Evidence, ...]:
    return (
        evidence.weights_by_node(situation),
        evidence.threads_by_node(situation),
        evidence.remote(situation),
        *evidence.constraints(situation),
    )


def _withheld(sentence: str, reasons: list[Evidence]) -> Verdict:
    return Verdict("withheld", sentence, tuple(reasons))


def _again() -> Evidence:
    return Evidence("Record again, and let the recording end by itself.")
