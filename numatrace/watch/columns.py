"""The columns of the live view's thread table: what they show, and how it is sorted by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from numatrace.model.units import format_share
from numatrace.render.width import clean, clip, pad
from numatrace.watch.figures import (
    node_cells,
    node_mark,
    node_style,
    rate,
    remote_style,
    remote_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numatrace.watch.snapshot import ThreadLine


class Column(NamedTuple):
    """One column; `width` in terminal columns, `from_width` of the terminal that has room for it.

    `rank` sorts, the smallest first.
    """

    name: str
    title: str
    width: int
    rank: Callable[[ThreadLine], float | str]
    cell: Callable[[ThreadLine, int], Text]
    from_width: int = 0
    right: bool = True


def _right(text: str, width: int, style: str = "") -> Text:
    return Text(pad(clip(text, width), width, right=True), style)


def _tid(line: ThreadLine, width: int) -> Text:
    if line.tid == 0:
        return _right("others", width)
    return _right(f"slot {line.slot}" if line.slot is not None else str(line.tid), width)


def _name(line: ThreadLine, width: int) -> Text:
    return Text(pad(clip(clean(line.name), width), width))


def _cpu(line: ThreadLine, width: int) -> Text:
    style = "" if line.cpus >= 0.005 else "dim"
    return _right(f"{100 * line.cpus:.0f}", width, style)


def _ran_on(line: ThreadLine, width: int) -> Text:
    """A bar of node numbers: where it ran, and how much of the time."""
    text = Text()
    for node, cells in node_cells(line.node_share, width):
        text.append(node_mark(node) * cells, node_style(node))
    text.pad_right(width - len(text))
    return text


def _main(line: ThreadLine, width: int) -> Text:
    node = line.main_node
    return _right("" if node is None else format_share(line.node_share[node]), width)


def _remote(line: ThreadLine, width: int) -> Text:
    return _right(remote_text(line.remote), width, remote_style(line.remote))


def _rate(value: float, width: int) -> Text:
    return _right(rate(value), width, "" if value else "dim")


def _remote_rank(line: ThreadLine) -> float:
    return 1.0 if line.remote.share is None else -line.remote.share


COLUMNS: tuple[Column, ...] = (
    Column("cpu", "CPU %", 5, lambda line: -line.cpus, _cpu),
    Column("remote", "REMOTE", 7, _remote_rank, _remote),
    Column("moves", "MOVES/S", 7, lambda x: -x.moves_s, lambda x, w: _rate(x.moves_s, w)),
    Column("faults", "FAULTS/S", 8, lambda x: -x.faults_s, lambda x, w: _rate(x.faults_s, w)),
    Column(
        "samples",
        "SAMPLES",
        7,
        lambda line: -line.remote.samples,
        lambda line, width: _right(rate(line.remote.samples).removesuffix(".0"), width),
        80,
    ),
    Column("node", "RAN ON", 8, lambda x: -1 if x.main_node is None else x.main_node, _ran_on),
    Column("name", "NAME", 11, lambda line: line.name, _name, right=False),
    Column("tid", "TID", 8, lambda line: line.tid, _tid),
)
"""In the order in which the sort key goes through them."""

BY_NAME = {column.name: column for column in COLUMNS}
MAIN = Column("main", "", 5, BY_NAME["node"].rank, _main, 80)
"""Part of RAN ON: the share of the node where it ran longest."""
PID = Column("pid", "PID", 8, lambda x: x.tgid, lambda x, w: _right(str(x.tgid), w), 100)
SHOWN = (
    PID,
    *(BY_NAME[name] for name in ("tid", "name", "cpu", "node")),
    MAIN,
    *(BY_NAME[name] for name in ("remote", "samples", "moves", "faults")),
)
"""From left to right."""
WIDEST_NAME = 32


def fitting(width: int) -> list[tuple[Column, int]]:
    """Return the columns that a terminal has room for, and how wide each is."""
    chosen = [column for column in SHOWN if width >= column.from_width]
    rest = width - sum(column.width for column in chosen) - (len(chosen) - 1)
    more = {"name": min(rest // 2, WIDEST_NAME - BY_NAME["name"].width)}
    more["node"] = min(rest - more["name"], 56)
    return [(column, column.width + max(0, more.get(column.name, 0))) for column in chosen]


def ordered(lines: Iterable[ThreadLine], sort: str) -> list[ThreadLine]:
    """Return the lines in the order of a column; those that are alike by CPU time, then number."""
    rank = BY_NAME[sort].rank
    return sorted(lines, key=lambda line: (rank(line), -line.cpus, line.tgid, line.tid))


def head(width: int, sort: str) -> Text:
    """Return the table's first line."""
    cells = []
    for column, columns in fitting(width):
        title = pad(column.title, columns, right=column.right and column.name != "node")
        cells.append(Text(title, "bold reverse" if column.name == sort else "bold"))
    return Text(" ").join(cells)


def row(line: ThreadLine, width: int) -> Text:
    """Return a thread's line."""
    return Text(" ").join(column.cell(line, columns) for column, columns in fitting(width))
