"""What perf says when it fails, as errors with something to do about it."""

from __future__ import annotations

import re
from typing import Final

from numatrace.model.errors import CapabilityError, NumatraceError
from numatrace.model.text import printable

MAX_SAID: Final = 300
"""Characters of perf's own words that an error repeats."""
_MAX_STDERR: Final = 1 << 16

# Said in passing, whether or not anything failed.
_NOISE: Final = re.compile(
    r"^(\[ perf record: .*|No kallsyms or vmlinux with .*|WARNING: Kernel address maps .*"
    r"|.*kptr_restrict.*|check /proc/sys/kernel/.*|Samples in kernel functions .*"
    r"|Couldn't record kernel reference relocation.*|.*symbols? (won't|may not) be resolved.*"
    r"|Error:|-*|\s*Usage: .*|\s*or: perf .*|.*rerun with -v.*\bsymbols\b.*)$"
)
_CHUNKS: Final = re.compile(
    r"^Processed (\d{1,18}) events and lost (\d{1,18}) chunks!", re.MULTILINE
)

_TODO_SAME: Final = "record again, and read the recording with the same version of perf"
# What perf says, whether it is something the machine or the user lacks, and what to do. The first
# match decides; the wording is that of perf 6.1 and of tools/perf/util/evsel.c in 6.12.
_CAUSES: Final[tuple[tuple[str, bool, str], ...]] = (
    (
        r"Permission error mapping pages|perf_event_mlock_kb",
        True,
        "run as root, or raise kernel.perf_event_mlock_kb",
    ),
    (
        r"perf_event_paranoid|No permission to enable|Operation not permitted|CAP_PERFMON"
        r"|observability operations is limited",
        True,
        "run as root or with CAP_PERFMON; 'sysctl kernel.perf_event_paranoid' shows the limit",
    ),
    (
        r"not owned by current user",
        False,
        "read it as its owner, or as root",
    ),
    (
        r"failed to open .*Permission denied",
        False,
        "read it as its owner, or as root",
    ),
    (
        r"do not have \S+ attribute set",
        False,
        "'perf evlist -v' shows which fields the recording has; record with -d -W --sample-cpu",
    ),
    (
        r"event syntax error|Cannot find PMU|invalid or unsupported event|unknown term|parser error"
        r"|memory events not supported|[Nn]o supported events|event is not supported"
        r"|doesn't support sampling|Try removing 'p' modifier|No such device|invalid PMU",
        True,
        "'perf list' shows the events of this machine; numatrace samples without the hardware "
        "where it has none",
    ),
    (
        r"PMU counters are busy|Device or resource busy",
        True,
        "end other profilers; 'sysctl kernel.nmi_watchdog=0' frees one counter",
    ),
    (
        r"incompatible file format|more recent and unsupported ABI|failed to process type",
        False,
        _TODO_SAME,
    ),
    (
        r"bad event header size|zero-sized|truncated",
        False,
        "record again: the recording is cut or damaged",
    ),
    (r"No such process", False, "check that the process still runs"),
    (r"[Tt]oo many open files", True, "raise the limit of open files ('ulimit -n')"),
    (r"No space left on device", False, "free space where the recording is written"),
    (r"Cannot allocate memory|failed to mmap", True, "use smaller buffers (perf record -m)"),
)
_COMPILED: Final = tuple((re.compile(text), lack, todo) for text, lack, todo in _CAUSES)


def said(stderr: bytes) -> str:
    """perf's own words without what it says in passing, on one line, safe to print."""
    return printable(_telling(stderr), MAX_SAID)


def _telling(stderr: bytes) -> str:
    text = stderr[:_MAX_STDERR].decode("utf-8", "replace")
    lines = (line.strip() for line in text.splitlines())
    return "; ".join(line for line in lines if line and not _NOISE.match(line))


def failed(returncode: int, stderr: bytes, samples: int) -> bool:
    """Whether a run of `perf script` failed.

    A file with records that it does not know makes perf 6.1 say so, print nothing and exit with 0.
    """
    if returncode != 0:
        return True
    text = _telling(stderr)
    return samples == 0 and any(pattern.search(text) for pattern, _, _ in _COMPILED)


def explain(what: str, returncode: int | None, stderr: bytes) -> NumatraceError:
    """The error to raise for a perf that failed at `what`; `returncode` None: it was ended."""
    text = said(stderr)
    ending = "it was ended" if returncode is None else f"it exited with {returncode}"
    why = f"perf: {text}" if text else f"perf said nothing and {ending}"
    full = _telling(stderr)
    for pattern, lacks, todo in _COMPILED:
        if pattern.search(full):
            return (CapabilityError if lacks else NumatraceError)(what, why, todo)
    return NumatraceError(what, why, "run the perf command by itself to see what it says")


def lost_chunks(stderr: bytes) -> int:
    """LOST records of a recording, as `perf report` and `perf script` sum them up."""
    match = _CHUNKS.search(stderr[:_MAX_STDERR].decode("utf-8", "replace"))
    return int(match[2]) if match else 0
