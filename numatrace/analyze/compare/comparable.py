"""Whether two recordings can be compared at all: one machine, one model."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from numatrace.analyze.compare.sides import of_server
from numatrace.model.errors import ComparisonError
from numatrace.model.units import format_bytes, format_count

if TYPE_CHECKING:
    from numatrace.model.report import Report
    from numatrace.model.views import NodeView

MEMORY_ROOM = 0.1
"""The same node may have that much more memory after a restart: the kernel keeps some for itself,
more or less of it by its version and settings."""
ANOTHER_MACHINE = "record both on the same machine, with the same CPUs online"
ANOTHER_MODEL = "record the server with the same model before and after"
UNCHECKED = (
    "That both recordings are of the same model could not be checked: the tensors of at least one"
    " of them are not known."
)


def check_comparable(before: Report, after: Report) -> list[str]:
    """Return what could not be checked; raises ComparisonError for two machines or models.

    A report without nodes has no verdict either, so nothing is made of it.
    """
    if before.machine.nodes and after.machine.nodes:
        _check_machine(before, after)
    tables = _table(before), _table(after)
    if not all(tables):
        return [UNCHECKED]
    _check_model(*tables)
    return []


def _check_machine(before: Report, after: Report) -> None:
    olds = {node.node: node for node in before.machine.nodes}
    news = {node.node: node for node in after.machine.nodes}
    if olds.keys() != news.keys():
        names = [", ".join(map(str, sorted(nodes))) for nodes in (olds, news)]
        raise _refused(
            f"BEFORE is of a machine with nodes {names[0]}, AFTER with {names[1]}", ANOTHER_MACHINE
        )
    for number in sorted(olds):
        why = _unlike(olds[number], news[number])
        if why:
            raise _refused(f"node {number} has {why}: two machines", ANOTHER_MACHINE)


def _unlike(old: NodeView, new: NodeView) -> str:
    """Say what tells two nodes apart; empty for nothing."""
    if old.cpus != new.cpus:
        cpus = [f"CPUs {node.cpus}" if node.cpus else "no CPUs" for node in (old, new)]
        return f"{cpus[0]} in BEFORE and {cpus[1]} in AFTER"
    if old.distances != new.distances:
        return "other distances in AFTER than in BEFORE"
    sizes = [node.total_bytes for node in (old, new) if node.total_bytes is not None]
    if len(sizes) == 2 and abs(sizes[0] - sizes[1]) > MEMORY_ROOM * max(sizes):
        return f"{format_bytes(sizes[0])} in BEFORE and {format_bytes(sizes[1])} in AFTER"
    return ""


def _table(report: Report) -> Counter[tuple[str, str, int]]:
    """Return name, type and size of all tensors of the server's models."""
    tgid = of_server(report)
    return Counter(
        (tensor.name, tensor.type, tensor.bytes) for tensor in report.tensors if tensor.tgid == tgid
    )


def _check_model(
    before: Counter[tuple[str, str, int]], after: Counter[tuple[str, str, int]]
) -> None:
    if before == after:
        return
    sizes = [
        f"{format_count(table.total(), 'tensor')} of"
        f" {format_bytes(sum(key[2] * count for key, count in table.items()))}"
        for table in (before, after)
    ]
    if sizes[0] == sizes[1]:
        sizes[1] += ", of other names, types or sizes"
    raise _refused(
        f"the model in BEFORE has {sizes[0]}, that in AFTER {sizes[1]}: two models", ANOTHER_MODEL
    )


def _refused(why: str, todo: str) -> ComparisonError:
    return ComparisonError("these recordings cannot be compared", why, todo)
