"""The weights that a server reads: mapped tensors, private copies of tensors, bytes per node."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.memory.classes import DELETED, PRIVATE, WEIGHTS
from numatrace.analyze.memory.places import add_up, error_bytes
from numatrace.analyze.samples.access import WORKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numatrace.analyze.load import Loaded
    from numatrace.analyze.memory.anonymous import Span
    from numatrace.analyze.memory.places import Piece
    from numatrace.analyze.memory.regions import Region
    from numatrace.analyze.samples.measure import Measure

UNREAD_SHARE = 0.05
"""Mapped tensors with less of the time in reads of weights than this, beside private memory that
is read for longer, were copied and are read no more, but for the few that have no other layout."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights that are read: bytes per node of what is present.

    A tensor that was repacked counts where its copy lies, not where its file does.
    """

    mapped_bytes: dict[int, int] = field(default_factory=dict)
    """In the page cache: tensors of mapped files."""
    private_bytes: dict[int, int] = field(default_factory=dict)
    """Anonymous: repacked, or read into memory (`--no-mmap`)."""
    absent_bytes: int = 0
    """Of the mapped tensors, what is not present."""
    error_bytes: int = 0
    paths: tuple[str, ...] = ()
    """Model files that are mapped, whether their tensors are read there or from copies."""
    named: bool = True
    """Whether the private ones are known tensors; otherwise large private memory whose tensors are
    unknown stands for them."""

    @property
    def node_bytes(self) -> dict[int, int]:
        """Bytes on each node that holds some."""
        total = Counter(self.mapped_bytes)
        total.update(self.private_bytes)
        return {node: size for node, size in sorted(total.items()) if size}

    @property
    def present_bytes(self) -> int:
        """Bytes that are present on any node."""
        return sum(self.mapped_bytes.values()) + sum(self.private_bytes.values())

    @property
    def parts(self) -> dict[int, float]:
        """Share of the present bytes on each node."""
        total = self.present_bytes
        return {node: size / total for node, size in self.node_bytes.items()}

    @property
    def private_share(self) -> float:
        """Share of the present bytes that is private, 0 to 1."""
        return sum(self.private_bytes.values()) / self.present_bytes if self.present_bytes else 0.0

    @property
    def holder(self) -> int | None:
        """The node that holds the most; the lowest of equals."""
        held = self.node_bytes
        return min(held, key=lambda n: (-held[n], n), default=None)

    @property
    def mapped(self) -> bool:
        """Whether any of them is in the page cache."""
        return bool(self.mapped_bytes)

    @property
    def name(self) -> str:
        """What to call them in a sentence."""
        return "weights" if self.named else "private memory (weights; tensors unknown)"


def weights_of(loaded: Loaded, mine: list[Region], measured: Measure, tgid: int) -> Weights:
    """Return a process's weights; `mine` are its regions.

    Private memory counts as far as it is named as weights. Without a name it counts where it is
    read for longer than all named weights, or where there are no others at all.
    """
    spans = [span for span in loaded.locator.named.spans(tgid) if span.cls in WEIGHTS]
    paths = {each.key.path for each in mine if each.key.cls == "weights" and each.key.path}
    mapped, private = _mapped(mine, spans), _private(mine)
    large = [piece for piece, alone in private if alone] or [piece for piece, _ in private]
    held = any(piece.node_bytes for piece in mapped)
    if measured.unnamed or not (spans or held):
        if measured.unnamed and _unread(loaded, measured, tgid):
            mapped = []
        copies, counted, named = add_up(large), large, not large
    else:
        counted = [piece for piece, _ in private] if spans else []
        copies, named = _inside(spans, counted), True
    return Weights(
        mapped_bytes=add_up(mapped),
        private_bytes=copies,
        absent_bytes=sum(piece.absent_bytes for piece in mapped) if held else 0,
        error_bytes=_error([*mapped, *counted]),
        paths=tuple(sorted(paths)),
        named=named,
    )


def _mapped(mine: Iterable[Region], spans: Iterable[Span]) -> list[Piece]:
    """Return the mapped tensors that have no private copy; whole files where no tensor is known."""
    regions = [region for region in mine if region.key.cls == "weights"]
    pieces = [piece for region in regions for piece in region.pieces]
    copied = {(span.path, span.tensor) for span in spans if span.tensor}
    named = [piece for piece in pieces if piece.key.name] or pieces
    return [
        piece
        for piece in named
        if not {(piece.path.removesuffix(DELETED), piece.key.name), ("", piece.key.name)} & copied
    ]


def _private(mine: Iterable[Region]) -> list[tuple[Piece, bool]]:
    """Return private mappings, and whether each is a large one."""
    return [
        (piece, region.alone)
        for region in mine
        if region.key.cls == PRIVATE
        for piece in region.pieces
    ]


def _inside(spans: Iterable[Span], pieces: Iterable[Piece]) -> dict[int, int]:
    """Return the bytes of the spans on each node: each mapping's bytes, by their part of it."""
    ordered = sorted(pieces, key=lambda piece: piece.key)
    starts = [piece.key.addr for piece in ordered]
    covered: Counter[int] = Counter()
    for span in spans:
        for number in range(max(0, bisect_right(starts, span.start) - 1), len(ordered)):
            piece = ordered[number]
            if piece.key.addr >= span.end:
                break
            end = min(span.end, piece.key.addr + piece.bytes)
            covered[number] += max(0, end - max(span.start, piece.key.addr))
    total: Counter[int] = Counter()
    for number, size in covered.items():
        present = sum(ordered[number].node_bytes.values())
        # What holds data is present: the rest of the mapping is what was only set aside.
        for node, held in ordered[number].node_bytes.items():
            total[node] += round(held / present * min(size, present))
    return {node: size for node, size in sorted(total.items()) if size}


def _unread(loaded: Loaded, measured: Measure, tgid: int) -> bool:
    """Whether the mapped tensors have next to none of the time in reads of weights."""
    cells, places = measured.cells, loaded.locator.places
    mine = np.array([place.tgid == tgid for place in places], bool) & measured.weights
    mapped = mine & np.array([bool(place.path) for place in places], bool)
    every, some = (
        float(cells.time_ns[WORKING[cells.phase] & chosen[cells.place]].sum())
        for chosen in (mine, mapped)
    )
    return some < UNREAD_SHARE * every


def _error(pieces: Sequence[Piece]) -> int:
    return 0 if all(piece.census for piece in pieces) else error_bytes(list(pieces))
