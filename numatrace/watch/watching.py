"""Watch: sessions feed the live model, and a snapshot of it is handed on in every interval."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from numatrace.model.access import OPERAND
from numatrace.watch.memory import NodeBytes, node_bytes
from numatrace.watch.rolling import Rolling
from numatrace.watch.sessions import Sessions
from numatrace.watch.snapshot import NodeLine, Overhead, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from numatrace.record.bpf.loader import Loading
    from numatrace.record.options import Options

MAX_TICK_S = 1.0
"""Between two batches of a trace, however long the interval of the display."""

PATIENCE_S = 8.0
"""See Options.patience_s: shown late, a sample is worth less."""


@dataclass(slots=True)
class Clock:
    """When the interval began, and what this program had cost until then."""

    at_s: float
    own_s: float

    @classmethod
    def now(cls) -> Clock:
        """Read both."""
        times = os.times()
        children_s = times.children_user + times.children_system
        return cls(time.monotonic(), time.process_time() + children_s)


class Watching:
    """Begin with `start`; `run` until `stop`; then `end`, or `abandon` after an error."""

    def __init__(
        self,
        options: Options,
        pids: list[int],
        on_snapshot: Callable[[Snapshot], None],
        say: Callable[[str], None],
    ) -> None:
        self.interval_s = options.interval_s
        self.on_snapshot = on_snapshot
        self.say = say
        self.pid = pids[0]
        self.rolling = Rolling()
        tick_s = min(self.interval_s, MAX_TICK_S)
        options = replace(options, interval_s=tick_s, patience_s=PATIENCE_S)
        self.sessions = Sessions(options, pids, self.rolling.take, self)
        self._tick_s = tick_s
        self._began_s = 0.0
        self._clock = Clock(0.0, 0.0)
        self._helpers_s = 0.0
        self._seen: tuple[object, ...] = ()
        self._bytes: NodeBytes | None = None

    def start(self, loading: Loading) -> None:
        """Begin to follow."""
        self.sessions.begin(loading)
        self._began_s = time.monotonic()
        self.gap_ends()

    def run(self, wait: Callable[[float], None]) -> str:
        """Watch until stopped; returns why it ended."""
        self.sessions.run(wait)
        return self.sessions.ended

    def tick(self) -> None:
        """Hand on a snapshot, if the interval is over."""
        if time.monotonic() - self._clock.at_s >= self.interval_s - self._tick_s / 2:
            self.on_snapshot(self._close())

    def gap_begins(self) -> None:
        """End the interval early."""
        self._close()

    def gap_ends(self) -> None:
        """Begin an interval."""
        self._clock = Clock.now()
        self._helpers_s = 0.0

    def _close(self) -> Snapshot:
        before, self._clock = self._clock, Clock.now()
        elapsed_s = self._clock.at_s - before.at_s
        self.rolling.close(elapsed_s)
        return self._snapshot(self._overhead(self._clock.own_s - before.own_s))

    def _overhead(self, own_s: float) -> Overhead:
        session, last = self.sessions.session, self.rolling.last
        helpers_s = session.hardware.cpu_s
        own_s += max(0.0, helpers_s - self._helpers_s)
        self._helpers_s = helpers_s
        tick_ns = session.meter.costs.interrupt_ns
        return Overhead(
            own=own_s / last.elapsed_s,
            probes=session.meter.program_cpus,
            ticks=self.rolling.samples_s * tick_ns / 1e9 * (self.rolling.source == OPERAND),
        )

    def _snapshot(self, overhead: Overhead) -> Snapshot:
        rolling, targets = self.rolling, self.sessions.session.targets.threads
        last, followed = rolling.last, rolling.followed
        topology = followed.topology
        one_node = topology is not None and not topology.has_numa
        per_s = 1 / last.elapsed_s
        threads = sorted(rolling.lines(one_node=one_node), key=lambda line: (-line.cpus, line.tid))
        return Snapshot(
            process=followed.process(self.pid),
            pid=self.pid,
            processes=len(targets),
            threads_alive=sum(map(len, targets.values())),
            host=os.uname().nodename,
            n_nodes=len(topology.nodes) if topology else 1,
            n_cpus=len(topology.online_cpus) if topology else os.cpu_count() or 1,
            elapsed_s=self._clock.at_s - self._began_s,
            every_s=self.interval_s,
            interval_s=last.elapsed_s,
            window_s=rolling.covered_s,
            cpus=sum(line.cpus for line in threads),
            remote=rolling.remote(one_node=one_node),
            source=rolling.source,
            samples_s=rolling.samples_s,
            moves_s=sum(line.moves_s for line in threads),
            faults_s=sum(line.faults_s for line in threads),
            lost=dict(sorted(rolling.lost.items())),
            lost_s=last.lost * per_s,
            overhead=overhead,
            nodes=tuple(self._nodes()),
            threads=tuple(threads),
            others=len(last.others),
            notes=tuple(followed.notes),
        )

    def _nodes(self) -> list[NodeLine]:
        followed, last = self.rolling.followed, self.rolling.last
        node_ns = last.node_ns
        self._look_at_memory()
        found = self._bytes
        has_model = found is not None and found.model.total() > 0
        known = {node.node for node in followed.topology.nodes} if followed.topology else set()
        return [
            NodeLine(
                node=node,
                cpus=node_ns[node] / 1e9 / last.elapsed_s,
                share=node_ns[node] / max(1, node_ns.total()),
                bytes=None if found is None else found.all[node],
                model_bytes=found.model[node] if found is not None and has_model else None,
                free_bytes=followed.free_bytes.get(node),
            )
            for node in sorted(known | set(node_ns))
        ]

    def _look_at_memory(self) -> None:
        """Sum up the last snapshots of where pages lie, if there are new ones."""
        memory = self.sessions.session.memory
        spaces = {tgid: rows for tgid, space in memory.spaces.items() if (rows := space.pages.rows)}
        seen = tuple(spaces.values())
        same = len(seen) == len(self._seen) and all(map(lambda a, b: a is b, seen, self._seen))
        if spaces and not same:
            models = {inode for (_, inode), table in memory.finder.tables.items() if table.tensors}
            self._bytes, self._seen = node_bytes(spaces, models), seen
