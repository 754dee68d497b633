"""The plan for an instruction, made from the code around it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from numatrace.record.operands import block
from numatrace.record.operands.kernel import CODE
from numatrace.record.operands.plan import NOTHING, PAGE, UNREADABLE, plan_of, rows_of
from numatrace.record.operands.plans import MAX_PLANS, TEXT_BYTES, Texts
from numatrace.record.operands.window import AFTER, BEFORE, CachedDecoder, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from numatrace.record.operands.plan import AddressPlan
    from numatrace.record.operands.window import Decoder

Array = np.ndarray[Any, Any]

MAX_WINDOWS: Final = 256
"""Windows that are kept of a process. They save time only."""

SHARED: Final = 512
"""Bytes of code whose instructions share one window: most of a loop, so that it is listed once."""

SPIN: Final = CODE["spin"]


class Planner:
    """Makes the plan of an instruction from the code around it. `top`: where user addresses end."""

    def __init__(
        self, decoder: Decoder, read_code: Callable[[int, int, int], bytes], top: int
    ) -> None:
        self._read_code = read_code
        self._decoder = CachedDecoder(decoder)
        self._top = top
        self._windows: dict[int, dict[int, Window]] = {}
        """By process, and by block of SHARED bytes."""
        self._texts = Texts()
        self._made = 0
        """Since all was forgotten: it has to end somewhere."""

    def make(self, keys: Array) -> Array:
        """The plan of each of the plans.KEY, as records of plan.ROW."""
        self._made += len(keys)
        if self._made > MAX_PLANS:
            self._windows.clear()
            self._texts.clear()
            self._made = len(keys)
        return rows_of([self._make(key) for key in keys])

    def forget(self, tgid: int) -> None:
        """Drop all code of a process."""
        self._texts.forget(tgid)
        self._windows.pop(tgid, None)

    def _make(self, key: Any) -> AddressPlan:
        tgid, ip, text = int(key["tgid"]), int(key["ip"]), key["text"].tobytes()
        if self._texts.changed(tgid, ip, text):
            self._windows.pop(tgid, None)
        return self._plan(tgid, ip, text, bool(key["fault"]))

    def _plan(self, tgid: int, ip: int, text: bytes, fault: bool) -> AddressPlan:
        window = self._window(tgid, ip, text)
        if window is None or window.decode(ip) is None:
            return UNREADABLE
        decoder = self._decoder.decoder
        if fault:
            found = block.exact(window, ip)
        else:
            found = block.find(window, ip, decoder.after_slow, decoder.stack)
        plan = NOTHING if found is None else plan_of(found)
        return replace(plan, how=SPIN) if not fault and block.spins(window, ip) else plan

    def _window(self, tgid: int, ip: int, text: bytes) -> Window | None:
        """Code around the address; only the record's own where the process's cannot be trusted."""
        if not 0 < ip < self._top:
            return None
        windows = self._windows.setdefault(tgid, {})
        known = windows.get(ip // SHARED)
        if known is not None and known.holds(ip, text):
            return known
        start, code = self._code_around(tgid, ip)
        live = code[ip - start : ip - start + TEXT_BYTES]
        if not live or (any(text) and live != text[: len(live)]):
            return Window(self._decoder, text, ip, ip) if any(text) else None
        if len(windows) >= MAX_WINDOWS:
            windows.clear()
        windows[ip // SHARED] = made = Window(self._decoder, code, start, ip)
        return made

    def _code_around(self, tgid: int, ip: int) -> tuple[int, bytes]:
        """Where the code begins that could be read, and the code."""
        shared = ip // SHARED * SHARED
        start, end = max(shared - BEFORE, 0), shared + SHARED + AFTER
        code = self._read_code(tgid, start, end - start)
        if len(code) <= ip - start:
            # The page before is not there.
            start = ip // PAGE * PAGE
            code = self._read_code(tgid, start, end - start)
        return start, code
