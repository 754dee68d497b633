"""What changed node by node, thread by thread and layer by layer."""

from __future__ import annotations

from collections import defaultdict
from itertools import zip_longest
from typing import TYPE_CHECKING, get_args

from numatrace.analyze.compare.changes import change, exact
from numatrace.analyze.compare.rates import moves_per_s
from numatrace.analyze.compare.sides import of_server, server_threads
from numatrace.analyze.samples.shares import parts
from numatrace.model.comparison import LayerChange, NodeChange, ThreadChange
from numatrace.model.measured import Figure
from numatrace.model.views import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numatrace.model.report import Report
    from numatrace.model.views import LayerView, NodeView, ThreadView

ROLES: tuple[Role, ...] = get_args(Role)
"""In the order in which they are shown."""


def nodes(before: Report, after: Report) -> tuple[NodeChange, ...]:
    """Return all nodes that either recording knows or names."""
    olds, news = _nodes(before), _nodes(after)
    return tuple(
        NodeChange(
            number,
            change(_weights(before, number), _weights(after, number), "bytes"),
            change(_weights_share(before, number), _weights_share(after, number)),
            change(_compute_share(before, number), _compute_share(after, number)),
            change(_free(olds.get(number)), _free(news.get(number)), "bytes"),
        )
        for number in sorted({*olds, *news, *_used(before), *_used(after)})
    )


def threads(before: Report, after: Report) -> tuple[ThreadChange, ...]:
    """Return the server's threads in pairs: of one role, and of one place in its order of CPU time.

    Thread ids differ from run to run, and all names are the same. In a pool, where every thread
    does the same, that order says no more than which were the busiest.
    """
    olds, news = _by_role(before), _by_role(after)
    return tuple(
        ThreadChange(
            role,
            rank,
            old,
            new,
            change(_remote(old), _remote(new)),
            change(moves_per_s([old] if old else []), moves_per_s([new] if new else []), "moves/s"),
        )
        for role in ROLES
        for rank, (old, new) in enumerate(zip_longest(olds[role], news[role]), 1)
    )


def layers(before: Report, after: Report) -> tuple[LayerChange, ...]:
    """Return the layers of the server's models in pairs; files match by size and name."""
    olds, news = _layers(before), _layers(after)
    keys = sorted(olds.keys() | news.keys(), key=lambda key: (key[0], key[1] is None, key[1] or 0))
    return tuple(_layer(key[1], olds.get(key), news.get(key)) for key in keys)


def _layer(number: int | None, old: LayerView | None, new: LayerView | None) -> LayerChange:
    shown = new or old
    assert shown is not None  # one of them has this layer
    before = dict(old.node_bytes) if old is not None else {}
    after = dict(new.node_bytes) if new is not None else {}
    return LayerChange(
        path=shown.path,
        layer=number,
        bytes=shown.bytes,
        before_node_bytes=before,
        after_node_bytes=after,
        moved_share=moved_share(before, after),
        remote_share=change(_remote(old), _remote(new)),
    )


def moved_share(before: Mapping[int, int], after: Mapping[int, int]) -> float | None:
    """Return the least part of it that must have come to lie on another node: ½ Σ |a_n - b_n|.

    a_n and b_n are the shares of the bytes on node n (total variation distance). None where
    nothing is in memory on one side.
    """
    olds, news = parts(before), parts(after)
    if not olds or not news:
        return None
    return min(1.0, sum(abs(news.get(n, 0.0) - olds.get(n, 0.0)) for n in {*olds, *news}) / 2)


def weights_share(node_bytes: Mapping[int, int], node: int, error_bytes: int) -> Figure | None:
    """Return the share of the weights on a node, with the range of its placement sample."""
    total = sum(node_bytes.values())
    if total <= 0:
        return None
    share, width = node_bytes.get(node, 0) / total, error_bytes / total
    if not error_bytes:
        return Figure(share, "share", "placement")
    return Figure(share, "share", "placement", max(0.0, share - width), min(1.0, share + width))


def _nodes(report: Report) -> dict[int, NodeView]:
    return {node.node: node for node in report.machine.nodes}


def _used(report: Report) -> set[int]:
    server = report.server
    return {*server.weights_bytes, *server.compute_ns} if server is not None else set()


def _weights(report: Report, node: int) -> Figure | None:
    server = report.server
    if server is None or not server.weights_bytes:
        return None
    size, error = server.weights_bytes.get(node, 0), server.weights_error_bytes
    if not error:
        return Figure(size, "bytes", "placement")
    return Figure(size, "bytes", "placement", max(0, size - error), size + error)


def _weights_share(report: Report, node: int) -> Figure | None:
    server = report.server
    if server is None:
        return None
    return weights_share(server.weights_bytes, node, server.weights_error_bytes)


def _compute_share(report: Report, node: int) -> Figure | None:
    times = parts(report.server.compute_ns) if report.server is not None else {}
    return exact(times.get(node, 0.0), "share", "counter") if times else None


def _free(node: NodeView | None) -> Figure | None:
    return exact(node.free_bytes if node is not None else None, "bytes", "counter")


def _remote(view: ThreadView | LayerView | None) -> Figure | None:
    return view.remote_share if view is not None else None


def _by_role(report: Report) -> defaultdict[Role, list[ThreadView]]:
    found: defaultdict[Role, list[ThreadView]] = defaultdict(list)
    for thread in server_threads(report):
        found[thread.role].append(thread)
    return found


def _layers(report: Report) -> dict[tuple[int, int | None], LayerView]:
    """Return the layers by the place of their file, the largest first, and number."""
    mine = [layer for layer in report.layers if layer.tgid == of_server(report)]
    sizes: defaultdict[str, int] = defaultdict(int)
    for layer in mine:
        sizes[layer.path] += layer.bytes
    files = sorted(sizes, key=lambda path: (-sizes[path], path))
    return {(files.index(layer.path), layer.layer): layer for layer in mine}
