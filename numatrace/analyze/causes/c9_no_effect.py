"""C9, setting without effect: what was meant to put this right went to the wrong place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze import evidence
from numatrace.analyze.causes import c6_oversubscription, shape
from numatrace.analyze.causes.settings import ineffective
from numatrace.analyze.situation import policy_nodes
from numatrace.model.findings import Evidence, Finding, RuledOut

if TYPE_CHECKING:
    from numatrace.analyze.causes.settings import Ineffective
    from numatrace.analyze.situation import Situation

ID = "C9"
NAME = "setting without effect"
NUMBER = None
EXPLAINS = ()
FIRST_OVER = ("C1", "C8")
"""Causes that it comes before: they are there because the setting did not reach the server."""


def look(situation: Situation) -> Finding | RuledOut:
    """Return the finding: a setting that does nothing, where what it was for is still wrong.

    A setting without effect costs nothing by itself, so it is no finding on a healthy server.
    """
    found = ineffective(situation)
    wanted = [each for each in found if each.certain and _is_wanted(situation, each)]
    if not wanted:
        why = "No setting was seen that goes to the wrong place."
        if found:
            why = f"{found[0].what}: without effect, but nothing that it was for is wrong."
        return RuledOut(ID, NAME, judged=True, why=why)
    return Finding(
        cause=ID,
        name=NAME,
        sentence=f"{wanted[0].what}: {wanted[0].why}.",
        tgid=situation.server.tgid,
        evidence=(
            *(Evidence(f"{each.what}: {each.why}.") for each in wanted),
            Evidence(f"The server's own memory policy is {situation.server.policy or 'unknown'}."),
            evidence.weights_by_node(situation),
            evidence.remote(situation),
        ),
        confidence="high",
        refuted_by="The same setting on the process that loads the model, with no change.",
    )


def comes_first(situation: Situation) -> bool:
    """Whether a client has the policy that the server lacks: then that explains the rest."""
    return not policy_nodes(situation.server.policy) and any(
        each.certain and each.of_client for each in ineffective(situation)
    )


def _is_wanted(situation: Situation, setting: Ineffective) -> bool:
    """Whether what the setting is for is wrong."""
    if setting.is_for == "threads":
        cpus = c6_oversubscription.limit(situation)
        return cpus is not None and situation.threads_used > cpus
    return shape.is_remote(situation) and not situation.policy_nodes
