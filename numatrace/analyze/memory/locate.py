"""Give every address the name of what lay there at that time: tensor, layer or region."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from numatrace.analyze.memory.classes import PRIVATE, classify
from numatrace.analyze.memory.modelfiles import NONE
from numatrace.analyze.memory.spaces import Spaces
from numatrace.analyze.memory.tensors import layer_of
from numatrace.analyze.rows import alike

if TYPE_CHECKING:
    from numatrace.analyze.memory.anonymous import NamedMemory, Span
    from numatrace.analyze.memory.mappings import AddressSpace, Mapping
    from numatrace.analyze.memory.modelfiles import ModelFiles, TensorTable
    from numatrace.analyze.rows import Numbers, Rows
    from numatrace.model.views import RegionClass

NOWHERE = -1
"""The place of an address that no mapping held."""
PLACES = 500_000
"""Places that are told apart: a large model has some 2,000 tensors; of those with experts each
expert is one. Further ones count with what they are part of."""
PRIVATE_PLACES = 16_384
"""Anonymous mappings that are told apart: a server may make and drop many."""
FILES = 64
"""Mapped models whose places are kept at hand."""
NAMED = (PRIVATE, "heap")
"""Classes of mappings in which named private memory may lie."""
Exactness = Literal["mapped", "traced", "estimated", "unknown"]
"""How a place got its name: by its file offset, by a probe in the server, by the sizes of
buffers, or not at all beyond the kind of memory."""


class Place(NamedTuple):
    """Memory under one name, as fine as it is known."""

    tgid: int
    cls: RegionClass
    path: str = ""
    """Mapped file; "" for private memory."""
    start: int = 0
    """Where an anonymous mapping begins that has no other name."""
    model: str = ""
    """Model file that the tensor is from, "" where there is none or it is unknown."""
    tensor: str = ""
    layer: int | None = None
    expert: int | None = None
    exactness: Exactness = "unknown"

    def parent(self) -> Place | None:
        """Return what it is part of: tensor, layer, file or mapping, class; None at the end."""
        if self.expert is not None:
            return self._replace(expert=None)
        if self.tensor:
            return self._replace(tensor="")
        if self.layer is not None:
            return self._replace(layer=None)
        if self.path or self.start or self.model:
            return Place(self.tgid, self.cls)
        return None if self.exactness == "unknown" else Place(self.tgid, self.cls)


class Locator:
    """Addresses of all processes to places, in one pass over the batches."""

    def __init__(self, files: ModelFiles, named: NamedMemory) -> None:
        self.files = files
        self.named = named
        self.spaces = Spaces()
        self.places: list[Place] = []
        self._ids: dict[Place, int] = {}
        self._parents: dict[int, int] = {}
        self._private = 0
        self._parts: dict[tuple[int, str, int], Numbers] = {}
        self._spans: dict[int, tuple[int, _SpanParts]] = {}

    def take(
        self, batch: dict[str, Rows], times: Numbers, tgids: Numbers, addrs: Numbers
    ) -> Numbers:
        """Apply a batch's changes of mappings; return the place of every address at its time.

        Times and addresses are uint64, in any order. The result is int64: an index into
        `places`, or NOWHERE.
        """
        self.named.take(batch)
        order = np.argsort(times, kind="stable")
        found = np.full(len(times), NOWHERE, np.int64)
        for first, last in self.spaces.steps(batch.get("map"), batch.get("unmap"), times[order]):
            part = order[first:last]
            found[part] = self._locate(tgids[part], addrs[part], int(times[part[0]]))
        return found

    def now(self, tgids: Numbers, addrs: Numbers) -> Numbers:
        """Return the places of addresses by the mappings that are there now."""
        return self._locate(tgids, addrs, None)

    def id(self, place: Place) -> int:
        """Return a place's index; that of what it is part of when there are too many."""
        known = self._ids.get(place)
        if known is not None:
            return known
        crowded = len(self.places) >= PLACES or (place.start and self._private >= PRIVATE_PLACES)
        parent = place.parent() if crowded else None
        if parent is not None:
            return self.id(parent)
        self._private += bool(place.start)
        self._ids[place] = len(self.places)
        self.places.append(place)
        return len(self.places) - 1

    def parent(self, place: int) -> int:
        """Return the index of what a place is part of, or its own at the end."""
        if place not in self._parents:
            parent = self.places[place].parent()
            self._parents[place] = place if parent is None else self.id(parent)
        return self._parents[place]

    def _locate(self, tgids: Numbers, addrs: Numbers, since_ns: int | None) -> Numbers:
        found = np.full(len(addrs), NOWHERE, np.int64)
        for mine in alike(tgids):
            tgid = int(tgids[mine[0]])
            space = self.spaces.get(tgid)
            if space is not None:
                found[mine] = self._in_space(tgid, space, addrs[mine], since_ns)
        return found

    def _in_space(
        self, tgid: int, space: AddressSpace, addrs: Numbers, since_ns: int | None
    ) -> Numbers:
        starts, inside = space.locate(addrs)
        found = np.full(len(addrs), NOWHERE, np.int64)
        hits = np.flatnonzero(inside)
        for group in alike(starts[hits]):
            part = hits[group]
            mapping = space.at(int(starts[part[0]]))
            found[part] = self._in_mapping(tgid, mapping, addrs[part])
        left = inside == 0
        for mapping in space.gone_since(since_ns) if since_ns is not None and left.any() else ():
            part = np.flatnonzero(left & (addrs >= mapping.start) & (addrs < mapping.end))
            found[part] = self._in_mapping(tgid, mapping, addrs[part])
            left[part] = False
        return found

    def _in_mapping(self, tgid: int, mapping: Mapping, addrs: Numbers) -> Numbers:
        table = self.files.table(mapping.path, mapping.inode) if mapping.inode else None
        if table is not None:
            return self._in_model(tgid, mapping, table, addrs)
        found = np.full(len(addrs), NOWHERE, np.int64)
        cls = classify(mapping.path, mapping.inode, mapping.perms, self.files.inodes)
        if cls in NAMED:
            spans = self.named.locate(tgid, addrs)
            inside = spans >= 0
            if inside.any():
                found[inside] = self._in_spans(tgid, spans[inside], addrs[inside])
        if (found == NOWHERE).any():
            start = mapping.start if cls == PRIVATE and not mapping.path else 0
            exactness: Exactness = "unknown" if cls == PRIVATE else "mapped"
            place = Place(tgid, cls, mapping.path, start, exactness=exactness)
            found[found == NOWHERE] = self.id(place)
        return found

    def _in_model(self, tgid: int, mapping: Mapping, table: TensorTable, addrs: Numbers) -> Numbers:
        offsets = addrs - np.uint64(mapping.start) + np.uint64(mapping.offset)
        parts = table.locate(offsets)
        known = self._known_parts(tgid, mapping.path, table)
        whole = Place(tgid, "weights", mapping.path, exactness="mapped")
        for part in np.unique(parts[known[parts] == NOWHERE]).tolist():
            known[part] = self.id(whole if part == NONE else _part(whole, table, part))
        return known[parts]

    def _known_parts(self, tgid: int, path: str, table: TensorTable) -> Numbers:
        """Return the places of a file's parts as far as they are known, and last its own."""
        key = tgid, path, id(table)
        if key not in self._parts:
            if len(self._parts) >= FILES:
                self._parts.clear()
            self._parts[key] = np.full(table.parts + 1, NOWHERE, np.int64)
        return self._parts[key]

    def _in_spans(self, tgid: int, spans: Numbers, addrs: Numbers) -> Numbers:
        """Return the places of addresses that lie in named private memory, by index of its span."""
        version, parts = self._spans.get(tgid, (-1, None))
        if parts is None or version != self.named.version(tgid):
            parts = _SpanParts(self.named.spans(tgid))
            self._spans[tgid] = self.named.version(tgid), parts
        numbers = parts.numbers(spans, addrs)
        for number in np.unique(numbers[parts.known[numbers] == NOWHERE]).tolist():
            parts.known[number] = self.id(parts.place(tgid, number))
        found: Numbers = parts.known[numbers]
        return found


class _SpanParts:
    """The spans of a process, those of several experts in their equal parts, numbered."""

    def __init__(self, spans: list[Span]) -> None:
        self._spans = spans
        counts = np.array([max(1, span.experts) for span in spans], np.int64)
        self._counts = counts
        self._starts = np.array([span.start for span in spans], np.uint64)
        sizes = np.array([span.end - span.start for span in spans], np.uint64)
        self._part_bytes = np.maximum(sizes // counts.astype(np.uint64), np.uint64(1))
        self._first = np.concatenate([[0], np.cumsum(counts)])
        self.known = np.full(int(self._first[-1]), NOWHERE, np.int64)

    def numbers(self, spans: Numbers, addrs: Numbers) -> Numbers:
        """Return the number of the part that each address lies in, given its span."""
        part = ((addrs - self._starts[spans]) // self._part_bytes[spans]).astype(np.int64)
        numbers: Numbers = self._first[spans] + np.minimum(part, self._counts[spans] - 1)
        return numbers

    def place(self, tgid: int, number: int) -> Place:
        """Return the place of a part."""
        index = int(np.searchsorted(self._first, number, side="right")) - 1
        span = self._spans[index]
        return Place(
            tgid,
            span.cls,
            model=span.path,
            tensor=span.tensor,
            layer=span.layer,
            expert=number - int(self._first[index]) if span.experts > 1 else None,
            exactness=span.exactness,
        )


def _part(whole: Place, table: TensorTable, number: int) -> Place:
    tensor, expert = table.part(number)
    layer = layer_of(tensor.name)
    return whole._replace(model=tensor.path, tensor=tensor.name, layer=layer, expert=expert)
