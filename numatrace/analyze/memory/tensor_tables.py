"""The tensor tables of all model files in a trace, and the models that they make up."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from numatrace.analyze.documents import SHAPE, Tensor
from numatrace.analyze.memory.buffer_layout import Model

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numatrace.analyze.memory.buffer_layout import Guess
    from numatrace.analyze.rows import Rows

TENSORS = 500_000
FILES = 256
GUESSES = 4096

SHARD = re.compile(r"-[0-9]{5}-of-[0-9]{5}\.gguf$")


class Tables:
    """Tensors by file and name. A file that was replaced counts as it was last."""

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        self._files: dict[str, dict[str, Tensor]] = {}
        self._inodes: dict[str, int] = {}
        self._count = 0
        self._models: dict[str, Model] | None = None
        self._guesses: dict[tuple[str, int, bool], list[Guess]] = {}
        for tensor in tensors:
            self._add(tensor)

    def take(self, rows: Rows) -> bool:
        """Take rows of the kind tensor; whether any is new."""
        before = self._count
        texts = (rows.texts(name) for name in ("path", "name", "detail", "value"))
        numbers = (rows.integers(name) for name in ("inode", "offset", "bytes"))
        for path, name, type_, shape, inode, offset, size in zip(*texts, *numbers, strict=True):
            self._add(Tensor(path, inode, name, offset, size, type_, _shape(shape)))
        return self._count > before

    def find(self, path: str, name: str) -> Tensor | None:
        """Return a tensor of a file."""
        return self._files.get(path, {}).get(name)

    def models(self) -> dict[str, Model]:
        """Return all models, by the path without the number of the shard."""
        if self._models is None:
            self._guesses.clear()
            groups: defaultdict[str, list[Tensor]] = defaultdict(list)
            for path, table in sorted(self._files.items()):
                groups[SHARD.sub("", path)].extend(table.values())
            self._models = {
                path: Model(path if path in self._files else "", group)
                for path, group in groups.items()
            }
        return self._models

    def guesses(self, model: str, size: int, *, mapped: bool) -> list[Guess]:
        """Return what a buffer of a size may hold of a model; see Model.guesses."""
        key = model, size, mapped
        if key not in self._guesses:
            if len(self._guesses) >= GUESSES:
                self._guesses.clear()
            self._guesses[key] = self.models()[model].guesses(size, mapped=mapped)
        return self._guesses[key]

    def inodes(self, model: str) -> set[int]:
        """Return the inodes of a model's files."""
        return {
            inode for path, inode in self._inodes.items() if inode and SHARD.sub("", path) == model
        }

    def _add(self, tensor: Tensor) -> None:
        if self._inodes.get(tensor.path, tensor.inode) != tensor.inode:
            self._count -= len(self._files.pop(tensor.path, ()))
            self._models = None
        crowded = self._count >= TENSORS or len(self._files) >= FILES
        if not tensor.name or (crowded and tensor.path not in self._files):
            return
        table = self._files.setdefault(tensor.path, {})
        self._inodes[tensor.path] = tensor.inode
        if tensor.name not in table and self._count < TENSORS:
            table[tensor.name] = tensor
            self._count += 1
            self._models = None


def _shape(text: str) -> tuple[int, ...]:
    """Return a shape from its JSON list; empty where it is none that ggml could have."""
    if not SHAPE.fullmatch(text):
        return ()
    return tuple(int(number) for number in text[1:-1].split(","))
