"""Settings in the trace that do nothing where they were made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from numatrace.analyze.situation import nodes_of, policy_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.analyze.situation import Situation
    from numatrace.model.process import Process

WRAPPERS = ("numactl", "taskset")
SHOWN = 80
"""Characters of a command line that a sentence quotes."""
NO_SUCH_VARIABLES: dict[str, tuple[Literal["placement", "threads"], str]] = {
    "OLLAMA_NUM_THREADS": ("threads", "Ollama has no such variable"),
    "OLLAMA_NUM_THREAD": ("threads", "Ollama has no such variable"),
    "OLLAMA_NUMA": ("placement", "Ollama has no such variable"),
    "GGML_NUMA": ("placement", "ggml has no such variable"),
    "LLAMA_NUMA": ("placement", "llama.cpp has no such variable"),
}
"""Variables that circulate in guides and that no version reads."""
LLAMA_VARIABLES: dict[str, Literal["placement", "threads"]] = {
    "LLAMA_ARG_NUMA": "placement",
    "LLAMA_ARG_THREADS": "threads",
}
NUMA_VALUES = ("distribute", "isolate", "numactl")
"""Values of --numa that llama.cpp knows; `mirror` and others were never merged."""
NUMA_OPTION = re.compile(r"[\"']numa[\"']\s*:\s*true")
"""The option of Ollama's API in a client's command line."""


@dataclass(frozen=True, slots=True)
class Ineffective:
    """A setting, why it does nothing, and what it was for."""

    what: str
    why: str
    is_for: Literal["placement", "threads"]
    of_client: bool = False
    certain: bool = True
    """Whether it was surely meant for the server."""


def ineffective(situation: Situation) -> list[Ineffective]:
    """Return the settings without effect; texts quote names as they are: escape them."""
    found = [
        *_client_policies(situation),
        *_client_options(situation),
        *_variables(situation),
        *_numa_values(situation.server),
    ]
    return list(dict.fromkeys(found))


def _client_policies(situation: Situation) -> Iterator[Ineffective]:
    server = situation.server
    for client in situation.clients:
        policy = policy_nodes(client.policy)
        if (policy or _is_wrapper(client)) and client.policy != server.policy:
            setting = f"memory policy {client.policy[:SHOWN]}" if policy else client.argv[0]
            yield Ineffective(
                f"{_name(client)} runs under {setting}",
                f"it only sends requests; the server, pid {server.tgid}, takes the memory",
                "placement",
                of_client=True,
            )
        elif _is_narrower(situation, client):
            yield Ineffective(
                f"{_name(client)} is tied to some of the nodes' CPUs",
                f"it only sends requests; the server, pid {server.tgid}, computes",
                "placement",
                of_client=True,
                certain=_basename(client) == "ollama",
            )


def _client_options(situation: Situation) -> Iterator[Ineffective]:
    if situation.root.tgid == situation.server.tgid:
        return
    for client in situation.clients:
        if any(NUMA_OPTION.search(argument) for argument in client.argv):
            yield Ineffective(
                f"{_name(client)} asks for the option numa",
                "Ollama has ignored it since 0.3.4",
                "placement",
                of_client=True,
            )


def _variables(situation: Situation) -> Iterator[Ineffective]:
    old = situation.root.tgid != situation.server.tgid and _is_before_llama_server(situation.server)
    for process in {each.tgid: each for each in (situation.root, situation.server)}.values():
        for name, value in process.environment.items():
            if name in NO_SUCH_VARIABLES:
                is_for, why = NO_SUCH_VARIABLES[name]
                yield Ineffective(f"{name}={value[:SHOWN]} is set", why, is_for)
            elif name in LLAMA_VARIABLES and old:
                why = "Ollama before 0.30 has no llama-server that would read it"
                yield Ineffective(f"{name}={value[:SHOWN]} is set", why, LLAMA_VARIABLES[name])


def _numa_values(server: Process) -> Iterator[Ineffective]:
    values = [
        new for old, new in zip(server.argv, server.argv[1:], strict=False) if old == "--numa"
    ]
    values += [each.removeprefix("--numa=") for each in server.argv if each.startswith("--numa=")]
    for value in values[-1:]:
        if value not in NUMA_VALUES:
            yield Ineffective(
                f"The server was started with --numa {value[:SHOWN]}",
                f"llama.cpp knows {', '.join(NUMA_VALUES)} only",
                "placement",
            )


def _is_before_llama_server(server: Process) -> bool:
    """Whether it is an inference process of Ollama before 0.30."""
    return server.argv[1:2] == ("runner",) or "ollama_llama_server" in (
        _basename(server),
        server.exe.rpartition("/")[2],
    )


def _is_wrapper(client: Process) -> bool:
    return bool(client.argv) and _basename(client) in WRAPPERS


def _is_narrower(situation: Situation, client: Process) -> bool:
    """Whether a client is tied to fewer nodes than the server, which is tied to none."""
    nodes = nodes_of(situation.topology, client.cpus_allowed)
    everywhere = set(situation.topology.nodes_with_cpus)
    return bool(nodes) and set(nodes) < everywhere and not situation.confined_to


def _basename(process: Process) -> str:
    return (process.argv[0] if process.argv else process.comm).rpartition("/")[2]


def _name(client: Process) -> str:
    words = " ".join(client.argv[:3])[:SHOWN]
    return f"The client {words or client.comm} (pid {client.tgid})"
