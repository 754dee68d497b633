"""What a recording says of itself, while it runs and at its end."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Status:
    """Where a recording stands."""

    elapsed_s: float
    rows: dict[str, int]
    """Rows in the trace, by kind."""
    faults: int
    """Page faults counted, also those that share a row."""
    lost: dict[str, int]
    """Events counted and not kept, by family."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Overhead:
    """What a recording cost, in CPU time per second; and the samples it got for that."""

    used_cpus: float
    """CPU time of the followed processes themselves."""
    recorder_cpus: float
    """Of the recorder, and of perf where it samples."""
    program_cpus: float
    """Run time of the BPF programs, the sampling one apart."""
    tick_cpus: float
    """Of the clock interrupts that hit them, with the sampling program."""
    samples_per_s: float
    helpers_s: float
    """CPU time, not per second, of helpers that give way to everybody else: they read a model's
    table and decode code, once."""

    @property
    def share(self) -> float:
        """Of the CPU time that the followed processes used, or of one CPU if that was less."""
        cost = self.recorder_cpus + self.program_cpus + self.tick_cpus
        return cost / max(1.0, self.used_cpus)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How memory accesses were sampled."""

    source: str
    period_ns: int
    """At the end: between two ticks of a CPU's clock."""
    cpus: int
    samples: int
    lost: int
    budget: float | None
    """The share of CPU time that it was to stay below; None where the rate was fixed."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a recording came to."""

    status: Status
    reason: str
    """Why it ended: interrupted, time, targets or command."""
    output: str
    startup_cpu_s: float
    """CPU time of the recorder until it was attached, user and system: imports and the compiler."""
    recording_cpu_s: float
    """CPU time of the recorder and its helpers from then to the end of the recording."""
    recorder_peak_bytes: int
    """Largest resident memory of the recorder, bcc's compiler included."""
    attached_s: float
    """From the start of the command until the targets' events were being recorded."""
    first_event_s: float | None
    """From the start of the command to the first single event in hand; None if none came."""
    server: str
    """Which process serves the model, and why it was taken for that."""
    notes: tuple[str, ...] = field(default=())
    overhead: Overhead | None = None
    sampling: Sampling | None = None
    """None: memory accesses were not sampled."""
