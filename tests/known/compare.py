"""Record the workload of known truth, and set what its access samples say against the truth."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
from pyarrow import ipc

from known.known import Truth, Workload
from numatrace.model.access import KERNEL, OPERAND, WRITE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from pyarrow import Table

    from known.cases import Case
    from known.known import Buffer

COLUMNS = ("t_ns", "tgid", "tid", "addr", "access", "time_ns", "node", "mem_node", "detail")
PATIENCE_S = 120.0
NOWHERE = ""
"""The key of time without an address, and of time that really used no memory."""
ELSEWHERE = "(elsewhere)"
"""The key of addresses outside the buffers: stacks, the program's own data, or wrong ones."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share of a thread's, or of a buffer's, time: as it was and as it was measured (0..1)."""

    slot: int | None
    key: str
    truth: float
    measured: float
    samples: int

    @property
    def off(self) -> float:
        """By how much it was missed."""
        return abs(self.measured - self.truth)


@dataclass(slots=True)
class Comparison:
    """A recording against the truth. Times are in ns, samples counted."""

    truth: Truth
    buffers: dict[str, Buffer]
    samples: int = 0
    kernel_ns: int = 0
    by_slot: dict[int, Counter[str]] = field(default_factory=dict)
    """Time in user mode by slot and key (see NOWHERE, ELSEWHERE)."""
    counts: dict[int, Counter[str]] = field(default_factory=dict)
    """Samples in user mode by slot and key."""
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Time by buffer and `read` or `write`."""
    nodes: Counter[tuple[int, int, str, int]] = field(default_factory=Counter)
    """Time in user mode by slot, node of the CPU, key and node of the page, -1 if unknown."""
    details: Counter[str] = field(default_factory=Counter)
    """Time by how the address was found."""

    @property
    def user_ns(self) -> int:
        """Time in user mode."""
        return sum(sum(each.values()) for each in self.by_slot.values())

    @property
    def found_share(self) -> float:
        """Of the time in user mode that used memory, the share whose samples have an address."""
        wanted = self.user_ns * (1 - self._memoryless_share)
        found = self.user_ns - sum(each[NOWHERE] for each in self.by_slot.values())
        return found / wanted if wanted else 0.0

    @property
    def _memoryless_share(self) -> float:
        totals: Counter[str] = Counter()
        for slot in self.truth.slots:
            totals.update(slot.time_ns())
        return totals[NOWHERE] / totals.total() if totals else 0.0

    @property
    def kernel_share(self) -> float:
        """The share of all time that was in kernel mode."""
        return self.kernel_ns / max(1, self.kernel_ns + self.user_ns)

    def write_share(self, name: str) -> float:
        """The share of a buffer's time whose samples are writes."""
        writes, reads = self.kinds[name, "write"], self.kinds[name, "read"]
        return writes / max(1, writes + reads)

    def time_shares(self) -> list[Share]:
        """The shares of each thread's time in user mode by buffer, and by pair where it copied."""
        found = []
        for slot in self.truth.slots:
            true_ns, measured_ns = slot.time_ns(), self._folded(slot.number)
            counts = self.counts.get(slot.number, Counter()).total()
            for key in dict.fromkeys((*true_ns, *measured_ns)):
                true = true_ns[key] / max(1, true_ns.total())
                measured = measured_ns[key] / max(1, measured_ns.total())
                found.append(Share(slot.number, key, true, measured, counts))
        return found

    def _folded(self, number: int) -> Counter[str]:
        """A thread's time by the keys that the truth has: a copy's two buffers are one."""
        slot = next(each for each in self.truth.slots if each.number == number)
        owner = {name: item.key for item in slot.items for name in item.key.split("+")}
        total: Counter[str] = Counter()
        for key, ns in self.by_slot.get(number, Counter()).items():
            total[owner.get(key, key)] += ns
        return total

    def remote_by_slot(self) -> list[Share]:
        """The remote share of each thread's accesses, by time."""
        return [
            self._remote((slot.number,), tuple(self.buffers), slot.number, "")
            for slot in self.truth.slots
        ]

    def remote_by_buffer(self) -> list[Share]:
        """The remote share of the accesses to each buffer that is used, by time."""
        used = {item.key for slot in self.truth.slots for item in slot.items if item.key}
        numbers = tuple(slot.number for slot in self.truth.slots)
        return [self._remote(numbers, (name,), None, name) for name in self.buffers if name in used]

    def _remote(
        self, slots: Sequence[int], names: Sequence[str], slot: int | None, key: str
    ) -> Share:
        """Remote shares of the threads' work; time on each node weighs the same on both sides."""
        true, found = {True: 0.0, False: 0.0}, {True: 0.0, False: 0.0}
        for each in self.truth.slots:
            for node, ns in each.node_ns().items() if each.number in slots else ():
                for item in each.items:
                    part = ns * each.work(item, node) if item.key in names else 0.0
                    remote = self.buffers[item.key].remote_from(node) if part else 0.0
                    true[True] += part * remote
                    true[False] += part * (1 - remote)
                all_ns = sum(
                    t for where, t in self.nodes.items() if where[:2] == (each.number, node)
                )
                for (number, cpu_node, name, mem_node), sampled_ns in self.nodes.items():
                    if (number, cpu_node) == (each.number, node) and name in names:
                        found[node != mem_node] += ns * sampled_ns / all_ns if mem_node >= 0 else 0
        samples = sum(
            self.counts.get(number, Counter())[name] for number in slots for name in names
        )
        return Share(slot, key, _part(true), _part(found), samples)


def _part(amounts: dict[bool, float]) -> float:
    total = amounts[True] + amounts[False]
    return amounts[True] / total if total else 0.0


@contextlib.contextmanager
def recording(pids: Sequence[int], trace: Path, *options: str) -> Iterator[None]:
    """Record processes for as long as the block runs. Raises RuntimeError with what was said."""
    command = [sys.executable, "-m", "numatrace", "record", *map(str, pids), "-o", str(trace)]
    process = subprocess.Popen(
        [*command, "--force", "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    said = process.stderr.readline()  # "recording process ...": attached
    try:
        if not said.startswith("recording"):
            raise RuntimeError(said + process.stderr.read())
        yield
    finally:
        process.terminate()
        out, err = process.communicate(timeout=90)
    if process.returncode:
        raise RuntimeError(err)
    json.loads(out)


def measure(
    program: Path, cases: Sequence[Case], trace: Path, cpu_s: float, *options: str
) -> dict[str, Comparison]:
    """Run cases at once, record them until each thread has had so much CPU time, and compare."""
    with contextlib.ExitStack() as stack:
        # The recorder comes first, as it would on a machine with CPUs to spare.
        running = {
            case.name: stack.enter_context(
                Workload(["nice", "-n", "19", program, "--wait", *case.arguments])
            )
            for case in cases
        }
        with recording([each.pid for each in running.values()], trace, *options):
            for each in running.values():
                each.go()
            before = {name: each.mark() for name, each in running.items()}
            after = {name: _worked(each, before[name], cpu_s) for name, each in running.items()}
            for each in running.values():
                each.pause()
    return {
        name: compare(trace, each, after[name].since(before[name]))
        for name, each in running.items()
    }


def _worked(workload: Workload, before: Truth, cpu_s: float) -> Truth:
    """What was done once every thread has had its time: on a busy machine that takes longer."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        time.sleep(0.1)
        now = workload.mark()
        least_ns = min(slot.time_ns().total() for slot in now.since(before).slots)
        if least_ns >= cpu_s * 1e9:
            return now
        if time.monotonic() > deadline:
            raise RuntimeError(f"a thread got {least_ns / 1e9:.1f} s of CPU in {PATIENCE_S:.0f} s")


def compare(trace: Path, workload: Workload, truth: Truth) -> Comparison:
    """Take the access samples of the workload between two marks to what was done between them."""
    rows = _rows(trace, workload.pid, truth)
    columns = {name: _numbers(rows, name) for name in COLUMNS[:-1]}
    places = _places(columns["addr"], list(workload.buffers.values()))
    slots = {tid: slot.number for slot in truth.slots for tid in slot.tids}
    result = Comparison(truth, workload.buffers, samples=rows.num_rows)
    details = rows["detail"].cast("string").to_pylist()
    fields = (columns[name].tolist() for name in ("tid", "access", "time_ns", "node", "mem_node"))
    for place, detail, tid, access, ns, node, mem_node in zip(
        places, details, *fields, strict=True
    ):
        if tid not in slots:
            continue
        result.details[detail or ""] += ns
        if access & KERNEL:
            result.kernel_ns += ns
            continue
        slot = slots[tid]
        result.by_slot.setdefault(slot, Counter())[place] += ns
        result.counts.setdefault(slot, Counter())[place] += 1
        if place in workload.buffers:
            result.kinds[place, "write" if access & WRITE else "read"] += ns
        result.nodes[slot, node, place, mem_node] += ns
    return result


def _rows(trace: Path, pid: int, truth: Truth) -> Table:
    table = ipc.open_file(trace).read_all()
    mine = pc.and_(pc.equal(table["kind"].cast("string"), "access"), pc.equal(table["tgid"], pid))
    rows = table.filter(pc.and_(mine, pc.equal(table["name"].cast("string"), OPERAND)))
    times = rows["t_ns"]
    inside = pc.and_(pc.greater_equal(times, truth.began_ns), pc.less_equal(times, truth.t_ns))
    return rows.filter(inside).select(COLUMNS)


def _numbers(rows: Table, name: str) -> npt.NDArray[np.int64]:
    """A column as numbers, -1 for null."""
    column = rows[name].cast("uint64") if name == "addr" else rows[name].cast("int64")
    if name == "addr":
        # The upper half of the address space belongs to the kernel; nulls become its last address.
        filled = pc.fill_null(column, (1 << 64) - 1).to_numpy()
        return np.asarray(filled).astype(np.uint64).view(np.int64)
    return np.asarray(pc.fill_null(column, -1).to_numpy()).astype(np.int64)


def _places(addrs: npt.NDArray[np.int64], buffers: list[Buffer]) -> list[str]:
    """The buffer that holds each address, or one of the two other keys."""
    places = np.full(len(addrs), ELSEWHERE, dtype=object)
    places[addrs == -1] = NOWHERE
    for each in buffers:
        places[(addrs >= each.addr) & (addrs < each.addr + each.bytes)] = each.name
    found: list[str] = places.tolist()
    return found
