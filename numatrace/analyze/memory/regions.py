"""Give memory the names that a user knows: weights, private memory, heap, stack, code, files."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from numatrace.analyze.memory.classes import PRIVATE, classify
from numatrace.analyze.memory.places import add_up, error_bytes
from numatrace.analyze.samples.measure import NOT_READ
from numatrace.model.views import RegionView

if TYPE_CHECKING:
    from numatrace.analyze.load import Loaded
    from numatrace.analyze.memory.locate import Place
    from numatrace.analyze.memory.places import Piece
    from numatrace.analyze.samples.measure import Measure, Trio
    from numatrace.model.views import RegionClass

LARGE_BYTES = 16 << 20
"""From this size on a private mapping or a file is a region of its own: smaller than any model's
buffers that matter, larger than a thread's stack (8 MiB)."""
LARGE_COUNT = 32
"""Regions of their own per process and class; the rest count together."""
NAMED: tuple[RegionClass, ...] = ("repacked weights", "KV cache", "compute")
"""Private memory with a name. It lies in mappings that are regions as well."""


class RegionKey(NamedTuple):
    """A region: its process, class, file, and start where it is one mapping of several."""

    tgid: int
    cls: RegionClass
    path: str
    start: int = 0


@dataclass(slots=True)
class Region:
    """What belongs to a region."""

    key: RegionKey
    pieces: list[Piece] = field(default_factory=list)
    faults: int = 0
    named_bytes: int = 0
    """Size of its named private memory, which has no pieces of its own."""

    @property
    def label(self) -> str:
        """The name that the report gives it."""
        return _label(self.key)

    @property
    def alone(self) -> bool:
        """Whether it is one mapping or file, and not all small ones of its class."""
        return bool(self.key.start or self.key.path)

    @property
    def bytes(self) -> int:
        """Size of its address space."""
        return sum(piece.bytes for piece in self.pieces)

    @property
    def node_bytes(self) -> dict[int, int]:
        """Bytes of it on each node."""
        return add_up(self.pieces)

    def view(self, read: Trio = NOT_READ) -> RegionView:
        """Return it as the report shows it, with what was measured of it."""
        read_ns, remote_share, lost_ns = read
        census = all(piece.census for piece in self.pieces)
        return RegionView(
            tgid=self.key.tgid,
            label=self.label,
            cls=self.key.cls,
            path=self.key.path,
            pieces=len(self.pieces),
            bytes=self.bytes or self.named_bytes,
            node_bytes=self.node_bytes,
            absent_bytes=sum(piece.absent_bytes for piece in self.pieces),
            error_bytes=0 if census else error_bytes(self.pieces),
            census=census,
            source="placement",
            changes=sum(piece.changes for piece in self.pieces),
            faults=self.faults,
            read_ns=read_ns,
            remote_share=remote_share,
            lost_ns=lost_ns,
        )


@dataclass(slots=True)
class Regions:
    """All regions, by falling size, and the one that each place of a sample belongs to."""

    regions: list[Region]
    by_place: dict[int, Region]

    def of(self, tgid: int | None) -> list[Region]:
        """Return a process's regions."""
        return [region for region in self.regions if region.key.tgid == tgid]


def region_views(found: Regions, measured: Measure) -> tuple[RegionView, ...]:
    """Return all regions as the report shows them."""
    index = {region.key: number for number, region in enumerate(found.regions)}
    of_place = [index[found.by_place[number].key] for number in range(len(found.by_place))]
    cells = measured.cells
    sums = cells.sums(np.array(of_place, np.int64)[cells.place], measured.working)
    return tuple(
        region.view(measured.trio(sums.get(number))) for number, region in enumerate(found.regions)
    )


def regions(loaded: Loaded) -> Regions:
    """Return all regions with their pieces and faults.

    The faults of all regions together are the attributed faults.
    """
    found: dict[RegionKey, Region] = {}
    for piece, key in zip(loaded.pieces, _piece_keys(loaded), strict=True):
        found.setdefault(key, Region(key)).pieces.append(piece)
    by_place: dict[int, Region] = {}
    for number, place in enumerate(loaded.locator.places):
        fine = _place_key(loaded, place)
        key = fine if fine in found or _is_named(place) else _coarse(fine)
        by_place[number] = found.setdefault(key, Region(key))
    for number, faults in loaded.faults.by_place.items():
        by_place[number].faults += faults
    for tgid in {place.tgid for place in loaded.locator.places if _is_named(place)}:
        for span in loaded.locator.named.spans(tgid):
            region = found.get(RegionKey(tgid, span.cls, span.path))
            if region is not None:
                region.named_bytes += span.end - span.start
    ordered = sorted(found.values(), key=lambda region: (-region.bytes, region.key))
    return Regions(ordered, by_place)


def _piece_keys(loaded: Loaded) -> list[RegionKey]:
    """Return every piece's region: large ones apart, the rest together."""
    keys = []
    present: Counter[RegionKey] = Counter()
    gguf = loaded.locator.files.inodes
    for piece in loaded.pieces:
        mapping = loaded.locator.spaces.find(piece.key.tgid, piece.key.addr)
        perms = mapping.perms if mapping is not None else ""
        cls = "weights" if piece.key.name else classify(piece.path, piece.inode, perms, gguf)
        key = _fine_key(piece.key.tgid, cls, piece.path, piece.key.addr)
        keys.append(key)
        present[key] += sum(piece.node_bytes.values())
    large = _large(present)
    return [key if key in large else _coarse(key) for key in keys]


def _large(present: Counter[RegionKey]) -> set[RegionKey]:
    """Return the keys that are regions of their own."""
    large = {key for key in present if key.cls == "weights"}
    by_class: defaultdict[tuple[int, str], list[tuple[int, RegionKey]]] = defaultdict(list)
    for key, size in present.items():
        if size >= LARGE_BYTES and key.cls not in ("weights", "code"):
            by_class[key.tgid, key.cls].append((-size, key))
    for candidates in by_class.values():
        large.update(key for _, key in sorted(candidates)[:LARGE_COUNT])
    return large


def _is_named(place: Place) -> bool:
    """Whether it is private memory with a name."""
    return place.cls in NAMED or (place.cls == "weights" and not place.path)


def _place_key(loaded: Loaded, place: Place) -> RegionKey:
    if _is_named(place):
        return RegionKey(place.tgid, place.cls, place.model)
    # The mapping may have grown since, or have been merged with the one before it.
    now = loaded.locator.spaces.find(place.tgid, place.start) if place.start else None
    start = now.start if now is not None else place.start
    return _fine_key(place.tgid, place.cls, place.path, start)


def _fine_key(tgid: int, cls: RegionClass, path: str, addr: int) -> RegionKey:
    return RegionKey(tgid, cls, path, addr if cls == PRIVATE and not path else 0)


def _coarse(key: RegionKey) -> RegionKey:
    """Return the region that a small mapping counts with: all small ones of its class."""
    return key if key.cls == "weights" or key.cls in NAMED else RegionKey(key.tgid, key.cls, "")


def _label(key: RegionKey) -> str:
    name = key.path.rpartition("/")[2] or key.path
    if key.cls == "weights":
        return name or "weights"
    if key.cls in NAMED:
        return f"{key.cls} of {name}" if name else key.cls
    if key.cls == PRIVATE:
        if key.start:
            return f"private memory at {key.start:#x}"
        return f"private memory {name}" if name else "small private mappings"
    if key.cls in ("heap", "stack"):
        return key.cls
    together = {"code": "code", "file": "other files", "other": "other memory"}
    return name or together[key.cls]
