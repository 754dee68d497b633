"""Reads fields out of a trace's JSON documents: typed and bounded, or a TraceError.

A field that is absent takes its default, because an older recorder may not have written it. A
field of the wrong type or size is nonsense and raises.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from numatrace.model.cpulist import CPU_LIMIT, parse_cpulist
from numatrace.model.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Mapping

DOCUMENT_LIMIT = 4 << 20
"""Characters in the JSON text of one document."""
TEXT_LIMIT = 4096
"""Characters in one text field, such as a path (PATH_MAX)."""
INTEGER_LIMIT = (1 << 64) - 1


def loads(text: str, what: str) -> Document:
    """Decode the JSON text of a row's `value`; `what` names the document in errors.

    Raises TraceError if it is not a JSON object, too long or too deep.
    """
    if len(text) > DOCUMENT_LIMIT:
        raise _nonsense(what, f"{len(text)} characters")
    try:
        return document(json.loads(text), what)
    except (ValueError, RecursionError) as error:
        raise _nonsense(what, f"not JSON: {error}") from None


def document(value: object, what: str) -> Document:
    """Take decoded JSON as a document; raises TraceError if it is not an object."""
    if isinstance(value, Document):
        return value
    if not isinstance(value, dict):
        raise _nonsense(what, f"{type(value).__name__} instead of an object")
    return Document(what, value)


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON object and the name it has in errors."""

    what: str
    values: Mapping[str, object]

    def integer(
        self, name: str, high: int = INTEGER_LIMIT, low: int = 0, default: int | None = None
    ) -> int:
        """Return an integer of `low` to `high`, both included."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, value)
        if not low <= value <= high:
            raise self._wrong(name, value)
        return value

    def optional_integer(self, name: str, high: int = INTEGER_LIMIT) -> int | None:
        """Return an integer of 0 to `high`, or None where it is null or absent."""
        return None if self.values.get(name) is None else self.integer(name, high)

    def optional_number(self, name: str, high: float) -> float | None:
        """Return a number of 0 to `high`, or None where it is null or absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, value)
        if not 0 <= value <= high:  # false for NaN too
            raise self._wrong(name, value)
        return float(value)

    def text(self, name: str, limit: int = TEXT_LIMIT, default: str | None = "") -> str:
        """Return a text of at most `limit` characters."""
        return self._text(name, self._value(name, default), limit)

    def texts(self, name: str, count: int, total: int) -> tuple[str, ...]:
        """Return a list of at most `count` texts with at most `total` characters together."""
        values = self._list(name, count)
        texts = tuple(self._text(name, value, total) for value in values)
        if sum(map(len, texts)) > total:
            raise self._wrong(name, f"{sum(map(len, texts))} characters")
        return texts

    def integers(self, name: str, count: int, high: int = INTEGER_LIMIT) -> tuple[int, ...]:
        """Return a list of at most `count` integers of 0 to `high`."""
        items = {str(index): item for index, item in enumerate(self._list(name, count))}
        child = Document(f"{self.what} {name}", items)
        return tuple(child.integer(index, high) for index in items)

    def number_map(self, name: str, count: int, high: float) -> dict[str, float]:
        """Return an object of at most `count` numbers of 0 to `high`."""
        child = self.child(name, count)
        numbers = {key: child.optional_number(key, high) for key in child.values}
        return {
            self._text(name, key, TEXT_LIMIT): number
            for key, number in numbers.items()
            if number is not None
        }

    def text_map(self, name: str, count: int, limit: int = TEXT_LIMIT) -> dict[str, str]:
        """Return an object of at most `count` texts of at most `limit` characters."""
        return {
            self._text(name, key, limit): self._text(name, value, limit)
            for key, value in self.child(name, count).values.items()
        }

    def integer_map(self, name: str, count: int, high: int = INTEGER_LIMIT) -> dict[str, int]:
        """Return an object of at most `count` integers of 0 to `high`."""
        child = self.child(name, count)
        return {self._text(name, key, TEXT_LIMIT): child.integer(key, high) for key in child.values}

    def cpulist(
        self, name: str, limit: int = CPU_LIMIT, default: str | None = ""
    ) -> tuple[int, ...]:
        """Return the numbers of a list such as "0-3,8", all below `limit`."""
        value = self._value(name, default)
        try:
            return parse_cpulist(value if isinstance(value, str) else "?", limit)
        except ValueError:
            raise self._wrong(name, value) from None

    def child(self, name: str, count: int = 1024) -> Document:
        """Return a nested object of at most `count` fields; an empty one where it is absent."""
        child = document(self.values.get(name, {}), f"{self.what} {name}")
        if len(child.values) > count:
            raise self._wrong(name, f"{len(child.values)} fields")
        return child

    def children(self, name: str, count: int) -> tuple[Document, ...]:
        """Return a list of at most `count` objects."""
        return tuple(document(item, f"{self.what} {name}") for item in self._list(name, count))

    def node_key(self, key: str, limit: int) -> int:
        """Return the node number that an object's key stands for."""
        if not (key.isascii() and key.isdecimal() and len(key) <= 5 and int(key) < limit):
            raise self._wrong("node", key)
        return int(key)

    def require(self, holds: bool, why: str) -> None:
        """Raise TraceError with `why` unless the condition holds."""
        if not holds:
            raise _nonsense(self.what, why)

    def _value(self, name: str, default: object) -> object:
        value = self.values.get(name, default)
        if value is None:
            raise _nonsense(self.what, f"no {name}")
        return value

    def _list(self, name: str, count: int) -> list[object]:
        values = self.values.get(name, [])
        if not isinstance(values, list):
            raise self._wrong(name, values)
        if len(values) > count:
            raise self._wrong(name, f"{len(values)} items")
        return values

    def _text(self, name: str, value: object, limit: int) -> str:
        if not isinstance(value, str) or len(value) > limit:
            raise self._wrong(name, value)
        # JSON can spell lone surrogates, which no output can be encoded from.
        return value.encode("utf-8", "replace").decode()

    def _wrong(self, name: str, value: object) -> TraceError:
        return _nonsense(self.what, f"{name[:80]} is {_shown(value)}")


def _shown(value: object) -> str:
    # Never the repr of the whole value: it may be a hundred megabytes, or thousands of digits.
    if isinstance(value, str):
        return repr(value[:80])
    small = (
        value is None
        or isinstance(value, float)
        or (isinstance(value, int) and abs(value) <= INTEGER_LIMIT)
    )
    return repr(value) if small else f"a {type(value).__name__}"


def _nonsense(what: str, why: str) -> TraceError:
    return TraceError(
        f"the document '{what}' of this trace makes no sense",
        why,
        "record again; if the file was copied, copy it again and compare the sizes",
    )
