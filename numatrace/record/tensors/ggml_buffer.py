"""What a server's own struct ggml_backend_buffer says: where a buffer lies, its use, its type.

The members lie elsewhere in every build. They are found by what must be true of them: the buffer
holds every address that was given out in it. Of several such places the one nearest before counts.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, NamedTuple

from numatrace.record.memory.process_memory import ADDRESS_LIMIT, read_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Reader = Callable[[int, int], bytes]
    """Address and size to the bytes there, fewer or none where they cannot be read."""

STRUCT_BYTES = 192
USES = ("any", "weights", "compute")
"""enum ggml_backend_buffer_usage (ggml-backend.h)."""

MAX_BYTES = 1 << 44
"""No buffer is larger; pointers are, in all but programs with fixed addresses."""

MAX_NAME_BYTES = 64

_TYPE = re.compile(rb"[A-Za-z0-9_.:\-]{1,63}\0")
_LEA_RET = re.compile(rb"(?:\xf3\x0f\x1e\xfa)?\x48\x8d\x05(....)\xc3", re.DOTALL)
"""x86-64: [endbr64]; lea rax, [rip + disp32]; ret."""


class GgmlBuffer(NamedTuple):
    """A buffer of ggml: begin and size in bytes, its use (one of USES), and its type, or ""."""

    addr: int
    bytes: int
    use: str
    type: str

    @property
    def detail(self) -> str:
        """What a `buffer` row says of it."""
        return f"ggml {self.use} {self.type}".rstrip()


def describe(pid: int, pointer: int, addrs: Sequence[int]) -> GgmlBuffer | None:
    """Return the buffer whose struct lies at `pointer` in a process, or None.

    `addrs`: addresses that tensors got in it.
    """
    return parse(lambda addr, size: read_memory(pid, addr, size), pointer, addrs)


def parse(read: Reader, pointer: int, addrs: Sequence[int]) -> GgmlBuffer | None:
    """Do the work of `describe`, with what reads memory."""
    data = read(pointer, STRUCT_BYTES)
    words = struct.unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8])
    first, last = min(addrs), max(addrs)
    found: list[tuple[int, int]] = []
    for place in range(1, len(words) - 2):
        base, size, use = words[place], words[place + 1], words[place + 2] & 0xFFFF_FFFF
        holds = 0 < base <= first and last < base + size < ADDRESS_LIMIT and size <= MAX_BYTES
        if holds and use < len(USES):
            found.append((first - base, place))
    if not found:
        return None
    place = min(found)[1]
    use = USES[words[place + 2] & 0xFFFF_FFFF]
    return GgmlBuffer(words[place], words[place + 1], use, type_name(read, words[place - 1]))


def type_name(read: Reader, pointer: int) -> str:
    """Return the name of a buffer type such as CPU_REPACK, or "" where it cannot be told.

    The struct begins with a function that returns the name, which is a constant: its code says
    where the text lies. (x86-64; elsewhere the name is not told.)
    """
    function = int.from_bytes(read(pointer, 8).ljust(8, b"\0"), "little")
    code = _LEA_RET.match(read(function, 16))
    if code is None:
        return ""
    text = function + code.end() - 1 + int.from_bytes(code[1], "little", signed=True)
    name = _TYPE.match(read(text, MAX_NAME_BYTES))
    return name[0][:-1].decode("ascii") if name else ""
