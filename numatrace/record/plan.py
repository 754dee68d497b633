"""What is traced: the BPF sources, their sizes, and the tracepoints they may or must have."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

SOURCES = ("target.h", "fault.bpf.c", "sched.bpf.c", "balance.bpf.c")
"""In this order they make one program text: bcc rewrites only its main file, so they are joined,
not included."""

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
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Compile-time constants of one recording."""

    follow: bool = True
    fault_ring_pages: int = 256
    sched_ring_pages: int = 256
    max_threads: int = 32_768
    max_procs: int = 4_096
    tracefs: Path = field(default=TRACEFS)

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


def program_text() -> str:
    """The whole program, as bcc gets it."""
    folder = bpf_folder()
    return "\n".join((folder / name).read_text() for name in SOURCES)
