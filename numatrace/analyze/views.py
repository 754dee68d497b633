"""The report's tables of the machine, its processes and its threads."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from numatrace.analyze.memory.places import add_up
from numatrace.analyze.samples.measure import NOT_READ
from numatrace.model.cpulist import format_cpulist
from numatrace.model.views import MachineView, NodeView, ProcessView, ThreadView

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numatrace.analyze.load import Loaded
    from numatrace.analyze.memory.places import Piece
    from numatrace.analyze.samples.measure import Measure, Trio
    from numatrace.analyze.threads.residency import ThreadKey, ThreadSums
    from numatrace.model.process import Process
    from numatrace.model.topology import Node, Topology
    from numatrace.model.views import Role


def machine_view(loaded: Loaded) -> MachineView:
    """Return the machine; without nodes where the trace does not describe them."""
    documents = loaded.documents
    topology = documents.topology
    nodes = topology.nodes if topology is not None else ()
    return MachineView(
        kernel=documents.kernel.release,
        nodes=tuple(_node_view(loaded, topology, node) for node in nodes if topology is not None),
        numa_balancing=documents.sysctl.numa_balancing,
    )


def process_views(loaded: Loaded, server: Process | None) -> tuple[ProcessView, ...]:
    """Return all processes that anything is known of, the server first."""
    pieces: defaultdict[int, list[Piece]] = defaultdict(list)
    for piece in loaded.pieces:
        pieces[piece.key.tgid].append(piece)
    times: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for thread in loaded.residency.threads.values():
        times[thread.tgid].update(thread.oncpu_ns)
    chosen = server.tgid if server is not None else None
    tgids = sorted({*loaded.documents.processes, *pieces, *times} - {0})
    tgids.sort(key=lambda tgid: tgid != chosen)
    return tuple(
        _process_view(
            tgid,
            loaded.documents.processes.get(tgid),
            is_server=tgid == chosen,
            oncpu_ns=dict(sorted(times[tgid].items())),
            present_bytes=add_up(pieces[tgid]),
        )
        for tgid in tgids
    )


def thread_views(
    loaded: Loaded, roles: Mapping[ThreadKey, Role], measured: Measure
) -> tuple[ThreadView, ...]:
    """Return all threads and worker slots, by falling CPU time."""
    order = sorted(
        loaded.residency.threads.values(), key=lambda each: (-each.total_ns, each.tgid, each.tid)
    )
    sums = measured.cells.sums(measured.cells.slot, measured.working)
    slots = loaded.access.slots.keys
    reads = {slots[slot]: measured.trio(each, thread=True) for slot, each in sums.items()}
    return tuple(
        _thread_view(loaded, each, roles.get((each.tgid, each.tid), "other"), reads)
        for each in order
    )


def _node_view(loaded: Loaded, topology: Topology, node: Node) -> NodeView:
    latest = loaded.documents.memory
    memory = latest.nodes.get(node.node) if latest is not None else None
    memory = memory or node.memory
    known = memory.total_bytes > 0
    return NodeView(
        node=node.node,
        cpus=format_cpulist(node.cpus),
        cores=topology.physical_cores(node.node) or len(node.cpus),
        total_bytes=memory.total_bytes if known else None,
        free_bytes=memory.free_bytes if known else None,
        reclaimable_bytes=memory.inactive_file_bytes if known else None,
        distances={
            other.node: topology.distance(node.node, other.node) for other in topology.nodes
        },
    )


def _process_view(
    tgid: int,
    process: Process | None,
    *,
    is_server: bool,
    oncpu_ns: dict[int, int],
    present_bytes: dict[int, int],
) -> ProcessView:
    deployment = process.deployment if process is not None else None
    return ProcessView(
        tgid=tgid,
        ptgid=process.ppid if process is not None else 0,
        name=process.comm if process is not None else "",
        argv=process.argv if process is not None else (),
        is_server=is_server,
        unit=deployment.unit or None if deployment is not None else None,
        container=deployment.container_id or None if deployment is not None else None,
        policy=process.policy or None if process is not None else None,
        allowed_cpus=format_cpulist(process.cpus_allowed) if process is not None else "",
        allowed_nodes=format_cpulist(process.mems_allowed) if process is not None else "",
        oncpu_ns=oncpu_ns,
        present_bytes=present_bytes,
    )


def _thread_view(
    loaded: Loaded, sums: ThreadSums, role: Role, reads: Mapping[ThreadKey, Trio]
) -> ThreadView:
    thread = loaded.documents.threads.get((sums.tgid, sums.tid))
    read_ns, remote_share, lost_ns = reads.get((sums.tgid, sums.tid), NOT_READ)
    return ThreadView(
        tgid=sums.tgid,
        tid=sums.tid,
        comm=thread.comm if thread is not None else "",
        role=role,
        members=sums.members,
        oncpu_ns=dict(sorted(sums.oncpu_ns.items())),
        moves=sums.moves,
        balance_moves=sums.balance_moves,
        faults=max(sums.faults, sums.sampled_faults),
        allowed_cpus=format_cpulist(thread.cpus_allowed) if thread is not None else "",
        read_ns=read_ns,
        remote_share=remote_share,
        lost_ns=lost_ns,
    )
