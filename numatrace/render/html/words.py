"""What the page calls things."""

from __future__ import annotations

from typing import Final

WORDS: Final[dict[str, object]] = {
    "verdict": {
        "fix": "Worth fixing",
        "not-worth-fixing": "Not worth fixing",
        "healthy": "Healthy",
        "one-node": "One node",
        "withheld": "No verdict",
    },
    "source": {
        "placement": "the kernel's answer to where pages lie (move_pages in query mode)",
        "counter": "counted exactly, by the kernel or in it",
        "event": "traced events, each with its time",
        "model": "computed from other figures; not measured",
        "hardware sample": "memory accesses that the CPU sampled",
        "operand sample": "memory accesses worked out from sampled instructions",
    },
    "rung": {
        "hardware sample": "Measured by the CPU's own samples of memory accesses",
        "operand sample": "Measured by operand samples: the memory operand of the instruction that"
        " a thread was at",
        "placement": "Not measured: shares are expected, from where memory lies and threads ran",
    },
    "ended": {
        "interrupted": "interrupted",
        "time": "its time was up",
        "targets": "no target was left",
        "": "its end is missing",
    },
    "phase": {
        "load": "loading",
        "prompt": "prompt",
        "decode": "decoding",
        "compute": "computing: prompt or decoding",
        "idle": "idle",
    },
}
