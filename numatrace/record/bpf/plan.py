"""What is traced: the BPF sources, their sizes, and the tracepoints they may or must have."""

from __future__ import annotations

import mmap
import platform
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

SOURCES = ("target.h", "fault.bpf.c", "sched.bpf.c", "balance.bpf.c")
"""In this order they make one program text: bcc rewrites only its main file, so they are joined,
not included."""

ACCESS_SOURCE = "access.bpf.c"
TENSOR_SOURCE = "tensor.bpf.c"

PROGRAMS = {"access": ("PERF_EVENT", "access_tick"), "tensor": ("KPROBE", "on_tensor")}
"""Programs of the optional rings, which bcc does not attach by itself: type in bcc, and name."""

RECLAIM = {
    "reclaim_begins": (
        "vmscan/mm_vmscan_direct_reclaim_begin",
        "vmscan/mm_vmscan_memcg_reclaim_begin",
        "vmscan/mm_vmscan_node_reclaim_begin",
    ),
    "reclaim_ends": (
        "vmscan/mm_vmscan_direct_reclaim_end",
        "vmscan/mm_vmscan_memcg_reclaim_end",
        "vmscan/mm_vmscan_node_reclaim_end",
    ),
}
"""Programs beside `access_tick`, and the tracepoints that each is attached to."""

ARCHITECTURES = {"x86_64": "ARCH_X86", "aarch64": "ARCH_ARM64"}
"""Machines whose registers bpf/access.bpf.c knows."""

TRACEFS = Path("/sys/kernel/tracing")

REQUIRED_TRACEPOINTS = (
    "sched/sched_switch",
    "sched/sched_process_exec",
    "sched/sched_process_exit",
    "task/task_newtask",
    "exceptions/page_fault_user",
    "exceptions/page_fault_kernel",
)
OPTIONAL_TRACEPOINTS = (
    "sched/sched_move_numa",
    "sched/sched_swap_numa",
    "sched/sched_stick_numa",
    *(tracepoint for tracepoints in RECLAIM.values() for tracepoint in tracepoints),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Compile-time constants of one recording."""

    follow: bool = True
    access: bool = True
    """Sample memory accesses."""
    tensor: bool = True
    """See where a server puts its tensors."""
    access_ring_pages: int = 256
    tensor_ring_pages: int = 256
    fault_ring_pages: int = 256
    sched_ring_pages: int = 256
    max_threads: int = 32_768
    max_procs: int = 4_096
    tracefs: Path = field(default=TRACEFS)
    machine: str = field(default_factory=platform.machine)

    @property
    def optional(self) -> dict[str, str]:
        """Rings whose programs look into registers, with their sources: not on every machine."""
        wanted = {"access": self.access, "tensor": self.tensor}
        sources = {"access": ACCESS_SOURCE, "tensor": TENSOR_SOURCE}
        known = self.machine in ARCHITECTURES
        return {ring: sources[ring] for ring in wanted if wanted[ring] and known}

    def cflags(self) -> list[str]:
        """Options for bcc's compiler."""
        have = [
            f"-DHAVE_{tracepoint.partition('/')[2].upper()}"
            for tracepoint in OPTIONAL_TRACEPOINTS
            if self.has(tracepoint)
        ]
        return [
            f"-I{bpf_folder()}",
            f"-DFOLLOW={int(self.follow)}",
            f"-DFAULT_RING_PAGES={self.fault_ring_pages}",
            f"-DSCHED_RING_PAGES={self.sched_ring_pages}",
            f"-DMAX_THREADS={self.max_threads}",
            f"-DMAX_PROCS={self.max_procs}",
            f"-DACCESS_RING_PAGES={self.access_ring_pages}",
            f"-DTENSOR_RING_PAGES={self.tensor_ring_pages}",
            f"-D{ARCHITECTURES.get(self.machine, 'ARCH_UNKNOWN')}",
            # Of a thread's kernel stack: at least 16 KiB and a page on both architectures.
            f"-DTHREAD_BYTES={max(16_384, mmap.PAGESIZE)}",
            "-Wall",
            "-Werror",
            # bcc's own headers are not clean under these.
            "-Wno-unused-function",
            "-Wno-unused-variable",
            "-Wno-macro-redefined",
            "-Wno-duplicate-decl-specifier",
            *have,
        ]

    def has(self, tracepoint: str) -> bool:
        """Whether this kernel has a tracepoint (tracefs must be mounted)."""
        return (self.tracefs / "events" / tracepoint / "format").exists()

    def missing(self) -> tuple[str, ...]:
        """Tracepoints that this kernel lacks, required or not."""
        return tuple(tp for tp in REQUIRED_TRACEPOINTS + OPTIONAL_TRACEPOINTS if not self.has(tp))


def bpf_folder() -> Path:
    """Where the BPF sources are: inside the installed package, or beside it in a checkout."""
    package = Path(str(resources.files("numatrace")))
    inside = package / "_bpf"
    return inside if inside.is_dir() else package.parent / "bpf"


def program_text(plan: Plan) -> str:
    """The whole program, as bcc gets it."""
    folder = bpf_folder()
    names = (*SOURCES, *plan.optional.values())
    return "\n".join((folder / name).read_text() for name in names)
