"""What the server needs and what each node could give it, after it has been stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numatrace.analyze.situation import Situation

RESERVE_SHARE = 0.02
"""Part of a node that is left alone: the kernel's watermarks, page tables, whatever else grows."""


def need_bytes(situation: Situation) -> int:
    """Return what the server takes.

    Its mapped weights, present or not, and its private memory: repacked copies, KV cache and
    compute buffers.
    """
    weights = situation.weights
    mapped = sum(weights.mapped_bytes.values()) + weights.absent_bytes
    return mapped + sum(situation.private_bytes.values())


def room_bytes(situation: Situation, node: int) -> int:
    """Return what the node could give the restarted server.

    Free memory, inactive page cache, and what the server itself has there. The model's own pages
    may be in the inactive page cache, so of the two only the larger counts.
    """
    memory = situation.memory.get(node)
    if memory is None or not memory.total_bytes:
        return 0
    own = situation.weights.mapped_bytes.get(node, 0)
    private = situation.private_bytes.get(node, 0)
    found = memory.free_bytes + max(memory.inactive_file_bytes, own) + private
    usable = min(found, memory.total_bytes)
    return max(0, usable - round(memory.total_bytes * RESERVE_SHARE))
