"""What kind of memory a mapping is, by its path and its use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from numatrace.model.views import RegionClass

PRIVATE: RegionClass = "anonymous weights, KV cache or compute buffers (private)"
DELETED = " (deleted)"
SHARED_MEMORY = ("/dev/zero", "/memfd:", "/SYSV", "/dev/shm/", "/dev/")
HUGE_ANONYMOUS = "/anon_hugepage"
WEIGHTS: tuple[RegionClass, ...] = ("weights", "repacked weights")
"""Memory that is known to hold weights, mapped or private."""


def classify(path: str, inode: int, perms: str, gguf: AbstractSet[int]) -> RegionClass:
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
