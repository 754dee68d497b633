"""The situations: how each is set up on two nodes of two CPUs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scenarios.ollama import ollama_command
from scenarios.pool import pooling
from scenarios.workload import (
    asking,
    drop_page_cache,
    fault_storm,
    record,
    server_command,
    serving,
    set_balancing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path


def two_nodes() -> None:
    """Nothing cached, and nothing that the kernel moves by itself."""
    drop_page_cache()
    set_balancing(0)


@contextlib.contextmanager
def answering(scenario: Scenario, model: Path, log: Path) -> Iterator[tuple[int, ...]]:
    """The server, with one request after the other; gives the processes to record."""
    with serving(scenario.served(model), log) as server, asking(server.url):
        yield (server.pid,)


@contextlib.contextmanager
def idle(scenario: Scenario, model: Path, log: Path) -> Iterator[tuple[int, ...]]:
    """The server, and nobody who asks it anything."""
    with serving(scenario.served(model), log) as server:
        yield (server.pid,)


@contextlib.contextmanager
def with_storm(scenario: Scenario, model: Path, log: Path) -> Iterator[tuple[int, ...]]:
    """The server, and beside it a process that faults as fast as it can."""
    with idle(scenario, model, log) as pids, fault_storm() as storm:
        yield (*pids, storm)


@contextlib.contextmanager
def in_graphs(scenario: Scenario, model: Path, log: Path) -> Iterator[tuple[int, ...]]:
    """A pool that makes its workers anew for every graph, in place of a server."""
    with pooling(scenario.wrapper, model, log) as workload:
        yield (workload.pid,)


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
    command: Callable[..., list[str]] = server_command
    """Makes the server's command line from the model and the options."""
    load: Callable[[Scenario, Path, Path], AbstractContextManager[tuple[int, ...]]] = answering
    record_options: tuple[str, ...] = ()
    cause: str = ""
    """The first cause that must be named; empty: none."""
    verdict: str = "fix"

    def served(self, model: Path) -> list[str]:
        """The server's command line with all that is put before it."""
        return [*self.wrapper, *self.command(model, *self.options)]


def old_ollama(model: Path, *options: str) -> list[str]:
    """Ollama before 0.30: `ollama serve` runs `ollama runner`."""
    return ollama_command("0.24", model, *options)


def new_ollama(model: Path, *options: str) -> list[str]:
    """Ollama since 0.30: `ollama serve` runs `llama-server`."""
    return ollama_command("0.30", model, *options)


ALL_ON_NODE_0 = ("numactl", "--membind=0")

SCENARIOS = {
    scenario.id: scenario
    for scenario in (
        Scenario(
            "S1",
            "all weights on one node, threads on both",
            wrapper=ALL_ON_NODE_0,
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
        Scenario(
            "S13",
            "idle server",
            wrapper=ALL_ON_NODE_0,
            options=("--threads", "4"),
            load=idle,
            verdict="withheld",
        ),
        Scenario(
            "S20-old",
            "Ollama before 0.30, all weights on one node",
            wrapper=ALL_ON_NODE_0,
            command=old_ollama,
            cause="C1",
        ),
        Scenario(
            "S20-new",
            "Ollama since 0.30, all weights on one node",
            wrapper=ALL_ON_NODE_0,
            command=new_ollama,
            cause="C1",
        ),
        Scenario(
            "S21",
            "worker threads made anew for every token, all weights on one node",
            wrapper=ALL_ON_NODE_0,
            load=in_graphs,
            record_options=("-F", "499"),
            cause="C1",
        ),
        Scenario(
            "S22",
            "losses: small ring buffers under a fault storm",
            wrapper=ALL_ON_NODE_0,
            options=("--threads", "4"),
            load=with_storm,
            record_options=("--ring-pages", "1"),
            verdict="withheld",
        ),
    )
}


def run(scenario: Scenario, model: Path, trace: Path, seconds: float) -> str:
    """Set a situation up with this model, and record it under load; returns what was said."""
    scenario.prepare()
    with scenario.load(scenario, model, trace.with_suffix(".log")) as (pid, *others):
        more = [word for other in others for word in ("-p", str(other))]
        return record(pid, trace, seconds, *more, *scenario.record_options)
