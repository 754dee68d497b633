"""Samples of the access ring to data addresses, a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from numatrace.model.access import FETCH, KERNEL
from numatrace.record.operands.kernel import (
    CODE,
    FAULT,
    INTERRUPT,
    RECLAIM,
    call_codes,
    kernel_codes,
)
from numatrace.record.operands.plan import MASK64, addresses, plausible
from numatrace.record.operands.planner import Planner
from numatrace.record.operands.plans import NONE, Plans, keys_of, packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numatrace.record.operands.helper import Helper
    from numatrace.record.operands.window import Decoder

Array = np.ndarray[Any, Any]

TOP: Final[Mapping[str, int]] = {"x86_64": 1 << 47, "aarch64": 1 << 48}
"""Where user addresses end. A process gets higher ones only if it asks mmap for them by address."""

TAG: Final[Mapping[str, int]] = {"x86_64": 0, "aarch64": 0xFF << 56}
"""Bits of a pointer that the CPU ignores (top byte ignore on arm64)."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """One entry per record: data address (0 where not known), access bits, place in HOW."""

    addr: Array
    known: Array
    access: Array
    how: Array


class Operands:
    """Decodes each distinct instruction once and finds every record's data address.

    `machine` as in uname: x86_64 or aarch64. `read_code(tgid, addr, size)` reads a process's code:
    fewer bytes or none where it cannot. `helper`: decodes what can wait.
    """

    def __init__(
        self,
        machine: str,
        read_code: Callable[[int, int, int], bytes],
        helper: Helper | None = None,
    ) -> None:
        self.helper = helper
        self._calls = call_codes(machine)
        self._top = TOP[machine]
        self._untagged = np.uint64(~TAG[machine] & MASK64)
        self._plans = Plans()
        self._planner: Planner | None = None
        self._new_planner = partial(planner_for, machine, read_code)

    def ready(self, records: Array) -> int:
        """How many records, from the first on, need no decoding. The helper is asked for more."""
        if self.helper is None:
            return 0
        self._plans.add(*self.helper.answers())
        fault, wanted = _precise(records["access"])
        keys = keys_of(records, fault)
        new = wanted & (self._plans.find(keys) == NONE)
        self.helper.ask(keys[new])
        return int(np.argmax(new)) if new.any() else len(records)

    def learn(self, records: Array) -> None:
        """Decode what is new in records of the ring, so that `resolve` is quick with them."""
        fault, wanted = _precise(records["access"])
        if wanted.any():
            self._places(keys_of(records[wanted], fault[wanted]))

    def resolve(self, records: Array) -> Resolved:
        """Addresses of a batch of records of the `access` ring. Nothing in a record raises."""
        raw = records["access"]
        fault, wanted = _precise(raw)
        found = Resolved(
            np.zeros(len(records), np.uint64),
            np.zeros(len(records), bool),
            raw & (FETCH | KERNEL),
            kernel_codes(raw, records["syscall"], self._calls),
        )
        if wanted.any():
            self._resolve_user(records, fault, wanted, found)
        return found

    def forget(self, tgid: int) -> None:
        """Drop what is known about the process's code: it ended or replaced its program."""
        self._plans.forget(tgid)
        if self._planner is not None:
            self._planner.forget(tgid)
        if self.helper is not None:
            self.helper.forget(tgid)

    def _resolve_user(self, records: Array, fault: Array, wanted: Array, found: Resolved) -> None:
        """Fill in the records whose instruction and registers are those of the access."""
        chosen = records if wanted.all() else records[wanted]
        fault = fault[wanted]
        plans = self._plans.take(self._places(keys_of(chosen, fault)))
        thread_base = chosen["thread_base"]
        address = addresses(plans, chosen["regs"], thread_base) & self._untagged
        lost = plans["thread"] & (thread_base == 0)
        sound = plans["known"] & ~lost & plausible(address, self._top)
        found.addr[wanted] = np.where(sound, address, 0)
        found.known[wanted] = sound
        found.access[wanted] |= plans["access"]
        named = np.where(lost, np.uint8(CODE["segment"]), plans["how"])
        found.how[wanted] = np.where(fault, found.how[wanted], named)

    def _places(self, keys: Array) -> Array:
        """Place of each key's plan: made now where there is none."""
        places = self._plans.find(keys)
        new = places == NONE
        if new.any():
            names = packed(keys[new])
            distinct = unpacked(dict.fromkeys(names))
            made = self._plans.add(distinct, self._made(distinct))
            places[new] = [made[name] for name in names]
        return places

    def _made(self, keys: Array) -> Array:
        if self._planner is None:
            self._planner = self._new_planner()
        return self._planner.make(keys)


def _precise(raw: Array) -> tuple[Array, Array]:
    """Which records are of faults; and which have instruction and registers of an access."""
    in_kernel = (raw & KERNEL) != 0
    fault = in_kernel & ((raw & FAULT) != 0) & ((raw & (RECLAIM | INTERRUPT)) == 0)
    return fault, ~in_kernel | fault


def planner_for(machine: str, read_code: Callable[[int, int, int], bytes]) -> Planner:
    """A planner for code of this machine. Loads the disassembler."""
    return Planner(_decoder(machine), read_code, TOP[machine])


def _decoder(machine: str) -> Decoder:
    if machine == "aarch64":
        from numatrace.record.operands.arm64 import Arm64Decoder

        return Arm64Decoder()
    from numatrace.record.operands.x86 import X86Decoder

    return X86Decoder()
