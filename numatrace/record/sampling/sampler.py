"""Memory accesses from the ticks of the CPUs' clocks: resolve, look up nodes, write rows."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from numatrace.model.access import HOW, KERNEL, OPERAND
from numatrace.model.errors import NumatraceError
from numatrace.record.memory.placement import PAGE_BYTES, query_nodes
from numatrace.record.sampling.registers import in_order
from numatrace.record.sampling.ticks import Ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numatrace.record.bpf.probes import Probes
    from numatrace.record.operands import Operands
    from numatrace.trace.writer import TraceWriter

Array = np.ndarray[Any, Any]

BATCH = 2048
"""So many samples are resolved without waiting for the end of the interval."""

SLICE = 256
SLICE_S = 0.05
"""Samples that are resolved together, and the time after which the others wait for the next look:
code that is new takes long to decode, and meanwhile the rings fill up."""

MAX_WAITING = 65_536
"""So many samples wait at most, 22 MB."""

HOW_NAMES = np.array(list(HOW), object)
HOW_PLACES = {name: place for place, name in enumerate(HOW)}
USER_END = np.uint64(1 << 63)
NAME = "access sampling"


class AccessSampler:
    """Source of `access` rows by operand sampling. Where no clock can be had, it only says why."""

    def __init__(
        self,
        probes: Probes,
        writer: TraceWriter,
        note: Callable[[str, str], None],
        period_ns: int,
    ) -> None:
        self.probes = probes
        self.writer = writer
        self.note = note
        self.ticks = Ticks(probes)
        self.first_period_ns = period_ns
        self.cpu_count = 0
        """CPUs whose clocks tick; 0: there is no sampling."""
        self.samples = 0
        self.reader_s = 0.0
        """CPU time for resolving and writing them so far."""
        self._operands: Operands | None = None
        self._pending: list[Array] = []
        self._waiting = 0
        self._failed = False

    @property
    def wanted(self) -> bool:
        """Whether there is a program to run at the ticks."""
        return "access" in self.probes.programs

    @property
    def pause_s(self) -> float:
        """Session sees how full the ring is."""
        return float("inf")

    def room(self) -> int:
        """Samples that the ring buffer holds."""
        return self.probes.rings["access"].room

    def start(self) -> None:
        """Let the clocks tick."""
        if self.probes.plan.access:
            self._note(self.ticks.start(self.first_period_ns))
        self.cpu_count = len(self.ticks.cpus)

    def look(self, drained: Mapping[str, Array]) -> None:
        """Take the drained records; resolve them when there are many."""
        records = drained.get("access")
        if records is None or not len(records):
            return
        self._pending.append(records)
        self._waiting += len(records)
        if self._waiting >= BATCH:
            self._resolve(self._patience_s())

    def tick(self) -> None:
        """Resolve what waits; see to CPUs that came or went."""
        self._resolve(self._patience_s())
        if self.cpu_count:
            self._note(self.ticks.follow_cpus())

    def attached(self, tgid: int) -> None:
        """Nothing is kept for a process before its first sample."""

    def forget(self, tgid: int) -> None:
        """Resolve what waits, while something of the process may still be there to read."""
        self._resolve()
        if self._operands is not None:
            self._operands.forget(tgid)

    def stop(self) -> None:
        """Stop the clocks."""
        self.ticks.close()

    def finish(self) -> None:
        """Resolve what is left."""
        self._resolve()

    def close(self) -> None:
        """Stop the clocks, in whatever state."""
        self.ticks.close()

    def _note(self, problems: Iterable[str]) -> None:
        for why in problems:
            self.note(NAME, why)

    def _patience_s(self) -> float:
        return SLICE_S if self._waiting < MAX_WAITING else float("inf")

    def _resolve(self, seconds: float = float("inf")) -> None:
        """Resolve and write what waits, the oldest first, for so long."""
        if not self._pending:
            return
        began, until = time.thread_time(), time.monotonic() + seconds
        waiting = np.concatenate(self._pending)
        done = 0
        while done < len(waiting) and time.monotonic() < until:
            part = waiting[done : done + SLICE]
            self._write(in_order(part, self.probes.plan.machine))
            done += len(part)
        self._pending = [waiting[done:]] if done < len(waiting) else []
        self._waiting = len(waiting) - done
        self.samples += done
        self.reader_s += time.thread_time() - began

    def _write(self, records: Array) -> None:
        addr, known, access, how = self._addresses(records)
        nodes, told = mem_nodes(records["tgid"], addr, known)
        kept = ("t_ns", "tgid", "tid", "cpu", "node", "ip", "time_ns")
        self.writer.add_columns(
            "access",
            {
                **{name: records[name] for name in kept},
                "mem_node": np.ma.MaskedArray(nodes, ~told),
                "addr": np.ma.MaskedArray(addr, ~known),
                "access": access,
                "name": OPERAND,
                "detail": HOW_NAMES[how],
            },
            len(records),
        )

    def _addresses(self, records: Array) -> tuple[Array, Array, Array, Array]:
        """Address of each record, whether it is known, access bits, place in HOW.

        Samples stay without an address where a process's code is more than the resolver can take:
        a recording does not end for that.
        """
        try:
            found = self._resolver().resolve(records)
        except Exception as error:
            if not self._failed:
                self.note(NAME, f"no addresses: {type(error).__name__}: {error}"[:200])
            self._failed = True
            access = records["access"] & KERNEL
            how = np.where(access != 0, HOW_PLACES["kernel"], HOW_PLACES["unreadable"])
            return np.zeros(len(records), np.uint64), np.zeros(len(records), bool), access, how
        return found.addr, found.known, found.access, found.how

    def _resolver(self) -> Operands:
        """The resolver; its disassembler is loaded with the first samples, not at the start."""
        if self._operands is None:
            from numatrace.record.operands import Operands, read_code

            self._operands = Operands(self.probes.plan.machine, read_code)
        return self._operands


def mem_nodes(tgid: Array, addr: Array, known: Array) -> tuple[Array, Array]:
    """Node of the page of each known user address, -1 where none is present; and whether told.

    Not told: unknown addresses, those where nothing is mapped, and those of processes that ended.
    """
    nodes = np.full(len(addr), -1, np.int32)
    told = np.zeros(len(addr), bool)
    asked = known & (addr < USER_END)
    page_bytes = np.uint64(PAGE_BYTES)
    for each in np.unique(tgid[asked]).tolist():
        mine = np.flatnonzero(asked & (tgid == each))
        pages, place = np.unique(addr[mine] // page_bytes, return_inverse=True)
        try:
            status = query_nodes(each, pages * page_bytes)[place]
        except NumatraceError:
            continue
        nodes[mine] = np.maximum(status, -1)
        told[mine] = (status >= 0) | (status == -errno.ENOENT)
    return nodes, told
