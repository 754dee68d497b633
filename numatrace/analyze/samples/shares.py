"""Remote shares of threads by regions: measured, or from where threads ran and memory lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numatrace.model.measured import Figure
from numatrace.model.views import ShareView

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numatrace.analyze.load import Loaded
    from numatrace.analyze.memory.regions import Region, Regions
    from numatrace.analyze.samples.measure import Measure
    from numatrace.analyze.threads.residency import ThreadKey, ThreadSums


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


class Measured:
    """The measured remote shares of single threads' reads of single regions."""

    def __init__(self, loaded: Loaded, regions: Regions, measured: Measure) -> None:
        cells = measured.cells
        self._slots = {key: slot for slot, key in enumerate(loaded.access.slots.keys)}
        self._index = {region.key: number for number, region in enumerate(regions.regions)}
        self._count = len(regions.regions)
        of_place = [self._index[regions.by_place[n].key] for n in range(len(regions.by_place))]
        keys = cells.slot * self._count + np.array(of_place, np.int64)[cells.place]
        self._sums = cells.sums(keys, measured.working)
        self._measure = measured

    def share(self, thread: ThreadKey, region: Region) -> Figure | None:
        """Return the share, or None when there are too few samples."""
        slot = self._slots.get(thread, -1)
        weighed = self._sums.get(slot * self._count + self._index[region.key])
        return self._measure.share(weighed, thread=True) if slot >= 0 else None


def share_views(
    threads: Iterable[ThreadSums], regions: Iterable[Region], measured: Measured, *, one_node: bool
) -> tuple[ShareView, ...]:
    """Return the remote share of every thread and region that have one: measured, else expected.

    With `one_node` nothing can be remote, so no expected share has a range.
    """
    shown = [(region, region.view()) for region in regions]
    found = []
    for thread in threads:
        for region, view in shown:
            error = 0 if one_node else view.error_bytes
            share = measured.share((thread.tgid, thread.tid), region)
            share = share or figure(thread.oncpu_ns, view.node_bytes, error)
            if share is not None:
                found.append(ShareView(thread.tgid, thread.tid, view.label, share))
    return tuple(found)
