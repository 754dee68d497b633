"""Read and change the options of llama.cpp on a command line that was recorded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numatrace.model.process import Process

THREADS = ("-t", "--threads")
BATCH_THREADS = ("-tb", "--threads-batch")
NUMA = ("--numa",)
PORT = ("--port",)
LOAD_MODE = ("-lm", "--load-mode")
NO_REPACK = ("-nr", "--no-repack")
MAPPING = ("--mmap", "--no-mmap")
THREADS_VARIABLE = "LLAMA_ARG_THREADS"
NUMA_VARIABLE = "LLAMA_ARG_NUMA"
"""What llama.cpp reads where the option is not on the command line (common/arg.cpp)."""
REPINNING = ("distribute", "isolate")
"""Values of --numa with which ggml pins its threads itself, over what numactl has set."""
BLOB = re.compile(r".*/blobs/(sha256-[0-9a-f]{64})")
"""How Ollama names the file of a model."""


def is_llama_cpp(argv: Sequence[str]) -> bool:
    """Whether the program is one of llama.cpp's own, or a script in the place of one."""
    names = [argument.rpartition("/")[2] for argument in argv[:2]]
    interpreted = bool(names) and names[0].startswith("python")
    name = "".join(names[1:2] if interpreted else names[:1])
    return name.startswith("llama-") or name == "ollama_llama_server"


def option(argv: Sequence[str], names: tuple[str, ...]) -> str | None:
    """Return the value of an option (`-t 8`, `--threads=8`): of several the last, which counts."""
    values = [value for _, value in _found(argv, names)]
    return values[-1] if values else None


def asked_threads(process: Process) -> int | None:
    """Return the number of compute threads that the server was told to use, or None."""
    text = option(process.argv, _thread_names(process.argv))
    if text is None:
        text = process.environment.get(THREADS_VARIABLE)
    number = _integer(text)
    return number if number is not None and number > 0 else None


def threads_are_fixed(server: Process, root: Process) -> bool:
    """Whether no setting that numatrace can name changes the server's thread count.

    `ollama serve` gives its llama-server (since 0.30) its environment; a -t there comes from the
    model or the request and wins, and the runners before that took no variable at all. Then a
    parameter of the model decides, which can be set for a model that Ollama itself keeps.
    """
    if root.tgid == server.tgid or sets_threads_by_variable(server):
        return False
    return ollama_blob(server) is None


def sets_threads_by_variable(server: Process) -> bool:
    """Whether a server below `ollama serve` takes its thread count from LLAMA_ARG_THREADS."""
    named = server.argv[:1] and server.argv[0].rpartition("/")[2] == "ollama_llama_server"
    return is_llama_cpp(server.argv) and not named and option(server.argv, THREADS) is None


def ollama_blob(server: Process) -> str | None:
    """Return the digest in the name of the model's file, if Ollama keeps it."""
    path = option(server.argv, ("--model", "-m"))
    found = BLOB.fullmatch(path) if path else None
    return found[1] if found else None


def with_threads(argv: Sequence[str], threads: int) -> tuple[list[str], bool]:
    """Return the command line with that many threads, and whether it says so.

    Where the option is there its value is replaced; a batch thread count above it is lowered to
    it. To a llama.cpp program `-t` is added. Nothing else changes.
    """
    changed = replaced(argv, _thread_names(argv), lambda _: str(threads))
    if is_llama_cpp(argv):
        changed = replaced(changed, BATCH_THREADS, lambda old: str(_at_most(old, threads)))
    if option(argv, _thread_names(argv)) is not None:
        return changed, True
    if is_llama_cpp(argv):
        return [*changed, "-t", str(threads)], True
    return changed, False


def with_option(argv: Sequence[str], names: tuple[str, ...], value: str) -> list[str]:
    """Return the command line with an option set to a value: replaced, else added at the end."""
    if option(argv, names) is None:
        return [*argv, names[-1], value]
    return replaced(argv, names, lambda _: value)


def without_words(argv: Sequence[str], words: tuple[str, ...]) -> list[str]:
    """Return the command line without these options, which take no value."""
    return [*argv[:1], *(argument for argument in argv[1:] if argument not in words)]


def without_repinning(argv: Sequence[str]) -> list[str]:
    """Return the command line with --numa distribute and isolate made --numa numactl."""
    return replaced(argv, NUMA, lambda old: "numactl" if old in REPINNING else old)


def replaced(argv: Sequence[str], names: tuple[str, ...], new: Callable[[str], str]) -> list[str]:
    """Return the command line with every value of an option put through `new`."""
    changed = list(argv)
    for place, value in _found(argv, names):
        if argv[place] in names:
            changed[place + 1] = new(value)
        else:
            changed[place] = f"{argv[place].partition('=')[0]}={new(value)}"
    return changed


def _thread_names(argv: Sequence[str]) -> tuple[str, ...]:
    # -t may mean anything to another program, an interpreter for one.
    return THREADS if is_llama_cpp(argv) else THREADS[1:]


def _found(argv: Sequence[str], names: tuple[str, ...]) -> list[tuple[int, str]]:
    """Return the place of every occurrence of the option and its value."""
    found = []
    for place, argument in enumerate(argv[1:], start=1):
        name, equals, value = argument.partition("=")
        if argument in names and place + 1 < len(argv):
            found.append((place, argv[place + 1]))
        elif equals and name in names and name.startswith("--"):
            found.append((place, value))
    return found


def _at_most(text: str, limit: int) -> str:
    number = _integer(text)
    return str(limit) if number is None or number > limit else text


def _integer(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 7 else None
