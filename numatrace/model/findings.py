"""What a report concludes: the verdict, causes with their evidence, plans that were weighed, fixes.

See report.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from numatrace.model.measured import Figure

VerdictKind = Literal["fix", "not-worth-fixing", "healthy", "one-node", "withheld"]
Confidence = Literal["high", "medium", "low"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """One observation that speaks for a finding or a verdict."""

    text: Annotated[str, "one sentence, with the figures written out"]
    figures: Annotated[tuple[Figure, ...], "the same figures, for programs"] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a fix."""

    command: Annotated[str, "one shell command, quoted; `sudo` may be put before it"]
    why: Annotated[str, "what it does, in one sentence"]
    needs_root: Annotated[bool, "whether it must be run as root"] = False
    stays: Annotated[
        bool, "whether it runs as long as the server does: give it a terminal of its own"
    ] = False


@dataclass(frozen=True, slots=True)
class Fix:
    """Commands that put a finding right, for this machine, this process and how it is run."""

    id: Annotated[str, "stable name: plan and deployment, such as `bind/systemd`"]
    deployment: Annotated[str, "how the server is run: `by hand`, `systemd`, `docker`, …"]
    title: Annotated[str, "what the fix brings about"]
    steps: Annotated[tuple[Step, ...], "in the order to run them"]
    verify: Annotated[tuple[Step, ...], "how to see that it worked"]
    undo: Annotated[tuple[Step, ...], "how to go back to the state before"]
    notes: Annotated[tuple[str, ...], "what to know before running it"] = ()
    lint: Annotated[tuple[str, ...], "the checks that it passed, each with its numbers"] = ()
    plan: Annotated[str, "id of the plan that it carries out, as in `plans`"] = ""


@dataclass(frozen=True, slots=True)
class PlanView:
    """A placement that was weighed: what it would bring about, and why it was or was not chosen."""

    id: Annotated[str, "stable name: what it does and where, such as `bind:0`, `interleave:0-1`"]
    title: Annotated[str, "what it brings about, in a few words"]
    chosen: Annotated[bool, "whether it is the one that the fix carries out"]
    remote_share: Annotated[Figure | None, "predicted remote share of the reads of weights"]
    node_bytes: Annotated[dict[int, int], "predicted bytes of weights on each node"]
    speedup: Annotated[
        Figure | None, "predicted tokens per second as a multiple of today's, with its range"
    ]
    assumptions: Annotated[tuple[str, ...], "what the prediction rests on"] = ()
    why_not: Annotated[str, "why it was not chosen; empty for the chosen one"] = ""
    lint: Annotated[tuple[str, ...], "the checks that it failed, each with its numbers"] = ()


@dataclass(frozen=True, slots=True)
class DocumentCheck:
    """The check that the circulating guides give for a cause, answered from the trace."""

    number: Annotated[int, "the guides' number of the cause, 1 to 5"]
    name: Annotated[str, "the guides' name of the cause"]
    command: Annotated[str, "the command with which they have one look"]
    shows: Annotated[tuple[str, ...], "what it would have shown, line by line, from the trace"]


@dataclass(frozen=True, slots=True)
class RuledOut:
    """A cause that was looked for: not there, or not to be judged from this trace."""

    cause: Annotated[str, "stable id of the cause"]
    name: Annotated[str, "its name in a few words"]
    judged: Annotated[bool, "false where this trace cannot tell"]
    why: Annotated[str, "what speaks against it, or why it cannot be judged, in one sentence"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A cause of lost time that the trace shows."""

    cause: Annotated[str, "stable id of the cause: `C1`, `C2`, …"]
    name: Annotated[str, "its name in a few words"]
    sentence: Annotated[str, "what is wrong here, in one or two sentences"]
    tgid: Annotated[int, "process that it is about"]
    evidence: Annotated[tuple[Evidence, ...], "what shows it"]
    confidence: Annotated[Confidence, "how sure it is"]
    fixes: Annotated[tuple[Fix, ...], "linted fixes, the preferred one first; may be empty"] = ()
    notes: Annotated[tuple[str, ...], "why a fix was refused, and other things to know"] = ()
    lost_ns: Annotated[
        Figure | None, "CPU time of the compute threads that it costs; null when unknown"
    ] = None
    document: Annotated[DocumentCheck | None, "the guides' own check for it"] = None
    refuted_by: Annotated[str, "what one would have to see for it not to be this"] = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer in one sentence."""

    kind: Annotated[VerdictKind, "`fix`, `not-worth-fixing`, `healthy`, `one-node` or `withheld`"]
    sentence: Annotated[str, "the answer"]
    reasons: Annotated[tuple[Evidence, ...], "what it rests on, or what to do about it"] = ()
