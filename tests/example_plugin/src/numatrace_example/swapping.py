"""A cause: the machine swapped while the server computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.model.findings import Evidence, Finding, Fix, RuledOut, Step
from numatrace.model.measured import Figure
from numatrace.model.units import PAGE_BYTES, format_bytes

if TYPE_CHECKING:
    from numatrace.analyze.situation import Situation

ID = "EX-SWAP"
NAME = "swapping"
NUMBER = None
EXPLAINS = ()

MANY_BYTES = 64 << 20
"""Less than this in a recording is what a machine swaps now and then."""


def look(situation: Situation) -> Finding | RuledOut:
    """Return the finding: pages came back from swap while the server was recorded."""
    pages = situation.growth.pages("pswpin")
    if pages is None:
        return RuledOut(ID, NAME, judged=False, why="The trace has no counters of swapping.")
    swapped = pages * PAGE_BYTES
    if swapped < MANY_BYTES:
        return RuledOut(ID, NAME, judged=True, why=f"Only {format_bytes(swapped)} were read back.")
    return Finding(
        cause=ID,
        name=NAME,
        sentence=f"The machine read {format_bytes(swapped)} back from swap while it was recorded.",
        tgid=situation.server.tgid,
        evidence=(
            Evidence(
                f"pswpin of /proc/vmstat grew by {pages:,} pages.",
                (Figure(swapped, "bytes", "counter"),),
            ),
        ),
        confidence="low",
        fixes=(
            Fix(
                id="swappiness",
                deployment=situation.deployment,
                title="swap as late as possible",
                steps=(
                    Step(
                        "sysctl -w vm.swappiness=1", "Keep private pages longer.", needs_root=True
                    ),
                ),
                verify=(Step("grep pswpin /proc/vmstat", "It should stop growing."),),
                undo=(Step("sysctl -w vm.swappiness=60", "The usual value.", needs_root=True),),
            ),
        ),
        refuted_by="Counters that stand still while the server answers.",
    )
