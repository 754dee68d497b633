"""The instructions around an address: where they begin, and who jumps to them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.record.operands.instruction import Instruction

BEFORE: Final = 640
AFTER: Final = 640
"""Bytes of code that are looked at on either side of a block of code: that much a loop may have.
Of one that is longer neither the head nor the tail is found from its middle."""

STARTS: Final = 8
"""Places from which code before the address is decoded. x86 code falls into step by itself, mostly
within two or three instructions; a wrong start that never does is outvoted."""

SURE: Final = 64
"""Bytes after which code is in step that ever comes into step."""

NEAR: Final = 64
"""Bytes that are decoded at once of code that is about to fall into step."""

CACHED: Final = 8192
"""Distinct instructions that a decoder remembers."""

Line = tuple[int, int, int | None]
"""Address, length and direct target of one instruction."""


class Decoder(Protocol):
    """What an instruction set provides; see X86Decoder and Arm64Decoder."""

    stack: int
    step: int
    after_slow: bool

    def sweep(self, code: bytes, ip: int) -> Iterator[Line]:
        """One instruction after the other, up to the first that is none."""

    def decode(self, code: bytes) -> Instruction | None:
        """The instruction that the bytes begin with; None if there is none."""


class CachedDecoder:
    """A decoder that remembers what it decoded: neighbours in a loop share most of it."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self._known: dict[bytes, Instruction | None] = {}

    def decode(self, code: bytes) -> Instruction | None:
        """The instruction of exactly these bytes."""
        if code not in self._known:
            if len(self._known) >= CACHED:
                self._known.clear()
            found = self.decoder.decode(code)
            self._known[code] = found if found and found.length == len(code) else None
        return self._known[code]


class Window:
    """Instructions from `code`, which lies at `start`, that agree with one beginning at `ip`."""

    def __init__(self, decoder: CachedDecoder, code: bytes, start: int, ip: int) -> None:
        self._decoder = decoder
        self._code = code
        self._start = start
        lines = [
            *_lines_before(decoder.decoder, code[: ip - start], start),
            *decoder.decoder.sweep(code[ip - start :], ip),
        ]
        self.addresses = [address for address, _, _ in lines]
        self._sizes = {address: size for address, size, _ in lines}
        self._jumps: dict[int, list[int]] = {}
        for address, _, target in lines:
            if target is not None:
                self._jumps.setdefault(target, []).append(address)

    def holds(self, ip: int, text: bytes) -> bool:
        """Whether an instruction begins at `ip`, of these bytes as far as they are known."""
        at = ip - self._start
        own = self._code[at : at + len(text)]
        return ip in self._sizes and (not any(text) or own == text[: len(own)])

    def decode(self, address: int) -> Instruction | None:
        """The instruction at one of the addresses."""
        size = self._sizes.get(address)
        if size is None:
            return None
        at = address - self._start
        return self._decoder.decode(self._code[at : at + size])

    def previous(self, address: int) -> int | None:
        """Address of the instruction that ends where this one begins."""
        place = bisect_left(self.addresses, address) - 1
        if place < 0:
            return None
        before = self.addresses[place]
        return before if before + self._sizes[before] == address else None

    def loop_tail(self, address: int) -> int | None:
        """Address of the nearest jump back to here, if this is a loop's head."""
        return min((at for at in self._jumps.get(address, ()) if at >= address), default=None)

    def sources(self, address: int) -> list[int]:
        """Addresses of the jumps in the window that lead here."""
        return self._jumps.get(address, [])


def _lines_before(decoder: Decoder, code: bytes, start: int) -> list[Line]:
    """The chain of instructions that ends just before the address.

    That from the first byte, if it does end there: then it fell into step, and long before, but for
    its beginning. Else that which has the most votes.
    """
    end = start + len(code)
    if decoder.step > 1:
        skip = len(code) % decoder.step
        return list(decoder.sweep(code[skip:], start + skip))
    main = list(decoder.sweep(code, start))
    if len(code) > 2 * SURE and main and sum(main[-1][:2]) == end:
        return main[bisect_left(main, (start + SURE,)) :]
    starts = range(start, min(start + STARTS, end))
    lines = {line[0]: line for line in main}
    for begin in starts[1:]:
        _until_met(decoder, code[begin - start :], begin, lines)
    return _elected(lines, starts, end)


def _until_met(decoder: Decoder, code: bytes, begin: int, lines: dict[int, Line]) -> None:
    """Add the lines from `begin` to the first that is there already."""
    at = begin
    while at - begin < len(code):
        before = at
        for line in decoder.sweep(code[at - begin : at - begin + NEAR], at):
            if line[0] in lines:
                return
            lines[line[0]] = line
            at = line[0] + line[1]
        if at == before:
            break


def _elected(lines: dict[int, Line], starts: range, end: int) -> list[Line]:
    votes: Counter[int] = Counter(starts)
    into: dict[int, list[int]] = {}
    for at in sorted(lines):
        following = at + lines[at][1]
        votes[following] += votes[at]
        into.setdefault(following, []).append(at)
    chain: list[Line] = []
    at = end
    while at in into:
        at = max(into[at], key=votes.__getitem__)
        # Where the paths have not come together yet, any of them may be wrong.
        if 2 * votes[at] < votes[end]:
            break
        chain.append(lines[at])
    return chain[::-1]
