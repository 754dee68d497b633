"""Memory accesses from the ticks of the CPUs' clocks: resolve, look up nodes, write rows."""

from __future__ import annotations

import contextlib
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
    from numatrace.record.operands.helper import Helper
    from numatrace.trace.writer import TraceWriter

Array = np.ndarray[Any, Any]

BATCH = 2048
FEW = 256
REST_S = 4.0
REST_SHARE = 0.5
"""So many samples are resolved without waiting for the end of the interval; and fewer than FEW wait
for so long, or for this share of the recording so far: beside a server that streams its weights all
that the resolver needs has left the caches after a second, and fetching it back costs more than the
samples. Of a process that ends, the pages of what waits are not known any more."""

SLICE = 16
LEARN_S = 0.0075
"""Samples whose code is decoded in one go, and CPU time, for each CPU that is sampled, after which
the others wait for the next time: new code takes long, and the server needs the CPUs too. So a
helper does it while CPUs are idle; here it is done where there is no helper."""

MANY = 8192
"""Samples that a helper may keep waiting: to go through more at each tick costs more than it saves.
Where so many come, there are many CPUs, and time for it."""

LATE_LEARN_S = 0.05
"""CPU time once some have waited too long. It is also the longest in all, by the clock: meanwhile
the rings fill up."""

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
        patience_s: float,
    ) -> None:
        self.probes = probes
        self.writer = writer
        self.note = note
        self.ticks = Ticks(probes)
        self.first_period_ns = period_ns
        self.patience_s = patience_s
        self.cpu_count = 0
        """CPUs whose clocks tick; 0: there is no sampling."""
        self.taken = 0
        """Samples taken from the ring so far."""
        self.samples = 0
        """Of these, resolved and written."""
        self.reader_s = 0.0
        """CPU time for resolving and writing them so far."""
        self._operands: Operands | None = None
        self._helper: Helper | None = None
        self._pending: list[Array] = []
        self._waiting = 0
        self._failed = False
        self._since = time.monotonic()

    @property
    def wanted(self) -> bool:
        """Whether there is a program to run at the ticks."""
        return "access" in self.probes.programs

    @property
    def pause_s(self) -> float:
        """Session sees how full the ring is."""
        return float("inf")

    @property
    def helper_s(self) -> float:
        """CPU time of the helper that decodes; 0 once it has ended."""
        return self._helper.cpu_s if self._helper is not None else 0.0

    def room(self) -> int:
        """Samples that the ring buffer holds."""
        return self.probes.rings["access"].room

    def start(self) -> None:
        """Let the clocks tick."""
        if self.probes.plan.access:
            self._note(self.ticks.start(self.first_period_ns))
        self.cpu_count = len(self.ticks.cpus)
        if self.cpu_count:
            from numatrace.record.operands.helper import Helper

            self._helper = Helper(self.probes.plan.machine)

    def look(self, drained: Mapping[str, Array]) -> None:
        """Take the drained records; resolve them when there are many."""
        records = drained.get("access")
        if records is None or not len(records):
            return
        self._pending.append(records)
        self._waiting += len(records)
        self.taken += len(records)
        if self._waiting >= BATCH:
            self._resolve(hurry=False)

    def tick(self) -> None:
        """Resolve what waits; see to CPUs that came or went."""
        rest_s = min(REST_S, REST_SHARE * (time.monotonic() - self._since))
        if self._waiting >= FEW or self._oldest_s() >= rest_s:
            self._resolve(hurry=False)
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
        self._end_helper()

    def close(self) -> None:
        """Stop the clocks, in whatever state."""
        self.ticks.close()
        self._end_helper()

    def _end_helper(self) -> None:
        if self._helper is not None:
            self._helper.close()

    def _note(self, problems: Iterable[str]) -> None:
        for why in problems:
            self.note(NAME, why)

    def _resolve(self, *, hurry: bool = True) -> None:
        """Resolve and write what waits, the oldest first: without hurry no more than may be now."""
        if not self._pending:
            return
        began = time.thread_time()
        waiting = np.concatenate(self._pending)
        endless = hurry or len(waiting) >= MAX_WAITING
        ready = self._resolver().ready(waiting)
        done = len(waiting) if endless else self._learnt(waiting, ready)
        for first in range(0, done, BATCH):
            part = waiting[first : min(first + BATCH, done)]
            self._write(in_order(part, self.probes.plan.machine))
        self._pending = [waiting[done:]] if done < len(waiting) else []
        self._waiting = len(waiting) - done
        self.samples += done
        self.reader_s += time.thread_time() - began

    def _oldest_s(self) -> float:
        """How long the oldest sample that waits has done so."""
        if not self._pending:
            return 0.0
        return (time.monotonic_ns() - int(self._pending[0]["t_ns"][0])) / 1e9

    def _learnt(self, waiting: Array, ready: int) -> int:
        """How many of the samples, from the first on, need no more decoding after some time."""
        late = self._oldest_s() > self.patience_s or len(waiting) > MANY
        if self._helper is not None and self._helper.works and not late:
            return ready
        learn_s = LATE_LEARN_S if late else LEARN_S * max(1, self.cpu_count)
        cpu_until = time.thread_time() + learn_s
        until = time.monotonic() + LATE_LEARN_S
        done = ready
        while done < len(waiting) and time.thread_time() < cpu_until and time.monotonic() < until:
            self._learn(waiting[done : done + SLICE])
            done = min(done + SLICE, len(waiting))
        return done

    def _learn(self, records: Array) -> None:
        with contextlib.suppress(Exception):  # `_addresses` meets it again, and tells
            self._resolver().learn(records)

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

            self._operands = Operands(self.probes.plan.machine, read_code, self._helper)
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
