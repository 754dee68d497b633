"""The situations: how each is set up, on a machine of several nodes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from scenarios.ollama import CLI_FOLDER, ollama_command
from scenarios.pool import pooling
from scenarios.setups import cgroup, filled, neighbours, read_by
from scenarios.workload import (
    SCRIPTS,
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

    Around = Callable[[Path], AbstractContextManager[tuple[str, ...]]]
    """Given the model, sets something up, and gives what to put before the server's command."""

MIB = 1 << 20

MACHINES: dict[str, tuple[str, ...]] = {
    "host": (),
    "two nodes": ("--nodes", "2"),
    "four nodes": (
        *("--nodes", "4", "--cpus-per-node", "1", "--memory-per-node", "1G"),
        *("--distances", "10,12,20,32;12,10,32,20;20,32,10,12;32,20,12,10"),
    ),
    "small nodes": ("--nodes", "2", "--memory-per-node", "768M"),
    "memory-only node": ("--nodes", "3", "--cpus-per-node", "2,2,0", "--memory-per-node", "1G"),
}
"""Options of scripts/numa-vm; two CPUs on each node unless it says otherwise."""


def quiet() -> None:
    """Nothing cached, and nothing that the kernel moves by itself."""
    drop_page_cache()
    set_balancing(0)


def balancing() -> None:
    """Nothing cached, and the kernel's NUMA balancing on."""
    drop_page_cache()
    set_balancing(1)


@contextlib.contextmanager
def alone(_: Path) -> Iterator[tuple[str, ...]]:
    """Nothing else is set up."""
    yield ()


def leaving(**free_mib: int) -> Around:
    """Little free memory on some nodes: `node0=45` leaves 45 MiB on node 0."""

    @contextlib.contextmanager
    def around(_: Path) -> Iterator[tuple[str, ...]]:
        with filled({int(name[4:]): mib * MIB for name, mib in free_mib.items()}):
            yield ()

    return around


def read_before(*parts: tuple[int, float]) -> Around:
    """The model's file was read before: its first part on the first node named, and so on."""

    @contextlib.contextmanager
    def around(model: Path) -> Iterator[tuple[str, ...]]:
        read_by(model, parts)
        yield ()

    return around


@contextlib.contextmanager
def competing(_: Path) -> Iterator[tuple[str, ...]]:
    """Neighbours that wake and sleep: those of one node work while those of the other sleep."""
    with neighbours(((0, 1), (2, 3))):
        yield ()


def in_cgroup(cpus: str, mems: str) -> Around:
    """The server is in a cgroup of its own with this cpuset."""

    @contextlib.contextmanager
    def around(_: Path) -> Iterator[tuple[str, ...]]:
        with cgroup(cpus, mems) as wrapper:
            yield wrapper

    return around


@dataclass(frozen=True, slots=True)
class Ready:
    """What is to be recorded, and under which load."""

    pids: tuple[int, ...]
    load: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext

    def record(self, trace: Path, seconds: float, *options: str) -> str:
        """Record it; returns what was said."""
        pid, *others = self.pids
        more = [word for other in others for word in ("-p", str(other))]
        return record(pid, trace, seconds, *more, *options, load=self.load)


@contextlib.contextmanager
def answering(scenario: Scenario, model: Path, log: Path) -> Iterator[Ready]:
    """The server, with one request after the other."""
    with serving(scenario.served(model), log) as server:
        yield Ready((server.pid,), lambda: asking(server.url, scenario.client))


@contextlib.contextmanager
def idle(scenario: Scenario, model: Path, log: Path) -> Iterator[Ready]:
    """The server, and nobody who asks it anything."""
    with serving(scenario.served(model), log) as server:
        yield Ready((server.pid,))


@contextlib.contextmanager
def with_storm(scenario: Scenario, model: Path, log: Path) -> Iterator[Ready]:
    """The server, and beside it a process that faults as fast as it can."""
    with idle(scenario, model, log) as ready, fault_storm() as storm:
        yield Ready((*ready.pids, storm))


@contextlib.contextmanager
def in_graphs(scenario: Scenario, model: Path, log: Path) -> Iterator[Ready]:
    """A pool that makes its workers anew for every graph, in place of a server."""
    with pooling(scenario.wrapper, model, log) as workload:
        yield Ready((workload.pid,))


@dataclass(frozen=True, slots=True)
class Scenario:
    """How a server is started, on what kind of machine, and what the report has to say."""

    id: str
    what: str
    wrapper: tuple[str, ...] = ()
    """Put before the server's command line."""
    options: tuple[str, ...] = ()
    """Options of the server."""
    client: tuple[str, ...] = ()
    """Put before the client's command line."""
    machine: str = "two nodes"
    type: str = "F16"
    """Of the model's weights: Q4_0 is repacked into private memory."""
    model_mb: int = 24
    prepare: Callable[[], None] = field(default=quiet)
    around: Around = field(default=alone)
    command: Callable[..., list[str]] = server_command
    """Makes the server's command line from the model and the options."""
    load: Callable[[Scenario, Path, Path], AbstractContextManager[Ready]] = answering
    record_options: tuple[str, ...] = ()
    cause: tuple[str, ...] = ()
    """The first cause that must be named: any of these; empty: none."""
    also: tuple[str, ...] = ()
    """Causes that may be named after it."""
    verdict: str = "fix"
    programs: str = ""
    """Folder beside the model with programs that the fix calls."""

    def served(self, model: Path) -> list[str]:
        """The server's command line with all that is put before it."""
        return [*self.wrapper, *self.command(model, *self.options)]

    def model_in(self, folder: Path) -> Path:
        """The model that it serves, written unless it is there."""
        model = folder / f"model-{self.type}-{self.model_mb}.gguf"
        if not model.exists():
            command = [sys.executable, str(SCRIPTS / "make-model"), str(model)]
            command += ["--size-mb", str(self.model_mb), "--type", self.type]
            subprocess.run(command, check=True, stdout=sys.stderr)
        return model


def old_ollama(model: Path, *options: str) -> list[str]:
    """Ollama before 0.30: `ollama serve` runs `ollama runner`."""
    return ollama_command("0.24", model, *options)


def new_ollama(model: Path, *options: str) -> list[str]:
    """Ollama since 0.30: `ollama serve` runs `llama-server`."""
    return ollama_command("0.30", model, *options)


ALL_ON_NODE_0 = ("numactl", "--membind=0")
BOUND_TO_NODE_0 = ("numactl", "--membind=0", "--cpunodebind=0")
FOUR, TWO, ONE = ("--threads", "4"), ("--threads", "2"), ("--threads", "1")

SCENARIOS = {
    scenario.id: scenario
    for scenario in (
        Scenario(
            "S1",
            "all weights on one node, threads on both",
            wrapper=ALL_ON_NODE_0,
            options=FOUR,
            cause=("C1",),
        ),
        Scenario(
            "S2",
            "threads on the wrong node",
            wrapper=("numactl", "--membind=0", "--cpunodebind=1"),
            options=TWO,
            cause=("C2",),
        ),
        Scenario(
            "S3",
            "the active node is too small",
            wrapper=("numactl", "--cpunodebind=0"),
            options=TWO,
            around=leaving(node0=60),
            cause=("C3",),
        ),
        Scenario(
            "S4",
            "threads hop between nodes",
            options=TWO,
            around=competing,
            cause=("C4",),
        ),
        Scenario(
            "S5",
            "container isolation: CPUs of one node, memory of the other",
            options=TWO,
            around=in_cgroup("0-1", "1"),
            cause=("C5",),
        ),
        Scenario(
            "S6",
            "more threads than CPUs",
            options=FOUR,
            around=in_cgroup("0-1", "0"),
            cause=("C6",),
        ),
        Scenario(
            "S7",
            "page cache from an earlier reader on the other node",
            wrapper=BOUND_TO_NODE_0,
            options=TWO,
            around=read_before((1, 1.0)),
            cause=("C7",),
        ),
        Scenario(
            "S8",
            "repacked weights on the loader's node, threads on both",
            options=FOUR,
            type="Q4_0",
            around=read_before((0, 0.5), (1, 0.5)),
            cause=("C8",),
        ),
        Scenario(
            "S9",
            "the policy went to the client, and the server has none",
            options=FOUR,
            client=("numactl", "--interleave=all"),
            around=read_before((0, 1.0)),
            cause=("C9",),
            also=("C1",),
        ),
        Scenario(
            "S10",
            "healthy, bound",
            wrapper=BOUND_TO_NODE_0,
            options=TWO,
            verdict="healthy",
        ),
        Scenario(
            "S11",
            "healthy, spread: the model is larger than a node",
            wrapper=("numactl", "--interleave=all"),
            options=(*FOUR, "--numa", "distribute"),
            machine="small nodes",
            type="F32",
            model_mb=850,
            verdict="healthy",
        ),
        Scenario(
            "S12",
            "one-node machine",
            options=TWO,
            machine="host",
            prepare=lambda: None,
            verdict="one-node",
        ),
        Scenario(
            "S13",
            "idle server",
            wrapper=ALL_ON_NODE_0,
            options=FOUR,
            load=idle,
            verdict="withheld",
        ),
        Scenario(
            "S14",
            "all weights on one node, and balancing is on",
            wrapper=ALL_ON_NODE_0,
            options=FOUR,
            prepare=balancing,
            cause=("C1",),
        ),
        Scenario(
            "S15",
            "private weights on one node, threads on both",
            wrapper=ALL_ON_NODE_0,
            options=(*FOUR, "--no-mmap"),
            cause=("C1", "C8"),
        ),
        Scenario(
            "S16",
            "four nodes, uneven distances, weights on the farthest",
            wrapper=("numactl", "--physcpubind=0", "--membind=3"),
            options=ONE,
            machine="four nodes",
            cause=("C1", "C2"),
        ),
        Scenario(
            "S17",
            "a node with memory and no CPU holds much of the weights",
            options=FOUR,
            machine="memory-only node",
            around=read_before((0, 0.15), (1, 0.15), (2, 0.7)),
            cause=("C1",),
        ),
        Scenario(
            "S20-old",
            "Ollama before 0.30, all weights on one node",
            wrapper=ALL_ON_NODE_0,
            command=old_ollama,
            cause=("C1",),
            programs=f"ollama-0.24/{CLI_FOLDER}",
        ),
        Scenario(
            "S20-new",
            "Ollama since 0.30, all weights on one node",
            wrapper=ALL_ON_NODE_0,
            command=new_ollama,
            cause=("C1",),
        ),
        Scenario(
            "S21",
            "worker threads made anew for every token, all weights on one node",
            wrapper=ALL_ON_NODE_0,
            load=in_graphs,
            record_options=("-F", "97"),
            cause=("C1",),
        ),
        Scenario(
            "S22",
            "losses: small ring buffers under a fault storm",
            wrapper=ALL_ON_NODE_0,
            options=FOUR,
            load=with_storm,
            record_options=("--ring-pages", "1"),
            verdict="withheld",
        ),
    )
}


@contextlib.contextmanager
def set_up(scenario: Scenario, model: Path) -> Iterator[Scenario]:
    """Make the machine what the situation says, until the block ends; gives the whole scenario."""
    scenario.prepare()
    with scenario.around(model) as extra:
        yield replace(scenario, wrapper=(*extra, *scenario.wrapper))


def run(scenario: Scenario, model: Path, trace: Path, seconds: float) -> str:
    """Set a situation up with this model, and record it under load; returns what was said."""
    log = trace.with_suffix(".log")
    with set_up(scenario, model) as whole, whole.load(whole, model, log) as ready:
        return ready.record(trace, seconds, *scenario.record_options)
