"""A plan for every distinct instruction of every process, made at its first sight."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from numatrace.record.operands import block
from numatrace.record.operands.kernel import CODE
from numatrace.record.operands.plan import NOTHING, PAGE, UNREADABLE, PlanTable, plan_of
from numatrace.record.operands.window import AFTER, BEFORE, CachedDecoder, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from numatrace.record.operands.plan import AddressPlan
    from numatrace.record.operands.window import Decoder

Array = np.ndarray[Any, Any]

MAX_PLANS: Final = 65_536
"""Distinct instructions that are remembered; at one more all are forgotten."""

MAX_WINDOWS: Final = 256
"""Windows that are kept of a process. They save time only."""

SHARED: Final = 512
"""Bytes of code whose instructions share one window: most of a loop, so that it is listed once."""

SPIN: Final = CODE["spin"]

TEXT_BYTES: Final = 16
"""Code in a record."""

KEY: Final = np.dtype(
    [("ip", "<u8"), ("text", "u1", (TEXT_BYTES,)), ("tgid", "<i4"), ("fault", "<i4")]
)
"""What tells one plan from another. A fault is precise, an interrupt is not."""


class Planner:
    """Plans by process, address and code. `top`: where user addresses end."""

    def __init__(
        self, decoder: Decoder, read_code: Callable[[int, int, int], bytes], top: int
    ) -> None:
        self._read_code = read_code
        self._decoder = CachedDecoder(decoder)
        self._top = top
        self._table = PlanTable()
        self._rows: dict[bytes, int] = {}
        self._processes: dict[int, _Process] = {}

    def plans(self, records: Array, fault: Array) -> Array:
        """The plan of each record of the ring, as records of plan.ROW."""
        return self._table.take(self.rows(records, fault))

    def rows(self, records: Array, fault: Array) -> Array:
        """Place of each record's plan in the table: made now where there was none."""
        keys = np.zeros(len(records), KEY)
        for name in ("ip", "text", "tgid"):
            keys[name] = records[name]
        keys["fault"] = fault
        if self._table.used + len(records) > MAX_PLANS:
            self._clear()
        packed = _as_bytes(keys)
        known = self._rows.get
        rows = [known(key) for key in packed]
        if None in rows:
            rows = [self._row(key, packed[at]) for at, key in enumerate(keys)]
        return np.array(rows, np.intp)

    def forget(self, tgid: int) -> None:
        """Drop all of a process."""
        process = self._processes.pop(tgid, None)
        for key in process.keys if process else ():
            self._rows.pop(key, None)

    def _row(self, key: Any, packed: bytes) -> int:
        known = self._rows.get(packed)
        if known is not None:
            return known
        tgid, ip, text = int(key["tgid"]), int(key["ip"]), key["text"].tobytes()
        if any(text):
            process = self._processes.get(tgid)
            if process is not None and process.texts.get(ip, text) != text:
                self.forget(tgid)
        process = self._processes.setdefault(tgid, _Process())
        if any(text):
            process.texts[ip] = text
        plan = self._plan(process, tgid, ip, text, bool(key["fault"]))
        self._rows[packed] = row = self._table.add(plan)
        process.keys.append(packed)
        return row

    def _clear(self) -> None:
        self._rows.clear()
        self._processes.clear()
        self._table.clear()

    def _plan(self, process: _Process, tgid: int, ip: int, text: bytes, fault: bool) -> AddressPlan:
        window = self._window(process, tgid, ip, text)
        if window is None or window.decode(ip) is None:
            return UNREADABLE
        decoder = self._decoder.decoder
        if fault:
            found = block.exact(window, ip)
        else:
            found = block.find(window, ip, decoder.after_slow, decoder.stack)
        plan = NOTHING if found is None else plan_of(found)
        return replace(plan, how=SPIN) if not fault and block.spins(window, ip) else plan

    def _window(self, process: _Process, tgid: int, ip: int, text: bytes) -> Window | None:
        """Code around the address; only the record's own where the process's cannot be trusted."""
        if not 0 < ip < self._top:
            return None
        windows = process.windows
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


class _Process:
    """What is known of a process's code."""

    def __init__(self) -> None:
        self.texts: dict[int, bytes] = {}
        self.windows: dict[int, Window] = {}
        self.keys: list[bytes] = []


def _as_bytes(keys: Array) -> list[bytes]:
    """Each record's bytes."""
    size = keys.dtype.itemsize
    packed = keys.tobytes()
    return [packed[at : at + size] for at in range(0, len(packed), size)]
