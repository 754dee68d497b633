"""Where a setting goes: option, variable or model parameter, by program and version.

Which program takes what was read in the sources of Ollama 0.3 to 0.33 and of llama.cpp's
common/arg.cpp. An option wins over its variable, and Ollama hands its environment to the
llama-server that it starts since 0.30; what it started before takes none of these variables.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from numatrace.analyze.commandline import (
    LOAD_MODE,
    MAPPING,
    NO_REPACK,
    NUMA,
    NUMA_VARIABLE,
    REPINNING,
    THREADS_VARIABLE,
    is_llama_cpp,
    ollama_blob,
    option,
    sets_threads_by_variable,
    with_option,
    with_threads,
    without_repinning,
    without_words,
)
from numatrace.analyze.fixes.quoting import RefusedError

if TYPE_CHECKING:
    from numatrace.analyze.plans.plan import Plan
    from numatrace.analyze.situation import Situation
    from numatrace.model.process import Process

Family = Literal["llama.cpp", "ollama", "ollama-runner", "other"]
"""llama.cpp's own program; `ollama serve` with a llama-server (since 0.30) or with a runner of its
own (before); any other program."""

NO_REPACK_VARIABLE = "LLAMA_ARG_NO_REPACK"
"""Of old builds, and of all newer ones for compatibility; LLAMA_ARG_REPACK is newer only."""
NO_MMAP_VARIABLE = "LLAMA_ARG_NO_MMAP"
LOAD_MODE_VARIABLE = "LLAMA_ARG_LOAD_MODE"
WITHOUT_NO_MMAP = 10_875
"""llama.cpp's first build without --no-mmap (PR #28334); --load-mode is there somewhat longer."""
NUMA_BY_ITSELF = ((0, 3, 4), (0, 3, 14))
"""Versions of Ollama that passed --numa to the runner by themselves: from, and first without."""
LLAMA_BUILD = re.compile(r"b?([0-9]{1,6})(?![0-9.])")
OLLAMA_VERSION = re.compile(r"v?([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})(?![0-9])")

FLAGS = ("--no-repack", "--no-mmap")
VARIABLES = {
    "-t": THREADS_VARIABLE,
    "--numa": NUMA_VARIABLE,
    "--load-mode": LOAD_MODE_VARIABLE,
    "--no-repack": NO_REPACK_VARIABLE,
    "--no-mmap": NO_MMAP_VARIABLE,
}
"""Options that `changes` may add to a command line, by what sets the same."""


@dataclass(slots=True)
class Changes:
    """What is to be different when the server is started again, and what to know about it."""

    argv: list[str]
    """Command line of the process whose start settings count."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables to set for it."""
    parameters: dict[str, str] = field(default_factory=dict)
    """Parameters of the model that Ollama keeps (Modelfile)."""
    notes: list[str] = field(default_factory=list)


def family(situation: Situation) -> Family:
    """Tell what takes the settings, from the processes alone."""
    server, root = situation.server, situation.root
    if root.tgid == server.tgid:
        return "llama.cpp" if is_llama_cpp(server.argv) else "other"
    if is_llama_cpp(server.argv) and _name(server) != "ollama_llama_server":
        return "ollama"
    return "ollama-runner"


def build(process: Process) -> int | None:
    """Return the number of the llama.cpp build, or None."""
    found = LLAMA_BUILD.fullmatch(process.version)
    return int(found[1]) if found else None


def ollama_version(process: Process) -> tuple[int, ...] | None:
    """Return the version of `ollama serve` as numbers, or None."""
    found = OLLAMA_VERSION.match(process.version)
    return tuple(map(int, found.groups())) if found else None


def changes(situation: Situation, plan: Plan, *, own_copy: bool = False) -> Changes:
    """Return what the plan changes in how the server is started.

    `own_copy` has the server read its weights into memory of its own instead of mapping the file.
    Raises RefusedError where this version of the program has no such setting.
    """
    found = Changes(list(situation.root.argv))
    kind = family(situation)
    if plan.threads is not None:
        _threads(situation, kind, plan.threads, found)
    if plan.kind == "distribute":
        _distribute(situation, kind, found)
    elif plan.kind in ("bind", "cpuset", "per-node"):
        _no_repinning(situation, kind, found)
    if plan.repack is False:
        _no_repack(kind, found)
    if own_copy:
        _own_copy(situation, kind, found)
    return found


def by_variables(situation: Situation, found: Changes) -> dict[str, str] | None:
    """Return the variables that do what new options at the end of the command line would.

    The command of a unit or an image may stay as it is that way. None where an option that is
    there already has to change: it wins over its variable.
    """
    argv = situation.root.argv
    if tuple(found.argv[: len(argv)]) != argv:
        return None
    added = found.argv[len(argv) :]
    values = dict(pairwise(added)) | dict.fromkeys(set(added) & set(FLAGS), "1")
    return {VARIABLES[name]: value for name, value in values.items() if name in VARIABLES}


def _threads(situation: Situation, kind: Family, threads: int, found: Changes) -> None:
    server = situation.server
    if kind in ("llama.cpp", "other"):
        found.argv, said = with_threads(found.argv, threads)
        if not said:
            found.environment[THREADS_VARIABLE] = str(threads)
            found.notes.append(
                f"If this program does not read {THREADS_VARIABLE}, set its compute threads to"
                f" {threads} in its own way: more threads than CPUs are many times slower."
            )
    elif sets_threads_by_variable(server):
        found.environment[THREADS_VARIABLE] = str(threads)
    elif ollama_blob(server) is None:
        raise RefusedError("the thread count comes from a model that Ollama does not keep itself")
    else:
        found.parameters["num_thread"] = str(threads)
        found.notes.append(
            f"{_who(situation, kind)} takes the thread count from the model's parameter num_thread"
            " only. A request that carries options.num_thread still wins."
        )


def _who(situation: Situation, kind: Family) -> str:
    """Name the version of Ollama as exactly as it is known."""
    if situation.root.version:
        return f"Ollama {situation.root.version}" + (
            ", for this model," if kind == "ollama" else ""
        )
    return "This model" if kind == "ollama" else "Ollama before 0.30"


def _distribute(situation: Situation, kind: Family, found: Changes) -> None:
    if kind == "ollama-runner":
        version = ollama_version(situation.root)
        if version is not None and NUMA_BY_ITSELF[0] <= version < NUMA_BY_ITSELF[1]:
            raise RefusedError("this version of Ollama passes --numa distribute by itself")
        raise RefusedError("Ollama has no setting for --numa from 0.3.14 until 0.30")
    if kind == "llama.cpp":
        found.argv = with_option(found.argv, NUMA, "distribute")
    else:
        found.environment[NUMA_VARIABLE] = "distribute"
    found.notes.append(
        "With --numa the model is read page by page as it is used: the first answers are slow."
    )


def _no_repinning(situation: Situation, kind: Family, found: Changes) -> None:
    """With distribute and isolate ggml undoes any CPU binding but a cpuset's."""
    asked = option(found.argv, NUMA)
    if kind in ("llama.cpp", "other") and asked in REPINNING:
        found.argv = without_repinning(found.argv)
        found.notes.append(
            "--numa became numactl: distribute and isolate undo numactl's CPU binding."
        )
    elif asked is None and situation.root.environment.get(NUMA_VARIABLE) in REPINNING:
        found.environment[NUMA_VARIABLE] = "numactl"
    if kind == "ollama-runner":
        version = ollama_version(situation.root)
        if version is not None and NUMA_BY_ITSELF[0] <= version < NUMA_BY_ITSELF[1]:
            found.notes.append(
                "This version of Ollama passes --numa numactl where it finds numactl in its PATH,"
                " else --numa distribute, which undoes the CPU binding: have numactl installed."
            )


def _no_repack(kind: Family, found: Changes) -> None:
    if kind == "ollama-runner":
        raise RefusedError("Ollama before 0.30 does not repack weights")
    if kind == "llama.cpp":
        kept = without_words(found.argv, ("--repack", *NO_REPACK))
        found.argv = [*kept, "--no-repack"]
    else:
        found.environment[NO_REPACK_VARIABLE] = "1"
    found.notes.append(
        "Without repacking, decoding reads the mapped file itself; reading prompts gets slower."
    )


def _own_copy(situation: Situation, kind: Family, found: Changes) -> None:
    """Without it all instances would share one copy in the page cache, on one node."""
    if kind == "ollama-runner":
        return  # reads CPU models into memory of its own, by itself
    number = build(situation.server)
    argv = found.argv if kind == "llama.cpp" else list(situation.server.argv)
    if option(argv, LOAD_MODE) is not None:
        if kind != "llama.cpp":
            raise RefusedError("Ollama itself decides how this model is read (--load-mode)")
        found.argv = with_option(found.argv, LOAD_MODE, "none")
    elif kind == "llama.cpp" and number is not None:
        new = number >= WITHOUT_NO_MMAP
        kept = without_words(found.argv, MAPPING)
        found.argv = [*kept, *(("--load-mode", "none") if new else ("--no-mmap",))]
    else:
        # Every build takes one of the two and does not know, or does not mind, the other.
        found.environment |= {NO_MMAP_VARIABLE: "1", LOAD_MODE_VARIABLE: "none"}


def _name(process: Process) -> str:
    return process.argv[0].rpartition("/")[2] if process.argv else ""
