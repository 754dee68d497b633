"""Give memory the names that a user knows: weights, private memory, heap, stack, code, files."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from numatrace.analyze.attribution import GONE_PRIVATE
from numatrace.analyze.places import add_up, error_bytes
from numatrace.model.report import RegionView

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numatrace.analyze.attribution import Attribution
    from numatrace.analyze.load import Loaded
    from numatrace.analyze.places import Piece
    from numatrace.model.report import RegionClass

LARGE_BYTES = 16 << 20
"""From this size on a private mapping or a file is a region of its own: smaller than any model's
buffers that matter, larger than a thread's stack (8 MiB)."""
LARGE_COUNT = 32
"""Regions of their own per process and class; the rest count together."""
PRIVATE: RegionClass = "anonymous weights, KV cache or compute buffers (private)"
DELETED = " (deleted)"
SHARED_MEMORY = ("/dev/zero", "/memfd:", "/SYSV", "/dev/shm/", "/dev/")
HUGE_ANONYMOUS = "/anon_hugepage"


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

    @property
    def label(self) -> str:
        """The name that the report gives it."""
        return _label(self.key)

    @property
    def bytes(self) -> int:
        """Size of its address space."""
        return sum(piece.bytes for piece in self.pieces)

    @property
    def node_bytes(self) -> dict[int, int]:
        """Bytes of it on each node."""
        return add_up(self.pieces)

    def view(self) -> RegionView:
        """Return it as the report shows it."""
        census = all(piece.census for piece in self.pieces)
        return RegionView(
            tgid=self.key.tgid,
            label=self.label,
            cls=self.key.cls,
            path=self.key.path,
            pieces=len(self.pieces),
            bytes=self.bytes,
            node_bytes=self.node_bytes,
            absent_bytes=sum(piece.absent_bytes for piece in self.pieces),
            error_bytes=0 if census else error_bytes(self.pieces),
            census=census,
            source="placement",
            changes=sum(piece.changes for piece in self.pieces),
            faults=self.faults,
        )


def regions(loaded: Loaded) -> list[Region]:
    """Return all regions with their pieces and faults, by falling size.

    The faults of all regions together are the attributed faults.
    """
    inodes = loaded.documents.mapped_inodes()
    found: dict[RegionKey, Region] = {}
    keys = _piece_keys(loaded.pieces, loaded.attribution, inodes)
    for piece, key in zip(loaded.pieces, keys, strict=True):
        found.setdefault(key, Region(key)).pieces.append(piece)
    for key, faults in _fault_keys(loaded.attribution, inodes, found):
        found.setdefault(key, Region(key)).faults += faults
    return sorted(found.values(), key=lambda region: (-region.bytes, region.key))


def classify(path: str, inode: int, perms: str, gguf: set[int]) -> RegionClass:
    """Return what kind of memory a mapping is; `gguf` has the inodes of GGUF files."""
    bare = path.removesuffix(DELETED)
    if inode and (inode in gguf or bare.endswith(".gguf")):
        return "weights"
    if not path or path.startswith("[anon:") or bare == HUGE_ANONYMOUS:
        return PRIVATE
    if path.startswith("["):
        return {"[heap]": "heap", "[stack]": "stack"}.get(path, "other")  # type: ignore[return-value]
    if path.startswith(SHARED_MEMORY) or not path.startswith("/"):
        return "other"
    return "code" if "x" in perms else "file"


def _piece_keys(pieces: list[Piece], attribution: Attribution, gguf: set[int]) -> list[RegionKey]:
    """Return every piece's region: large ones apart, the rest together."""
    keys = []
    present: Counter[RegionKey] = Counter()
    for piece in pieces:
        mapping = attribution.find(piece.key.tgid, piece.key.addr)
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


def _fault_keys(
    attribution: Attribution, gguf: set[int], found: dict[RegionKey, Region]
) -> Iterable[tuple[RegionKey, int]]:
    """Return the region and the number of every counted group of faults."""
    for tgid, space in sorted(attribution.spaces.items()):
        for key, faults in sorted(space.faults.items()):
            if key == GONE_PRIVATE:
                yield RegionKey(tgid, PRIVATE, ""), faults
                continue
            cls = classify(key.path, key.inode, "x" if key.executable else "", gguf)
            start = key.start
            now = space.addresses.find(start) if start else None
            fine = _fine_key(tgid, cls, key.path, now.start if now is not None else start)
            yield (fine if fine in found else _coarse(fine)), faults


def _fine_key(tgid: int, cls: RegionClass, path: str, addr: int) -> RegionKey:
    return RegionKey(tgid, cls, path, addr if cls == PRIVATE and not path else 0)


def _coarse(key: RegionKey) -> RegionKey:
    """Return the region that a small mapping counts with: all small ones of its class."""
    return key if key.cls == "weights" else RegionKey(key.tgid, key.cls, "")


def _label(key: RegionKey) -> str:
    name = key.path.rpartition("/")[2] or key.path
    if key.cls == "weights":
        return name or "weights"
    if key.cls == PRIVATE:
        if key.start:
            return f"private memory at {key.start:#x}"
        return f"private memory {name}" if name else "small private mappings"
    if key.cls in ("heap", "stack"):
        return key.cls
    together = {"code": "code", "file": "other files", "other": "other memory"}
    return name or together[key.cls]
