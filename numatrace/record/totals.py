"""Turn the kernel's running totals into rows that say what was added since the row before.

Time on CPU has two sources. The scheduler's own clock (schedstat) is exact and knows no nodes;
the probes know nodes and miss a switch now and then. So schedstat gives the amount, and the probes
how it divides. A thread that ended before the end of its interval has the probes' amount.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from numatrace.record.machine.sched_clock import SchedClock, scaled

if TYPE_CHECKING:
    from numatrace.record.bpf.probes import Probes
    from numatrace.trace.writer import TraceWriter

Array = np.ndarray[Any, Any]


class Totals:
    """Remembers what was written, so that the rows of a thread and node sum up to its total."""

    def __init__(self, probes: Probes, writer: TraceWriter) -> None:
        self.probes = probes
        self.writer = writer
        self._oncpu: dict[tuple[int, int], int] = {}
        self._faults: dict[tuple[int, int], tuple[int, int]] = {}
        self.faults = 0
        self.oncpu_ns = 0
        self.clock = SchedClock()

    def write(self, *, running: bool = True) -> None:
        """Write on-CPU time and fault counts since the last call.

        `running`: add the time of threads that are on a CPU right now and were not switched out.
        Not after the probes are detached: the scheduler's clock goes on.
        """
        now_ns = time.monotonic_ns()
        self._write_oncpu(now_ns, running=running)
        self._write_faults(now_ns)

    def forget(self, tids: list[int]) -> None:
        """Drop the entries of ended threads, in the kernel and here. Call after `write`."""
        gone = set(tids)
        for table, seen in (
            (self.probes.oncpu, self._oncpu),
            (self.probes.fault_totals, self._faults),
        ):
            for key in [key for key in seen if key[0] in gone]:
                table.delete(np.array([key], table.key))
                del seen[key]
        self.clock.forget(gone)

    def _write_oncpu(self, now_ns: int, *, running: bool) -> None:
        rows = []
        for (tgid, tid), seen_ns in self._grown(now_ns, running=running).items():
            exact_ns = self.clock.grown_ns(tgid, tid) if running else None
            node_ns = seen_ns if exact_ns is None else scaled(seen_ns, exact_ns)
            self.oncpu_ns += sum(node_ns.values())
            rows += [
                {"t_ns": now_ns, "tgid": tgid, "tid": tid, "node": node, "oncpu_ns": ns}
                for node, ns in node_ns.items()
                if ns
            ]
        self.writer.add_rows("oncpu", rows)

    def _grown(self, now_ns: int, *, running: bool) -> dict[tuple[int, int], dict[int, int]]:
        """Time per node since the last call of each (tgid, tid) that ran, as the probes saw it."""
        totals = self._oncpu_totals()
        if running:
            self._add_running(totals, now_ns)
        grown: dict[tuple[int, int], dict[int, int]] = {}
        for (tid, node), (total_ns, tgid) in totals.items():
            since_ns = total_ns - self._oncpu.get((tid, node), 0)
            if since_ns > 0:  # not so where it was read between two halves of a switch
                self._oncpu[tid, node] = total_ns
                grown.setdefault((tgid, tid), {})[node] = since_ns
        return grown

    def _oncpu_totals(self) -> dict[tuple[int, int], tuple[int, int]]:
        """(ns, tgid) of each (tid, node)."""
        keys, values = self.probes.oncpu.items()
        return {
            key: (total_ns, tgid)
            for key, (total_ns, tgid, _) in zip(keys.tolist(), values.tolist(), strict=True)
        }

    def _add_running(self, totals: dict[tuple[int, int], tuple[int, int]], now_ns: int) -> None:
        for start_ns, tid, node in self.probes.running().tolist():
            thread = self.probes.threads.get(np.array([tid], "<i4")) if tid else None
            if thread is None or now_ns <= start_ns:
                continue
            total_ns, tgid = totals.get((tid, node), (0, int(thread[0]["tgid"])))
            since_ns = max(start_ns, self.probes.begin_ns)
            totals[tid, node] = (total_ns + now_ns - since_ns, tgid)

    def _write_faults(self, now_ns: int) -> None:
        keys, values = self.probes.fault_totals.items()
        rows = []
        for key, value in zip(keys.tolist(), values.tolist(), strict=True):
            count, kernel_count, _, tgid, _ = value
            before = self._faults.get(key, (0, 0))
            if count == before[0]:
                continue
            self._faults[key] = (count, kernel_count)
            self.faults += count - before[0]
            rows.append(
                {
                    "t_ns": now_ns,
                    "tgid": tgid,
                    "tid": key[0],
                    "node": key[1],
                    "count": count - before[0],
                    "kernel_count": kernel_count - before[1],
                }
            )
        self.writer.add_rows("fault_count", rows)
