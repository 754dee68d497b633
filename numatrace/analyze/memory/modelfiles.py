"""Which tensor, and which expert of it, lies at an offset of a model file."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numatrace.analyze.documents import Tensor
    from numatrace.analyze.rows import Numbers

EXPERTS = "_exps.weight"
"""End of the names of tensors that hold one matrix for each expert, the expert being the last
dimension (llama.cpp, LLM_TENSOR_FFN_GATE_EXPS and its like)."""
PARTS = 262_144
"""Experts of one file that are told apart; in a file that claims more, none are."""
NONE = -1


def experts(tensor: Tensor) -> int:
    """Return how many experts' equal parts a tensor consists of, one after the other; 0 if none."""
    if not tensor.name.endswith(EXPERTS) or len(tensor.shape) != 3:
        return 0
    count = tensor.shape[2]
    return count if 0 < count < PARTS and tensor.bytes and tensor.bytes % count == 0 else 0


class TensorTable:
    """The tensors of one file by offset. A part is a tensor, or one expert's equal part of it."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors = sorted(tensors, key=lambda tensor: (tensor.offset, tensor.name))
        counts = [experts(tensor) for tensor in self.tensors]
        self._experts = counts if sum(counts) <= PARTS else [0] * len(counts)
        parts = np.maximum(np.array(self._experts, np.int64), 1)
        self._first = np.concatenate([[0], np.cumsum(parts)])
        self.parts = int(self._first[-1])
        self._starts = np.array([tensor.offset for tensor in self.tensors], np.uint64)
        self._bytes = np.array([tensor.bytes for tensor in self.tensors], np.uint64)
        self._part_bytes = np.maximum(self._bytes // parts.astype(np.uint64), np.uint64(1))

    def locate(self, offsets: Numbers) -> Numbers:
        """Return for each offset (uint64) the number of its part, or NONE."""
        place = np.searchsorted(self._starts, offsets, side="right").astype(np.int64) - 1
        safe = np.maximum(place, 0)
        within = offsets - self._starts[safe]
        inside = (place >= 0) & (within < self._bytes[safe])
        parts = self._first[safe] + (within // self._part_bytes[safe]).astype(np.int64)
        return np.where(inside, parts, NONE)

    def part(self, number: int) -> tuple[Tensor, int | None]:
        """Return the tensor that a part belongs to, and its expert if it has several."""
        index = int(np.searchsorted(self._first, number, side="right")) - 1
        expert = number - int(self._first[index]) if self._experts[index] else None
        return self.tensors[index], expert


class ModelFiles:
    """The tensor tables of all model files, by path and inode."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        found: defaultdict[tuple[str, int], list[Tensor]] = defaultdict(list)
        for tensor in tensors:
            found[tensor.path, tensor.inode].append(tensor)
        self._tables = {file: TensorTable(each) for file, each in sorted(found.items())}
        self._by_inode = {inode: table for (_, inode), table in self._tables.items() if inode}
        self.inodes = set(self._by_inode)

    def table(self, path: str, inode: int) -> TensorTable | None:
        """Return a mapped file's table, or None.

        A file that was replaced is "PATH (deleted)" in the map and PATH in the table.
        """
        return self._tables.get((path, inode)) or self._by_inode.get(inode)
