"""Where a sample's data came from: the bits of perf_mem_data_src, as a class of model/access.py.

The bits are those of include/uapi/linux/perf_event.h. What each processor's driver sets in them is
in arch/x86/events/intel/ds.c, arch/x86/events/amd/ibs.c and tools/perf/util/arm-spe.c; where these
disagree about a bit, a comment says which one forced the rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from numatrace.model.access import DATA_CLASSES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[np.uint64]
    Flags = NDArray[np.bool_]

CLASSES: Final = tuple(DATA_CLASSES)
"""What `Classified.cls` is an index of."""

LOAD: Final = 2
STORE: Final = 4
PREFETCH: Final = 8
EXECUTE: Final = 16
"""Bits of `Classified.op` (PERF_MEM_OP_*); 1 is "not available"."""

# PERF_MEM_LVL_*, the older name space: which level, and whether it was hit.
_HIT, _MISS, _LFB, _LOCAL_RAM, _IO, _UNCACHED = 0x2, 0x4, 0x10, 0x80, 0x1000, 0x2000
_CACHES = 0x8 | 0x20 | 0x40
_L3 = 0x40
_REMOTE_RAM = 0x100 | 0x200
_REMOTE_CACHE = 0x400 | 0x800
_SNOOP_HITM = 0x10
# PERF_MEM_LVLNUM_*, the newer name space. 1 to 6: L1 to L4, L2's miss buffer, memory-side cache.
_NUM_CACHES = (1, 2, 3, 4, 5, 6, 0xB)
_NUM_UNCACHED, _NUM_CXL, _NUM_IO, _NUM_LFB, _NUM_RAM, _NUM_PMEM = 8, 9, 0xA, 0xC, 0xD, 0xE

_DRAM, _CACHE, _CXL, _PMEM = (CLASSES.index(f"local {k}") for k in ("DRAM", "cache", "CXL", "PMEM"))
_LINE_BUFFER, _DEVICE, _UNKNOWN = (CLASSES.index(k) for k in ("line buffer", "uncached", "unknown"))
_TWIN: Final = np.array([CLASSES.index(k.replace("local", "remote")) for k in CLASSES])
"""For each class its twin on another node, or itself where it has none."""


class Classified(NamedTuple):
    """Arrays of one length, one element per word.

    `op` has the bits LOAD, STORE, ...; `cls` is an index into CLASSES. `remote`: from another
    node, which Arm may say of data whose class it does not know. `hitm`: a dirty line of another
    cache. `known`: a load or store whose class is not "unknown"; without it `remote` proves
    little. A word without LOAD and STORE (most of what AMD's IBS takes) is never known.
    """

    op: NDArray[np.uint8]
    cls: NDArray[np.uint8]
    remote: Flags
    hitm: Flags
    known: Flags


class _Fields(NamedTuple):
    op: Words
    level: Words
    snoop: Words
    number: Words
    far: Flags
    hops: Words


def classify(data_src: NDArray[np.uint64]) -> Classified:
    """Class of each word of `data_src` (n, perf_mem_data_src); bits 46 and above are ignored.

    No value is an error: a word that says nothing is "unknown".
    """
    fields = _fields(np.asarray(data_src, dtype=np.uint64))
    hitm = (fields.snoop & _SNOOP_HITM) != 0
    touches = (fields.op & (LOAD | STORE)) != 0
    cls = np.where(touches, _kind(fields, hitm), _UNKNOWN)
    remote = _remote(fields) & touches
    cls = np.where(remote, _TWIN[cls], cls)
    known = touches & (cls != _UNKNOWN)
    return Classified(
        fields.op.astype(np.uint8), cls.astype(np.uint8), remote, hitm & touches, known
    )


def _fields(word: Words) -> _Fields:
    def bits(low: int, width: int) -> Words:
        return (word >> np.uint64(low)) & np.uint64((1 << width) - 1)

    far = bits(37, 1) != 0
    return _Fields(bits(0, 5), bits(5, 14), bits(19, 5), bits(33, 4), far, bits(43, 3))


def _remote(fields: _Fields) -> Flags:
    """From another node. Hops, where given, decide: 1 is a core of the same node.

    AMD marks a near core's cache REMOTE with one hop (ibs.c, Zen 4), and before Zen 4 sets
    REM_CCE1 together with L3 for the same node.
    """
    level = fields.level
    other_cache = ((level & _REMOTE_CACHE) != 0) & ((level & _L3) == 0)
    marked = fields.far | ((level & _REMOTE_RAM) != 0) | other_cache
    return np.where(fields.hops == 0, marked, fields.hops >= 2)


def _kind(fields: _Fields, hitm: Flags) -> NDArray[np.int64]:
    """The class, local where it has a remote twin."""
    level, number = fields.level, fields.number
    # The first condition that holds decides. Remote DRAM precedes the level number, which is L3
    # for it in Intel's default table (ds.c, 0x0b).
    rules: tuple[tuple[Flags, int], ...] = (
        (((level & _REMOTE_RAM) != 0) & ~np.isin(number, (_NUM_CXL, _NUM_PMEM)), _DRAM),
        (number == _NUM_RAM, _DRAM),
        (number == _NUM_CXL, _CXL),
        (number == _NUM_PMEM, _PMEM),
        (number == _NUM_LFB, _LINE_BUFFER),
        (np.isin(number, (_NUM_IO, _NUM_UNCACHED)), _DEVICE),
        (np.isin(number, _NUM_CACHES), _CACHE),
        ((level & _LOCAL_RAM) != 0, _DRAM),
        ((level & _REMOTE_CACHE) != 0, _CACHE),
        ((level & _LFB) != 0, _LINE_BUFFER),
        ((level & _CACHES) != 0, _CACHE),
        ((level & (_IO | _UNCACHED)) != 0, _DEVICE),
    )
    kind = np.select([rule[0] for rule in rules], [rule[1] for rule in rules], _UNKNOWN)
    # A miss and nothing else: "not in this cache", and no word of where then.
    missed = ((level & _MISS) != 0) & ((level & _HIT) == 0) & ~hitm
    return np.where((kind == _CACHE) & missed, _UNKNOWN, kind)
