"""The attached BPF programs: what they follow, and what they count."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from numatrace.model.errors import CapabilityError
from numatrace.record.bpf.loader import Loading
from numatrace.record.bpf.maps import BpfMap, online_possible_cpus
from numatrace.record.bpf.plan import PROGRAMS
from numatrace.record.bpf.ring import Ring
from numatrace.trace.schema import ring_dtype

if TYPE_CHECKING:
    from numatrace.record.bpf.plan import Plan

Array = np.ndarray[Any, Any]

THREAD = [("tgid", "<i4"), ("last_node", "<i4"), ("reclaims", "<i4")]
TID_NODE = [("tid", "<i4"), ("node", "<i4")]
FAULT_TOTAL = [
    ("count", "<u8"),
    ("kernel_count", "<u8"),
    ("user_ip", "<u8"),
    ("tgid", "<i4"),
    ("pad", "<i4"),
]
ONCPU_TOTAL = [("ns", "<u8"), ("tgid", "<i4"), ("pad", "<i4")]
ACCESS_SETTINGS = [("period_ns", "<u8"), ("thread_base_offset", "<u8")]
RUNNING = [("start_ns", "<u8"), ("tid", "<i4"), ("node", "<i4")]

LOSSES = (
    ("fault", "ring buffer full"),
    ("sched", "ring buffer full"),
    ("fault", "map of totals full"),
    ("sched", "map of on-CPU times full"),
    ("sched", "map of threads full"),
    ("access", "ring buffer full"),
    ("map", "ring buffer of tensors full"),
)
"""Family and reason of each loss counter, in the order of `enum loss` in bpf/target.h."""

ZERO = np.zeros(1, "<u4")


class Probes:
    """The loaded programs. From construction on, events of followed processes are recorded."""

    def __init__(self, plan: Plan, loading: Loading | None = None) -> None:
        loading = loading or Loading(plan)
        self.plan = plan
        self.begin_ns = 0
        self.bpf = loading.result()
        size, procs = plan.max_threads, plan.max_procs
        self.procs = self._map("procs", "<i4", "u1", procs)
        self.threads = self._map("threads", "<i4", THREAD, size)
        self.fault_totals = self._map("fault_totals", TID_NODE, FAULT_TOTAL, size)
        self.oncpu = self._map("oncpu", TID_NODE, ONCPU_TOTAL, size)
        self._running = self._map("running", "<u4", RUNNING, 1)
        self._losses = self._map("losses", "<u4", [("events", "<u8", (len(LOSSES),))], 1)
        self._unseen = self._map("unseen_turns", "<u4", "<u8", 1)
        self._pending = self._map("fault_pending", "<u4", "<u8", 1)
        self._every = self._map("fault_every", "<u4", "<u8", 1)
        self._begin = self._map("begin_ns", "<u4", "<u8", 1)
        self.rings = {"fault": self._ring("fault", plan.fault_ring_pages)}
        if "access" in plan.optional:
            self.rings["access"] = self._ring("access", plan.access_ring_pages)
            self._settings = self._map("access_settings", "<u4", ACCESS_SETTINGS, 1)
        # Drained after the samples: so the birth of every sampled thread is told with its sample.
        self.rings["sched"] = self._ring("sched", plan.sched_ring_pages)
        self.refused = loading.refused
        """Optional rings for which the kernel takes no program, and why."""
        self.programs = {ring: fd for ring in plan.optional if (fd := self._program(ring))}
        """Descriptors of the loaded programs that fill the optional rings; not attached here."""
        if "tensor" in plan.optional:
            self.rings["tensor"] = self._ring("tensor", plan.tensor_ring_pages)
        self.set_fault_every(1)

    def _ring(self, name: str, pages: int) -> Ring:
        return Ring(self._fd(f"{name}_ring"), pages, ring_dtype(name))

    def _program(self, ring: str) -> int | None:
        function = self.bpf.funcs.get(PROGRAMS[ring][1].encode())
        return None if function is None else int(function.fd)

    def _fd(self, name: str) -> int:
        return int(self.bpf[name.encode()].map_fd)

    def _map(self, name: str, key: Any, value: Any, entries: int) -> BpfMap:
        return BpfMap(self._fd(name), key, value, entries)

    def follow(self, tgid: int) -> None:
        """Follow a process: its faults and the threads it creates from now on."""
        self._insert(self.procs, "procs", tgid, np.ones(1, "u1"))

    def follow_thread(self, tgid: int, tid: int) -> None:
        """Follow a thread that exists already."""
        self._insert(self.threads, "threads", tid, np.array([(tgid, -1, 0)], THREAD))

    def _insert(self, target: BpfMap, name: str, key: int, value: Array) -> None:
        if not target.put(np.array([key], "<i4"), value):
            raise CapabilityError(
                "cannot follow all targets",
                f"more than {target.max_entries} {name}",
                "record fewer processes, or use --no-follow",
            )

    def begin(self) -> int:
        """Start counting on-CPU time; returns the moment in CLOCK_MONOTONIC nanoseconds."""
        self.begin_ns = time.monotonic_ns()
        self._begin.put(ZERO, np.array([self.begin_ns], "<u8"))
        return self.begin_ns

    def forget_thread(self, tid: int) -> None:
        """Stop following an ended thread and drop its counters, which must have been read."""
        self.threads.delete(np.array([tid], "<i4"))

    def forget_process(self, tgid: int) -> None:
        """Stop following an ended process."""
        self.procs.delete(np.array([tgid], "<i4"))

    def set_fault_every(self, n: int) -> None:
        """Send one fault record in `n` (per CPU); totals stay exact."""
        self._every.put(ZERO, np.array([n], "<u8"))

    def running(self) -> Array:
        """What runs on each CPU: start_ns, tid, node."""
        value = self._running.get(ZERO, online_possible_cpus())
        assert value is not None  # an array map has all its keys
        return value

    def losses(self) -> dict[tuple[str, str], int]:
        """Events counted and not kept, by family and reason."""
        value = self._losses.get(ZERO, online_possible_cpus())
        assert value is not None  # an array map has all its keys
        return dict(zip(LOSSES, value["events"].sum(axis=0).tolist(), strict=True))

    def faults_pending(self) -> int:
        """Faults counted that no record has stood for yet (sampling)."""
        return self._per_cpu_sum(self._pending)

    def unseen_turns(self) -> int:
        """Turns on a CPU whose beginning was not seen, and whose time schedstat has to tell."""
        return self._per_cpu_sum(self._unseen)

    def set_access(self, period_ns: int, thread_base_offset: int) -> None:
        """Tell the sampling program what a sample stands for, and where thread pointers are."""
        self._settings.put(ZERO, np.array([(period_ns, thread_base_offset)], ACCESS_SETTINGS))

    def descriptors(self) -> dict[str, int]:
        """The descriptors of all loaded programs, by name."""
        return {name.decode(): int(f.fd) for name, f in self.bpf.funcs.items()}

    @staticmethod
    def _per_cpu_sum(counter: BpfMap) -> int:
        value = counter.get(ZERO, online_possible_cpus())
        return int(value.sum()) if value is not None else 0

    def pause(self) -> None:
        """Count no more time, keep no more samples, from this moment on: detaching takes long."""
        self._begin.put(ZERO, np.zeros(1, "<u8"))
        if "access" in self.rings:
            self.set_access(0, 0)

    def stop(self) -> None:
        """Detach: nothing is counted any more; maps and rings stay readable."""
        self.pause()
        for name in list(self.bpf.tracepoint_fds):
            with contextlib.suppress(Exception):  # bcc raises bare Exception
                self.bpf.detach_tracepoint(name)

    def close(self) -> None:
        """Unmap the rings and unload everything."""
        for ring in self.rings.values():
            ring.close()
        self.bpf.cleanup()
