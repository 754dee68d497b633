"""Steps that go through Ollama's own client: unload a model, change a parameter of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.commandline import ollama_blob
from numatrace.analyze.fixes.quoting import RefusedError, shell
from numatrace.model.findings import Step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numatrace.analyze.situation import Situation

BEFORE = "-before-numatrace"
"""Added to a model's name for the copy of it as it was."""


def find_step(situation: Situation, client: str) -> Step:
    """Return the step that finds the model's name, and keeps it as $model in this shell.

    The trace holds the model's file only. Raises RefusedError for one that is not Ollama's own.
    """
    digest = ollama_blob(situation.server)
    if digest is None:
        raise RefusedError("the model's file is not one that Ollama keeps itself")
    return Step(
        f"model=\"$({client} list | awk 'NR > 1 {{ print $1 }}' | grep -v -e {shell(BEFORE + '$')}"
        " | while read -r name; do"
        f' if {client} show --modelfile "$name" </dev/null | grep -q -F -e {digest};'
        ' then echo "$name"; break; fi; done)" && test -n "$model" && echo "$model"',
        "Find the model's name by its file; it is kept as $model in this shell.",
    )


def parameter_steps(
    situation: Situation, parameters: Mapping[str, str], client: str
) -> tuple[Step, ...]:
    """Return the steps that set parameters of the model for good; none for none.

    `client` is the command that reaches Ollama's client: its words are quoted already.
    """
    if not parameters:
        return ()
    lines = "".join(f"PARAMETER {name} {value}\\n" for name, value in parameters.items())
    said = ", ".join(f"{name} {value}" for name, value in parameters.items())
    return (
        find_step(situation, client),
        Step(
            f'{client} cp "$model" "$model{BEFORE}"',
            "Keep the model as it is under another name; nothing is copied but its description.",
        ),
        Step(
            f'printf \'FROM %s\\n{lines}\' "$model" | {_piped(client)} create "$model"'
            " -f /dev/stdin",
            f"Set {said} in the model; it counts from the next time that it is loaded.",
        ),
    )


def parameter_undo(
    situation: Situation, parameters: Mapping[str, str], client: str
) -> tuple[Step, ...]:
    """Return the steps that take `parameter_steps` back."""
    if not parameters:
        return ()
    return (
        find_step(situation, client),
        Step(
            f'{client} cp "$model{BEFORE}" "$model" && {client} rm "$model{BEFORE}"',
            "Put the model back as it was.",
        ),
    )


def unload_steps(situation: Situation, client: str) -> tuple[Step, ...]:
    """Return the steps that unload the model while Ollama goes on running."""
    return (
        find_step(situation, client),
        Step(f'{client} stop "$model"', "Unload it: pages in use cannot be dropped."),
    )


def client_here(situation: Situation) -> str:
    """Return the command for Ollama's client on this machine, with the address it needs."""
    host = situation.root.environment.get("OLLAMA_HOST", "")
    return f"env OLLAMA_HOST={shell(host)} ollama" if host else "ollama"


def _piped(client: str) -> str:
    # docker and podman give a command no standard input without -i.
    return client.replace(" exec ", " exec -i ", 1) if " exec " in client else client
