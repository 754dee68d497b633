"""What the page calls things."""

from __future__ import annotations

from typing import Final

from numatrace.render.origins import ENDINGS, MEANING

WORDS: Final[dict[str, object]] = {
    "verdict": {
        "fix": "Worth fixing",
        "not-worth-fixing": "Not worth fixing",
        "healthy": "Healthy",
        "one-node": "One node",
        "withheld": "No verdict",
    },
    "source": MEANING,
    "rung": {
        "hardware sample": "Measured by the CPU's own samples of memory accesses",
        "operand sample": "Measured by operand samples: the memory operand of the instruction that"
        " a thread was at",
        "placement": "Not measured: shares are expected, from where memory lies and threads ran",
    },
    "ended": ENDINGS | {"": "its end is missing"},
    "phase": {
        "load": "loading",
        "prompt": "prompt",
        "decode": "decoding",
        "compute": "computing: prompt or decoding",
        "idle": "idle",
    },
}
