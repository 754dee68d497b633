"""A random cycle of pointers through some memory: the way of the pointer chase."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LINE_BYTES = 64
BLOCK_BYTES = 512
"""The chase visits one line of every block. With a CPU of AMD's fourth EPYC generation it takes a
third less time per load if it visits all lines, and no more if the blocks are larger: prefetchers
bring in the neighbours of a line, too."""
WINDOW_BYTES = 2 << 20
"""It visits all blocks of a window before it goes on to another. In a window of 512 pages it jumps
far enough that no prefetcher follows, and near enough that the TLB of the second level knows the
way: what is measured is the memory, and not the tables of its pages."""

U64 = npt.NDArray[np.uint64]


def write_cycle(words: U64, begin: int, seed: int = 1) -> None:
    """Write the cycle into memory at the address `begin`, seen as `words`.

    The first word of every line that is visited gets the address of the next. The cycle begins at
    `begin` and comes back there. The size must be a multiple of WINDOW_BYTES. The same seed and
    size give the same way, so that all nodes' memory is walked alike.
    """
    order = visits(words.nbytes, seed)
    targets = np.uint64(begin) + np.roll(order, -1) * np.uint64(LINE_BYTES)
    words[order * np.uint64(LINE_BYTES // 8)] = targets


def length(size: int) -> int:
    """Return how many loads the cycle through `size` bytes has."""
    return size // BLOCK_BYTES


def visits(size: int, seed: int) -> U64:
    """Return the numbers of the lines of `size` bytes that are visited, in their order.

    It begins with line 0. Of every other block it is a random line.
    """
    if size < 1 or size % WINDOW_BYTES:
        raise ValueError(f"{size} bytes: not a multiple of {WINDOW_BYTES}")
    random = np.random.default_rng(seed)
    lines, blocks = BLOCK_BYTES // LINE_BYTES, WINDOW_BYTES // BLOCK_BYTES
    windows = size // WINDOW_BYTES
    within = np.tile(np.arange(blocks, dtype=np.uint64), (windows, 1))
    random.permuted(within, axis=1, out=within)
    first = random.permutation(windows).astype(np.uint64) * np.uint64(blocks)
    block = (within + first[:, None]).ravel()
    block = np.roll(block, -int(np.flatnonzero(block == 0)[0]))
    line = random.integers(0, lines, len(block), np.uint64)
    line[0] = 0
    found: U64 = block * np.uint64(lines) + line
    return found
