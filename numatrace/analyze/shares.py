"""Expected remote shares: where threads ran against where memory lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.model.report import Figure, ShareView

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numatrace.analyze.regions import Region
    from numatrace.analyze.residency import ThreadSums


def parts(amounts: Mapping[int, int]) -> dict[int, float]:
    """Return amounts as shares of their sum; empty when there is nothing."""
    total = sum(amounts.values())
    return {node: amount / total for node, amount in sorted(amounts.items())} if total else {}


def remote_share(oncpu_ns: Mapping[int, int], node_bytes: Mapping[int, int]) -> float | None:
    """Return the expected share of remote reads: 1 - Σ_n t_n·w_n (see ShareView), or None.

    t_n and w_n are the shares of CPU time and of present bytes on node n. It holds when every
    thread reads all of the memory alike, as ggml's stolen chunks do without `--numa`.
    """
    times, bytes_ = parts(oncpu_ns), parts(node_bytes)
    if not times or not bytes_:
        return None
    local = sum(share * bytes_.get(node, 0.0) for node, share in times.items())
    return min(1.0, max(0.0, 1.0 - local))


def figure(
    oncpu_ns: Mapping[int, int], node_bytes: Mapping[int, int], error_bytes: int
) -> Figure | None:
    """Return the expected remote share as a figure; its range is that of the placement sample."""
    share = remote_share(oncpu_ns, node_bytes)
    if share is None:
        return None
    if not error_bytes:
        return Figure(share, "share", "model")
    width = error_bytes / sum(node_bytes.values())
    return Figure(share, "share", "model", max(0.0, share - width), min(1.0, share + width))


def share_views(
    threads: Iterable[ThreadSums], regions: Iterable[Region], *, one_node: bool
) -> tuple[ShareView, ...]:
    """Return the expected remote share of every thread and region that have one.

    With `one_node` nothing can be remote, so no share has a range.
    """
    views = [region.view() for region in regions]
    found = []
    for thread in threads:
        for view in views:
            share = figure(thread.oncpu_ns, view.node_bytes, 0 if one_node else view.error_bytes)
            if share is not None:
                found.append(ShareView(thread.tgid, thread.tid, view.label, share))
    return tuple(found)
