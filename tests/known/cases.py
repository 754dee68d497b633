"""What the workload of known truth is run with: each pattern alone, and placements on two nodes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    """Buffers, threads, and how long it is recorded."""

    name: str
    what: str
    arguments: tuple[str, ...]
    found_share: float = 0.95
    """At least this share of the time in user mode that uses memory has an address."""


def _buffers(kib: int, *places: str) -> tuple[str, ...]:
    return tuple(
        word
        for name, place in zip("abcd", places, strict=False)
        for word in ("--buffer", f"{name}:{kib}:{place}")
    )


# Slices are long against a sampling period, so that shares are met closely in a few seconds.
LOCAL = ("--slice-us", "4000", *_buffers(32768, "any", "any", "any", "any"))


def _alone(pattern: str, what: str) -> Case:
    """Two threads with three shares each of one pattern, from 5 to 70 percent."""
    threads = (
        f"-/{pattern}:a=55,{pattern}:b=35,{pattern}:c=10",
        f"-/{pattern}:c=70,{pattern}:d=22,{pattern}:a=8",
    )
    arguments = (*LOCAL, *(word for each in threads for word in ("--thread", each)))
    return Case(pattern, what, arguments)


def _copies(pattern: str, what: str) -> Case:
    threads = (f"-/{pattern}:a>b=65,{pattern}:c>d=35", f"-/{pattern}:c>d=100")
    arguments = (*LOCAL, *(word for each in threads for word in ("--thread", each)))
    return Case(pattern, what, arguments)


PATTERNS = (
    _alone("stream", "words, one after the other"),
    _alone("strided", "words, 320 bytes apart"),
    _alone("random", "words anywhere, independent of one another"),
    _alone("chase", "pointers, each leads to the next"),
    _alone("avx2", "32 bytes at a time"),
    _alone("gather", "eight words of a window that moves"),
    _alone("wide-gather", "eight words from anywhere"),
    _alone("atomic", "lock xadd, 320 bytes apart"),
    _alone("fill", "words written, one after the other"),
    _alone("compute", "words, with some 30 cycles of arithmetic on each"),
    _copies("copy", "memcpy of the C library"),
    _copies("string-copy", "rep movsb"),
    Case(
        "mixed",
        "all patterns, and a tenth of the time without memory",
        (
            *LOCAL,
            "--thread",
            "-/stream:a=40,random:b=25,avx2:c=25,nothing=10",
            "--thread",
            "-/chase:d=30,compute:a=30,atomic:b=15,fill:c=15,nothing=10",
        ),
    ),
)
"""On any machine: time by thread and buffer."""


def _nodes(name: str, what: str, *threads: str, places: tuple[str, ...]) -> Case:
    words = (word for each in threads for word in ("--thread", each))
    buffers = _buffers(4096, *places)
    return Case(name, what, ("--slice-us", "20000", "--hop-ms", "300", *buffers, *words))


PLACEMENTS = (
    _nodes(
        "bound local",
        "each thread reads memory of its own node",
        "0/stream:a=60,stream:c=40",
        "2/random:b=60,random:d=40",
        places=("0", "1", "0", "1"),
    ),
    _nodes(
        "bound remote",
        "each thread reads memory of the other node",
        "0/strided:b=60,strided:d=40",
        "2/chase:a=60,chase:c=40",
        places=("0", "1", "0", "1"),
    ),
    _nodes(
        "interleaved",
        "all memory in turns on both nodes",
        "0/random:a=50,random:b=50",
        "3/avx2:a=50,avx2:b=50",
        places=("interleave", "interleave"),
    ),
    _nodes(
        "mixed",
        "each thread reads all: its own node, the other, and both in turns",
        "1/avx2:a=25,avx2:b=25,avx2:c=30,avx2:d=20",
        "2/stream:b=45,stream:a=20,stream:c=35",
        places=("0", "1", "interleave", "1"),
    ),
    _nodes(
        "hopping",
        "threads that move between the nodes",
        "0~2/stream:a=70,stream:b=30",
        "3~1/atomic:a=30,atomic:b=70",
        places=("0", "interleave"),
    ),
)
"""On two nodes of two CPUs: remote share by thread and by buffer.

Each thread has one pattern, so that its steps are a truth that an emulated clock cannot spoil.
"""
