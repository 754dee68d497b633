"""The situations: how each is set up on two nodes of two CPUs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scenarios.workload import (
    asking,
    drop_page_cache,
    record,
    server_command,
    serving,
    set_balancing,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def two_nodes() -> None:
    """Nothing cached, and nothing that the kernel moves by itself."""
    drop_page_cache()
    set_balancing(0)


@dataclass(frozen=True, slots=True)
class Scenario:
    """How a server is started, and on what kind of machine."""

    id: str
    what: str
    wrapper: tuple[str, ...] = ()
    """Put before the server's command line."""
    options: tuple[str, ...] = ()
    """Options of the server."""
    nodes: int = 2
    prepare: Callable[[], None] = field(default=two_nodes)
    cause: str = ""
    """The first cause that must be named; empty: none."""
    verdict: str = "fix"


SCENARIOS = {
    scenario.id: scenario
    for scenario in (
        Scenario(
            "S1",
            "all weights on one node, threads on both",
            wrapper=("numactl", "--membind=0"),
            options=("--threads", "4"),
            cause="C1",
        ),
        Scenario(
            "S2",
            "threads on the wrong node",
            wrapper=("numactl", "--membind=0", "--cpunodebind=1"),
            options=("--threads", "2"),
            cause="C2",
        ),
        Scenario(
            "S10",
            "healthy, bound",
            wrapper=("numactl", "--membind=0", "--cpunodebind=0"),
            options=("--threads", "2"),
            verdict="healthy",
        ),
        Scenario(
            "S12",
            "one-node machine",
            options=("--threads", "2"),
            nodes=1,
            prepare=lambda: None,
            verdict="one-node",
        ),
    )
}


def run(scenario: Scenario, model: Path, trace: Path, seconds: float) -> None:
    """Set a situation up with this model, and record it under load."""
    scenario.prepare()
    command = [*scenario.wrapper, *server_command(model, *scenario.options)]
    with (
        serving(command, trace.with_suffix(".log")) as server,
        asking(server.url),
    ):
        record(server.pid, trace, seconds)
