"""The program that measures, apart from the recorder: it may take much memory, and may be ended.

`python -m numatrace.record.links.worker SECONDS` writes JSON lines: what it is about to do, as
{"progress": TEXT}, and at the end {"links": DOCUMENT}.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from numatrace.record.links.measure import measure_links

OOM_SCORE = Path("/proc/self/oom_score_adj")


def main(seconds: float) -> None:
    """Measure, and write what comes of it."""
    with contextlib.suppress(OSError):  # if memory runs out after all, it is ours that goes
        OOM_SCORE.write_text("1000")

    def say(name: str, value: object) -> None:
        sys.stdout.write(json.dumps({name: value}) + "\n")
        sys.stdout.flush()

    links = measure_links(lambda text: say("progress", text), seconds)
    say("links", links.to_json())


if __name__ == "__main__":
    main(float(sys.argv[1]))
