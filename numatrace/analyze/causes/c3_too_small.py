"""C3, not enough local memory on the active node: what did not fit lies elsewhere, or is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze import evidence
from numatrace.analyze.causes import document_checks
from numatrace.analyze.causes.base import main_nodes, share_on
from numatrace.analyze.causes.lost import added, remote_lost
from numatrace.analyze.plans.room import need_bytes, room_bytes
from numatrace.model.findings import Evidence, Finding, RuledOut
from numatrace.model.measured import Figure
from numatrace.model.units import format_bytes, format_nodes, format_share

if TYPE_CHECKING:
    from numatrace.analyze.situation import Situation

ID = "C3"
NAME = "not enough local memory on the active node"
NUMBER = 3
EXPLAINS = ("C1", "C2", "C5", "C7", "C8")
"""Page cache, threads and weights apart: whatever is asked for, it cannot lie where it should."""

SPILL_SHARE = 0.05
"""From this share of the weights off the active nodes on, they spilled: less is what other
processes had read, or a handful of pages from start-up."""
PRESSURE_SHARE = 0.05
PRESSURE_BYTES = 64 << 20
"""Swapping, or reading again what was taken back, of this part of the weights' bytes and of so much
during the recording is pressure: a server with room does none of either, and what other processes
do on a machine at rest is less."""
FULL_SHARE = 0.05
"""With less than this free or reclaimable, a node is full: the kernel begins to reclaim above."""
DISK_BYTES_PER_S = (3e9, 1e9, 2e8)
"""How fast a disk gives pages back: at best, as a rule, at worst. Meanwhile the other threads of
ggml's pool spin."""


def look(situation: Situation) -> Finding | RuledOut:
    """Return the finding: too little room and weights elsewhere, or swapping on a full node."""
    nodes = active_nodes(situation)
    need, room = need_bytes(situation), sum(room_bytes(situation, node) for node in nodes)
    squeezed = pressure_bytes(situation)
    spilled = need > room and _spilled(situation, nodes)
    if not spilled and not squeezed:
        return RuledOut(ID, NAME, judged=bool(nodes), why=_against(situation, nodes, need, room))
    lost = _waiting(situation, squeezed)
    return Finding(
        cause=ID,
        name=NAME,
        sentence=_sentence(situation, nodes, need, room, squeezed),
        tgid=situation.server.tgid,
        evidence=(
            Evidence(
                f"The server needs {format_bytes(need)}; {format_nodes(nodes)} could give it"
                f" {format_bytes(room)}.",
                (Figure(need, "bytes", "placement"), Figure(room, "bytes", "counter")),
            ),
            evidence.weights_by_node(situation),
            evidence.threads_by_node(situation),
            evidence.remote(situation),
            *_counters(situation, nodes),
            *evidence.constraints(situation),
        ),
        confidence="high" if squeezed or _foreign(situation, nodes) else "medium",
        lost_ns=added(lost, remote_lost(situation) if spilled else None),
        document=document_checks.free_by_node(situation, NUMBER, NAME, need),
        refuted_by="As much free memory on the active node as the server needs, while its weights"
        " still lie elsewhere, and no swapping.",
    )


def active_nodes(situation: Situation) -> tuple[int, ...]:
    """Return the nodes on which the server's memory should be: by policy, cpuset or its CPUs.

    Without any of these, the nodes on which its threads run, all of them when that is everywhere.
    """
    for nodes in (situation.policy_nodes, situation.mems, situation.confined_to):
        with_memory = set(nodes) & set(situation.topology.nodes_with_memory)
        if with_memory:
            return tuple(sorted(with_memory))
    return main_nodes(situation.compute_parts)


def pressure_bytes(situation: Situation) -> int:
    """Return the bytes that were swapped or read again, where that is much and a node is full.

    Files read again count only where some of the model is not present.
    """
    weights = situation.weights
    bytes_ = situation.swapped_bytes or 0
    if weights.absent_bytes >= SPILL_SHARE * (weights.present_bytes + weights.absent_bytes):
        bytes_ += situation.refaulted_bytes or 0
    full = any(
        memory.available_bytes < FULL_SHARE * memory.total_bytes
        for node, memory in situation.memory.items()
        if node in active_nodes(situation)
    )
    least = max(PRESSURE_BYTES, PRESSURE_SHARE * weights.present_bytes)
    return bytes_ if full and bytes_ >= least else 0


def _spilled(situation: Situation, nodes: tuple[int, ...]) -> bool:
    outside = 1.0 - share_on(situation.weights.parts, nodes)
    return bool(nodes) and outside >= SPILL_SHARE


def _foreign(situation: Situation, nodes: tuple[int, ...]) -> int:
    return sum(situation.growth.foreign_bytes(node) for node in nodes)


def _waiting(situation: Situation, squeezed: int) -> Figure | None:
    """Return the time that all threads wait for a disk, or None without pressure."""
    if not squeezed:
        return None
    threads = max(1, situation.threads_used)
    low, value, high = (squeezed / speed * threads * 1e9 for speed in DISK_BYTES_PER_S)
    limit = float(sum(situation.compute_ns.values()))
    return Figure(min(value, limit), "ns", "model", min(low, limit), min(high, limit))


def _sentence(
    situation: Situation, nodes: tuple[int, ...], need: int, room: int, squeezed: int
) -> str:
    text = (
        f"The server needs {format_bytes(need)}, and {format_nodes(nodes)}, where it is to run,"
        f" could give it {format_bytes(room)}"
    )
    if squeezed:
        return f"{text}: {format_bytes(squeezed)} were swapped, or taken back and read again."
    outside = format_share(1.0 - share_on(situation.weights.parts, nodes))
    return f"{text}: {outside} of the {situation.weights.name} lies elsewhere."


def _counters(situation: Situation, nodes: tuple[int, ...]) -> list[Evidence]:
    found = []
    for name, bytes_ in (
        ("swapped out or in", situation.swapped_bytes),
        ("taken back by the kernel", situation.reclaimed_bytes),
        ("of files taken back and read again", situation.refaulted_bytes),
        (f"meant for {format_nodes(nodes)} and put elsewhere", _foreign(situation, nodes)),
    ):
        if bytes_:
            text = f"{format_bytes(bytes_)} {name} during the recording, by all processes."
            found.append(Evidence(text, (Figure(bytes_, "bytes", "counter"),)))
    return found


def _against(situation: Situation, nodes: tuple[int, ...], need: int, room: int) -> str:
    if not nodes:
        return "The trace does not say on which nodes the server should be."
    if need <= room:
        return (
            f"{format_nodes(nodes).capitalize()} could give the server {format_bytes(room)}, and"
            f" it needs {format_bytes(need)}."
        )
    return f"The weights are on {format_nodes(nodes)}, and nothing was swapped."
