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
