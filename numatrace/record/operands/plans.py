"""The plans of all instructions that were met, by process, address and code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from numatrace.record.operands.plan import ROW

if TYPE_CHECKING:
    from collections.abc import Iterable

Array = np.ndarray[Any, Any]

MAX_PLANS: Final = 65_536
"""Distinct instructions that are remembered; at one more all are forgotten."""

TEXT_BYTES: Final = 16
"""Code in a record."""

KEY: Final = np.dtype(
    [("ip", "<u8"), ("text", "u1", (TEXT_BYTES,)), ("tgid", "<i4"), ("fault", "<i4")]
)
"""What tells one plan from another. A fault is precise, an interrupt is not."""

FORGET: Final = -1
"""In `fault`, for a worker: this is no instruction, the process ended or replaced its program."""

NONE: Final = -1
"""Place of a plan that is not there."""


def keys_of(records: Array, fault: Array) -> Array:
    """The key of each record of the ring."""
    keys = np.zeros(len(records), KEY)
    for name in ("ip", "text", "tgid"):
        keys[name] = records[name]
    keys["fault"] = fault
    return keys


def packed(keys: Array) -> list[bytes]:
    """Each key's bytes."""
    size = keys.dtype.itemsize
    whole = keys.tobytes()
    return [whole[at : at + size] for at in range(0, len(whole), size)]


def unpacked(keys: Iterable[bytes]) -> Array:
    """Keys from their bytes."""
    whole = b"".join(keys)
    return np.frombuffer(whole, KEY) if whole else np.zeros(0, KEY)


class Texts:
    """Code as samples found it, by process and address."""

    def __init__(self) -> None:
        self._known: dict[int, dict[int, bytes]] = {}

    def changed(self, tgid: int, ip: int, text: bytes) -> bool:
        """Note the code at an address; whether there was other code: then all else is forgotten.

        Code of zeros only is what nobody could read, and says nothing.
        """
        if not any(text):
            return False
        known = self._known.setdefault(tgid, {})
        changed = known.get(ip, text) != text
        if changed:
            known.clear()
        known[ip] = text
        return changed

    def forget(self, tgid: int) -> None:
        """Drop all of a process."""
        self._known.pop(tgid, None)

    def clear(self) -> None:
        """Drop all."""
        self._known.clear()


class Plans:
    """A table of plans that grows, and where in it each key's plan is."""

    def __init__(self) -> None:
        self._rows = np.zeros(256, ROW)
        self._used = 0
        self._places: dict[bytes, int] = {}
        self._names: dict[int, list[bytes]] = {}
        """Whose plans there are, by process."""
        self._texts = Texts()

    def find(self, keys: Array) -> Array:
        """Place of each key's plan, NONE where there is none yet. There is room for these then."""
        self._make_room(len(keys))
        known = self._places.get
        return np.array([known(key, NONE) for key in packed(keys)], np.intp)

    def add(self, keys: Array, rows: Array) -> dict[bytes, int]:
        """Take plans; returns their places. The others stay where they are, if `find` came before.

        Without, all may be forgotten first.
        """
        self._make_room(len(keys))
        first, self._used = self._used, self._used + len(keys)
        while self._used > len(self._rows):
            self._rows = np.concatenate((self._rows, np.zeros_like(self._rows)))
        self._rows[first : self._used] = rows
        places = dict(zip(packed(keys), range(first, self._used), strict=True))
        for key, (name, place) in zip(keys, places.items(), strict=True):
            self._remember(key, name, place)
        return places

    def take(self, places: Array) -> Array:
        """The plans at these places, as records of plan.ROW."""
        return np.asarray(self._rows[places])

    def forget(self, tgid: int) -> None:
        """Drop all of a process."""
        self._texts.forget(tgid)
        self._drop(tgid)

    def _remember(self, key: Any, name: bytes, place: int) -> None:
        tgid = int(key["tgid"])
        if self._texts.changed(tgid, int(key["ip"]), key["text"].tobytes()):
            self._drop(tgid)
        self._names.setdefault(tgid, []).append(name)
        self._places[name] = place

    def _drop(self, tgid: int) -> None:
        for name in self._names.pop(tgid, ()):
            self._places.pop(name, None)

    def _make_room(self, count: int) -> None:
        """Forget all where so many more would be too many."""
        if self._used + count > MAX_PLANS:
            self._places.clear()
            self._names.clear()
            self._texts.clear()
            self._used = 0
