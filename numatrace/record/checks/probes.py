"""Fire a known stimulus at each probe, and say what the probe saw of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from numatrace.model.errors import CapabilityError
from numatrace.model.events import EVENT
from numatrace.record.bpf.plan import Plan
from numatrace.record.bpf.probes import Probes
from numatrace.record.bpf.stimulus import Stimulus, StimulusError
from numatrace.record.checks.capability import Capability, Host, one_line
from numatrace.record.machine.sysfs import node_cpus, node_numbers, online_cpus
from numatrace.record.operands import Operands, read_code
from numatrace.record.sampling.registers import in_order
from numatrace.record.sampling.ticks import Ticks

Array = np.ndarray[Any, Any]

FRESH_PAGES = 1_000
READ_PAGES = 100
BURN_NS = 100_000_000
BURN_TOLERANCE = 0.05
"""Share by which time on CPU may differ from schedstat, which leaves out time in interrupts."""
BURN_TRIES = 3
HOPS = 23
BUFFER_PAGES = 2048
READ_NS = 100_000_000
SAMPLE_PERIOD_NS = 1_009_000
SEEN_SHARE = 0.8
"""Samples are a few in the program's own loop around the reads, and in the kernel."""

ACCESS_WRITE = 1
ACCESS_KERNEL = 4
"""Bits of the column `access`."""

SILENT = (
    "Do not trust this family on this kernel: report it, with the output of `numatrace doctor "
    "--json`"
)


@dataclass(slots=True)
class Range:
    """The armed probes, and the process to which things are done."""

    probes: Probes
    child: Stimulus
    host: Host

    def drain(self, ring: str) -> Array:
        """The records of the process since the last call, once it is quiet."""
        self.child.settle()
        return self.probes.rings[ring].drain()

    def oncpu_ns(self) -> int:
        """Time on CPU of the process's thread, over all nodes, as the probe counts it."""
        keys, values = self.probes.oncpu.items()
        return int(values["ns"][keys["tid"] == self.child.pid].sum())

    def fault_total(self) -> int:
        """Exact number of faults of the process's thread, over all nodes."""
        keys, values = self.probes.fault_totals.items()
        return int(values["count"][keys["tid"] == self.child.pid].sum())


def fire_at_probes(host: Host) -> list[Capability]:
    """Load the programs, fire at each probe, and unload them. About half a second."""
    title = "BPF programs"
    started = time.monotonic()
    try:
        with Stimulus() as child:
            probes = Probes(Plan())
            try:
                probes.follow(child.pid)
                probes.follow_thread(child.pid, child.pid)
                probes.begin()
                loaded = f"compiled and attached in {time.monotonic() - started:.1f} s"
                range_ = Range(probes, child, host)
                fired = [_fire(probe, range_) for probe in PROBES]
            finally:
                probes.close()
    except CapabilityError as error:
        return [_not_loaded(title, error.why, error.todo)]
    except StimulusError as error:
        return [_not_loaded(title, f"the process to fire with: {error}", SILENT)]
    return [Capability("programs", title, "yes", loaded), *fired]


def _not_loaded(title: str, why: str, todo: str) -> Capability:
    return Capability(
        "programs", title, "no", "do not load", lost="recording", why=one_line(why), todo=todo
    )


def _fire(probe: Probe, range_: Range) -> Capability:
    """One probe's result; a stimulus that fails is not held against the machine's other probes."""
    try:
        return probe(range_)
    except StimulusError as error:
        id_ = probe.__name__.removeprefix("fire_")
        return Capability(
            id_,
            f"probe {id_}",
            "degraded",
            "not tried",
            lost="knowing whether this probe works",
            why=one_line(str(error)),
            todo="Run `numatrace doctor` again on a less busy machine",
        )


def _result(id_: str, title: str, saw: str, *, right: bool, wanted: str) -> Capability:
    if right:
        return Capability(id_, title, "yes", saw)
    return Capability(
        id_,
        title,
        "degraded",
        saw,
        lost=f"figures of {title} cannot be trusted",
        why=f"{wanted} was to be seen",
        todo=SILENT,
    )


def _inside(records: Array, answer: dict[str, int]) -> Array:
    first = answer["addr"]
    addr = records["addr"]
    inside = (addr >= first) & (addr < first + answer["bytes"])
    return np.asarray(records[inside & (records["code"] == EVENT["fault"].code)])


def fire_faults(range_: Range) -> Capability:
    """Fresh pages written to: one fault each, in the ring and in the exact total."""
    range_.drain("fault")
    before = range_.fault_total()
    answer = range_.child.touch(FRESH_PAGES)
    records = range_.drain("fault")
    total = range_.fault_total() - before
    mine = records[records["tgid"] == range_.child.pid]
    seen = int(_inside(mine, answer)["weight"].sum())
    others = int(mine["weight"].sum()) - seen
    return _result(
        "faults",
        "page faults",
        f"{seen:,} of {FRESH_PAGES:,} fresh pages seen",
        right=seen == FRESH_PAGES and total == seen + others,
        wanted=f"{FRESH_PAGES:,} faults, and as many in the exact total ({total - others:,})",
    )


def fire_kernel_faults(range_: Range) -> Capability:
    """Fresh pages that the kernel writes to in read(2): one fault each, in kernel mode."""
    range_.drain("fault")
    answer = range_.child.read_into(READ_PAGES)
    mine = _inside(range_.drain("fault"), answer)
    seen = int(mine["weight"][(mine["access"] & ACCESS_KERNEL) != 0].sum())
    return _result(
        "kernel_faults",
        "faults in system calls",
        f"{seen:,} of {READ_PAGES:,} pages seen",
        right=seen == READ_PAGES,
        wanted=f"{READ_PAGES:,} faults in kernel mode",
    )


def fire_oncpu(range_: Range) -> Capability:
    """A thread that computes, yields and sleeps: its time against the scheduler's own.

    Tried again when it is off: the kernel drops a switch now and then while others trace too.
    """
    for _ in range(BURN_TRIES):
        probe_ns, kernel_ns = _burn(range_)
        right = abs(probe_ns - kernel_ns) <= BURN_TOLERANCE * kernel_ns
        if right:
            break
    return _result(
        "oncpu",
        "time on CPU",
        f"{probe_ns / 1e6:.1f} ms of {kernel_ns / 1e6:.1f} ms seen",
        right=right,
        wanted=f"{kernel_ns / 1e6:.1f} ms, the growth of the thread's schedstat,",
    )


def _burn(range_: Range) -> tuple[int, int]:
    """Time on CPU of one burn in nanoseconds: by the probe, and by the scheduler."""
    range_.child.settle()
    probe_before, kernel_before = range_.oncpu_ns(), range_.child.schedstat_ns()
    range_.child.burn(BURN_NS)
    range_.child.settle()
    return range_.oncpu_ns() - probe_before, range_.child.schedstat_ns() - kernel_before


def fire_lifecycle(range_: Range) -> Capability:
    """A thread and a process that begin and end, and a program that is replaced."""
    range_.drain("sched")
    answer = range_.child.lifecycle()
    records = range_.drain("sched")
    wanted = {"thread fork": 1, "thread exit": 1, "fork": 1, "exec": 1, "exit": 1}
    seen = {
        "thread fork": _count(records, "fork", answer["tid"]),
        "thread exit": _count(records, "exit", answer["tid"]),
        **{kind: _count(records, kind, answer["pid"]) for kind in ("fork", "exec", "exit")},
    }
    right = seen == wanted
    missed = ", ".join(kind for kind in wanted if seen[kind] != wanted[kind])
    return _result(
        "lifecycle",
        "births and ends",
        "a thread's and a process's fork, exec and exit seen" if right else f"not seen: {missed}",
        right=right,
        wanted="each of fork, exec and exit, once,",
    )


def _count(records: Array, kind: str, tid: int) -> int:
    return int(((records["code"] == EVENT[kind].code) & (records["tid"] == tid)).sum())


def hop_cpus(host: Host) -> tuple[int, int, int]:
    """Two CPUs that we may use, and the moves between nodes that a hop between them is (0 or 1)."""
    allowed = os.sched_getaffinity(0)
    online = online_cpus(host.root)
    per_node = [
        sorted(allowed.intersection(node_cpus(node, online, host.root)))
        for node in node_numbers(host.root)
    ]
    per_node = [cpus for cpus in per_node if cpus]
    if len(per_node) > 1:
        return per_node[0][0], per_node[1][0], 1
    cpus = sorted(allowed)
    return cpus[0], cpus[-1], 0


def fire_moves(range_: Range) -> Capability:
    """A thread that goes back and forth between two CPUs, of two nodes where there are two.

    On one node it must be seen to move between nodes not once.
    """
    first, second, moves = hop_cpus(range_.host)
    range_.child.pin(first)
    range_.drain("sched")
    hops = range_.child.hop((first, second), HOPS)["hops"]
    records = range_.drain("sched")
    seen = _count(records, "move", range_.child.pid)
    wanted = hops * moves
    where = "between two nodes" if moves else "within one node: no move between nodes"
    return _result(
        "moves",
        "moves between nodes",
        f"{seen} of {wanted} seen" if moves else f"{seen} seen in {hops} hops on one node",
        right=seen == wanted,
        wanted=f"{wanted}, for {hops} hops {where},",
    )


def fire_access(range_: Range) -> Capability:
    """A thread that reads a buffer: most samples must have an address in it."""
    ticks = Ticks(range_.probes)
    problems = ticks.start(SAMPLE_PERIOD_NS)
    if not ticks.cpus:
        return _no_access("; ".join(problems))
    try:
        answer = range_.child.read(BUFFER_PAGES, READ_NS)
    finally:
        ticks.close()
    records = in_order(range_.drain("access"), range_.probes.plan.machine)
    found = Operands(range_.probes.plan.machine, read_code).resolve(records)
    inside = found.addr - np.uint64(answer["addr"]) < np.uint64(answer["bytes"])
    seen, wanted = int((found.known & inside).sum()), answer["oncpu_ns"] // SAMPLE_PERIOD_NS
    return _result(
        "access",
        "memory accesses",
        f"{seen} of {len(records)} samples hit the buffer that was read",
        right=seen >= SEEN_SHARE * max(len(records), wanted),
        wanted=f"{SEEN_SHARE:.0%} of about {wanted}",
    )


def _no_access(why: str) -> Capability:
    return Capability(
        "access",
        "memory accesses",
        "degraded",
        "not sampled",
        lost="which thread reads which memory: reports fall back to time and placement",
        why=one_line(why),
        todo="Allow perf_event_open(2): run on the host, outside containers and sandboxes",
    )


Probe = Callable[[Range], Capability]

PROBES: tuple[Probe, ...] = (
    fire_faults,
    fire_kernel_faults,
    fire_oncpu,
    fire_lifecycle,
    fire_moves,
    fire_access,
)
"""Every probe that can be fired at at will; NUMA balancing's cannot be."""
