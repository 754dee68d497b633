"""What the live view shows at one moment: plain values, with units, that renderers turn to text."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

VERSION = 1
"""Of the JSON lines."""


@dataclass(frozen=True, slots=True)
class Remote:
    """The remote share of the time in memory accesses, over the last seconds."""

    share: float | None = None
    """0 to 1; None where there are too few samples to say."""
    low: float | None = None
    high: float | None = None
    """Of the 95 % interval; None where nothing can be remote."""
    samples: int = 0
    """Samples of which both nodes are known."""


@dataclass(frozen=True, slots=True)
class ThreadLine:
    """A thread, or a worker slot: a place in a pool whose threads are made anew."""

    tgid: int
    tid: int
    """Of a slot: of its first thread."""
    slot: int | None
    """Its place in the pool; None for a thread that was not made anew."""
    name: str
    cpus: float
    """CPU time per second of the last interval."""
    node_share: dict[int, float]
    """Where it ran in the last interval: parts of that time, by node."""
    remote: Remote
    moves_s: float
    """Moves to another node, per second."""
    faults_s: float

    @property
    def main_node(self) -> int | None:
        """The node where it ran longest; the lowest of several."""
        return max(sorted(self.node_share), key=lambda n: self.node_share[n], default=None)


@dataclass(frozen=True, slots=True)
class NodeLine:
    """A NUMA node."""

    node: int
    cpus: float
    """CPU time per second that the followed threads spent on it."""
    share: float
    """The same as a part of the time on all nodes."""
    bytes: int | None
    """Memory of the followed processes on it, pages of shared files once; None: not known yet."""
    model_bytes: int | None
    """Of these, of mapped model files; None where no process maps one, or it is not known yet."""
    free_bytes: int | None


@dataclass(frozen=True, slots=True)
class Overhead:
    """What watching costs, as parts of one CPU, in the last interval."""

    own: float
    """This program and its helpers."""
    probes: float
    """The BPF programs, as last measured."""
    ticks: float
    """The sampling clock's interrupts."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.own + self.probes + self.ticks


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is shown."""

    process: str
    """Name of the first process."""
    pid: int
    processes: int
    threads_alive: int
    host: str
    n_nodes: int
    n_cpus: int
    elapsed_s: float
    every_s: float
    """What was asked for; `interval_s` is what it came to."""
    interval_s: float
    """Length of the interval that the figures per second are of."""
    window_s: float
    """What the remote shares rest on: the last so many seconds."""
    cpus: float
    remote: Remote
    source: str
    """Of the samples: `operand`, `pebs`, `ibs`, `spe`; empty without any."""
    samples_s: float
    moves_s: float
    faults_s: float
    lost: dict[str, int]
    """Events counted and not kept since the beginning, by family."""
    lost_s: float
    overhead: Overhead | None
    nodes: tuple[NodeLine, ...]
    threads: tuple[ThreadLine, ...]
    """Those that ran or were sampled lately, by falling CPU time."""
    others: int = 0
    """Threads that did so beyond those that are kept apart; they count together as thread 0."""
    notes: tuple[str, ...] = field(default=())
    """What is not seen, and why."""

    def to_json(self) -> dict[str, object]:
        """Return the value of a JSON line."""
        return {"version": VERSION, **asdict(self)}
