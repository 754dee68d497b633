"""Turn the heads of tensors into rows that say what lies where, once the model's table is known."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numatrace.record.tensors.heads import STUDIED_HEADS, padded, read, study

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numatrace.record.tensors.gguf_table import GgufTable, Identity, Tensor
    from numatrace.record.tensors.heads import Head, Layout

Array = np.ndarray[Any, Any]

CACHE = re.compile(r"cache_[a-z_]{1,16}_l[0-9]{1,5}")
"""How llama.cpp names the tensors of its KV cache and of recurrent states."""

MAX_WAITING = 8_000
"""Heads of one process that wait for a table: 4 MB."""


class Source(NamedTuple):
    """A row of a GGUF table, and the file."""

    tensor: Tensor
    path: str


class Named(NamedTuple):
    """A tensor that was given an address; sizes in bytes. `path`: "" where unknown."""

    t_ns: int
    tid: int
    addr: int
    bytes: int
    name: str
    path: str
    type: str | None


class NameTable:
    """The tensors of all model files that were found so far, by name."""

    def __init__(self, tables: Mapping[Identity, GgufTable]) -> None:
        self._tables = tables
        self._read: set[tuple[Identity, int]] = set()
        self.sources: dict[str, list[Source]] = {}
        self.tensors: dict[str, list[Tensor]] = {}

    def refresh(self) -> bool:
        """Take in tables that came since the last call; whether there were any."""
        news = [
            (key, table)
            for key, table in list(self._tables.items())
            if (key, len(table.tensors)) not in self._read
        ]
        for key, table in news:
            self._read.add((key, len(table.tensors)))
            for tensor in table.tensors:
                self.sources.setdefault(tensor.name, []).append(Source(tensor, table.path))
                self.tensors.setdefault(tensor.name, []).append(tensor)
        return bool(news)


class Namer:
    """The tensors of one process: learns how its build lays out the struct, then reads it."""

    def __init__(self) -> None:
        self.layout: Layout | None = None
        self.n_waiting = 0
        self._waiting: list[Array] = []

    def take(self, records: Array, table: NameTable) -> list[Named]:
        """Return the tensors among these records; those of unknown names wait for their table."""
        if self.layout is None:
            records = self._with_waiting(records)
        if len(records) and not _is_complete(self.layout):
            studied = [head.tobytes() for head in records["head"][:STUDIED_HEADS]]
            self.layout = study(studied, table.tensors) or self.layout
        if self.layout is None:
            self._wait(records)
            return []
        heads = [read(head.tobytes(), self.layout) for head in records["head"]]
        paths = _paths(heads, table)
        named = [
            _named(record, head, table, paths) for record, head in zip(records, heads, strict=True)
        ]
        self._wait(records[[each is None for each in named]])
        return [each for each in named if each is not None]

    def retry(self, table: NameTable) -> list[Named]:
        """Return the tensors among the records that wait: tables came in."""
        return self.take(self._with_waiting(None), table) if self._waiting else []

    def _with_waiting(self, records: Array | None) -> Array:
        parts = [*self._waiting, *([] if records is None else [records])]
        self._waiting, self.n_waiting = [], 0
        return np.concatenate(parts)

    def _wait(self, records: Array) -> None:
        """Keep records for later, the first of them where there are too many."""
        kept = records[: MAX_WAITING - self.n_waiting]
        if len(kept):
            self._waiting.append(kept)
            self.n_waiting += len(kept)


def _is_complete(layout: Layout | None) -> bool:
    return layout is not None and None not in layout


def _fits(head: Head, source: Source) -> bool:
    """Whether a tensor may be this one: its shape and type, where they are known."""
    tensor = source.tensor
    return head.shape in (None, padded(tensor.shape)) and head.type in (None, tensor.type)


def _fitting(head: Head, table: NameTable) -> dict[str, Tensor]:
    """The tensors that this one may be, by file."""
    sources = table.sources.get(head.name, ())
    return {source.path: source.tensor for source in sources if _fits(head, source)}


def _paths(heads: Iterable[Head], table: NameTable) -> list[str]:
    """Return model files by falling number of these tensors that only they have.

    Two models of one family share names and even shapes, but seldom all of them.
    """
    votes: Counter[str] = Counter()
    for head in heads:
        fitting = _fitting(head, table)
        if len(fitting) == 1:
            votes.update(fitting.keys())
    return [path for path, _ in votes.most_common()]


def _named(record: Any, head: Head, table: NameTable, paths: list[str]) -> Named | None:
    where = int(record["t_ns"]), int(record["tid"]), int(record["addr"])
    fitting = _fitting(head, table)
    if fitting:
        path = _choose(fitting, paths)
        tensor = fitting.get(path) or next(iter(fitting.values()))
        return Named(*where, tensor.bytes, head.name, path, tensor.type)
    if head.bytes and CACHE.fullmatch(head.name):
        return Named(*where, head.bytes, head.name, "", head.type)
    return None


def _choose(fitting: Mapping[str, Tensor], paths: list[str]) -> str:
    """Return the file that a tensor is from, or "" where nothing tells."""
    if len(fitting) == 1:
        return next(iter(fitting))
    return next((path for path in paths if path in fitting), "")
