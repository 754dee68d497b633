"""Anything of a type that reports are made of: plain data down to the leaves that a test gives."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Anything:
    """Strategies by type. `leaves` are those of plain types, `counts` the values by node."""

    leaves: Mapping[Any, st.SearchStrategy[Any]]
    counts: st.SearchStrategy[int]
    nodes: int = 3
    """That such a value has at most."""

    def of(self, hint: Any) -> st.SearchStrategy[Any]:
        """Anything of the type that a field has."""
        if hint in self.leaves:
            return self.leaves[hint]
        if dataclasses.is_dataclass(hint):
            hints = typing.get_type_hints(hint)
            parts = {part.name: self.of(hints[part.name]) for part in dataclasses.fields(hint)}
            return st.builds(typing.cast("Any", hint), **parts)
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Literal:
            return st.sampled_from(inner)
        if origin is tuple:
            return st.lists(self.of(inner[0]), max_size=2).map(tuple)
        if origin is dict:
            return st.dictionaries(st.integers(0, 1023), self.counts, max_size=self.nodes)
        return st.none() | self.of(inner[0])  # X | None


ANYTHING = Anything(
    {
        int: st.integers(),
        str: st.text(st.characters()),
        bool: st.booleans(),
        float: st.floats(allow_nan=False, allow_infinity=False),
    },
    st.integers(),
)
"""All that JSON has a form for."""
