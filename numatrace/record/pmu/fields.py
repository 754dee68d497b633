"""Takes the values out of a parsed TOML table, each of its type and each exactly once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXT_LIMIT = 400
_NOTHING: Any = object()


class TableError(ValueError):
    """A table that ships with the program is not of its form: a mistake in the program."""


class Reader:
    """One table. `done` complains about what nobody asked for."""

    def __init__(self, where: str, values: dict[str, Any], name: str = "") -> None:
        self.where = where
        self.name = name
        self._values = dict(values)

    def error(self, key: str, why: str) -> TableError:
        """Return an error that says where it is."""
        return TableError(f"{self.where}: {key} {why}")

    def done(self) -> None:
        """Raise TableError for values that were not taken."""
        if self._values:
            raise TableError(f"{self.where}: unknown {', '.join(sorted(self._values))}")

    def has(self, key: str) -> bool:
        """Whether there is a value that was not taken yet."""
        return key in self._values

    def text(self, key: str, default: str = _NOTHING) -> str:
        """Take a text of one line, not empty."""
        value = self._take(key, str, default)
        if value is not default and not (value.isprintable() and 0 < len(value) <= TEXT_LIMIT):
            raise self.error(key, "must be one line of text")
        return str(value)

    def word(self, key: str, words: Sequence[str]) -> str:
        """Take one of `words`."""
        value = self.text(key)
        if value not in words:
            raise self.error(key, f"must be one of {', '.join(words)}")
        return value

    def number(self, key: str, first: int, last: int, default: int = _NOTHING) -> int:
        """Take a whole number from `first` to `last`."""
        value = self._take(key, int, default)
        if isinstance(value, bool) or not first <= value <= last:
            raise self.error(key, f"must be from {first} to {last}")
        return int(value)

    def numbers(self, key: str, last: int) -> frozenset[int]:
        """Take a list of numbers from 0 to `last` and of pairs [first, last] of them."""
        found: set[int] = set()
        for item in self._take(key, list):
            pair = item if isinstance(item, list) else [item, item]
            whole = all(type(number) is int and 0 <= number <= last for number in pair)
            if len(pair) != 2 or not whole or pair[0] > pair[1]:
                raise self.error(key, f"has {item!r}, which is no number up to {last} or pair")
            found.update(range(pair[0], pair[1] + 1))
        if not found:
            raise self.error(key, "is empty")
        return frozenset(found)

    def texts(self, key: str) -> tuple[str, ...]:
        """Take a list of texts, which may be empty."""
        values = self._take(key, list)
        if not all(isinstance(value, str) and value for value in values):
            raise self.error(key, "must be a list of texts")
        return tuple(values)

    def table(self, key: str) -> Reader | None:
        """Take a table; None where there is none."""
        if not self.has(key):
            return None
        return Reader(f"{self.where}: {key}", self._take(key, dict))

    def tables(self, key: str) -> list[tuple[str, Reader]]:
        """Take a table of tables; none where there is none."""
        below = self._take(key, dict, {})
        return [
            (name, Reader(f"{self.where}: {key}.{name}", self._table(key, value), name))
            for name, value in below.items()
        ]

    def rows(self, key: str) -> list[Reader]:
        """Take a list of tables."""
        values = self._take(key, list)
        return [
            Reader(f"{self.where}: {key} {place}", self._table(key, value))
            for place, value in enumerate(values, 1)
        ]

    def _table(self, key: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.error(key, "must hold tables")
        return value

    def _take(self, key: str, type_: type, default: Any = _NOTHING) -> Any:
        value = self._values.pop(key, default)
        if value is _NOTHING:
            raise self.error(key, "is missing")
        if value is not default and not isinstance(value, type_):
            raise self.error(key, f"must be of type {type_.__name__}")
        return value
