"""A snapshot as lines of text: for a terminal of some size, or for a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from numatrace.model.units import format_bytes, format_count, format_share
from numatrace.render.width import clean, clip, columns, pad
from numatrace.watch.columns import head, ordered, row
from numatrace.watch.figures import bar, clock, node_style, rate, remote_style, remote_text
from numatrace.watch.help import help_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numatrace.watch.snapshot import NodeLine, Snapshot
    from numatrace.watch.view import View

LEAST_WIDTH, LEAST_HEIGHT = 60, 20
WIDE = 80
"""Columns from which on there is room for more than the least."""
GAP = "   "
MAX_NODE_ROWS = 64
BAR_COLUMNS = 40
"""Of a node's bar, at most."""


def screen(snapshot: Snapshot | None, view: View, width: int, height: int) -> list[Text]:
    """Return at most `height` lines of at most `width` columns."""
    if width < LEAST_WIDTH or height < LEAST_HEIGHT:
        return _too_small(width, height)
    foot = [footer(view, width)]
    if view.help:
        notes = snapshot.notes if snapshot is not None else ()
        return _filled(help_lines(notes, width)[: height - 1], foot, height)
    if snapshot is None:
        wait = Text("numatrace watch: attaching; the first figures come after one interval")
        return _filled([fit([wait], width)], foot, height)
    top = [*summary(snapshot, view, width), Text()]
    top += [*nodes(snapshot, width, max(2, (height - len(top)) // 2)), Text()]
    body = threads(snapshot, view, width, height - len(top) - len(foot))
    return _filled([*top, *body], foot, height)


def plain(snapshot: Snapshot, width: int, rows: int) -> list[Text]:
    """Return all of a snapshot that is of use without a terminal; `rows` threads at most."""
    from numatrace.watch.view import View

    view = View()
    return [
        *summary(snapshot, view, width),
        *nodes(snapshot, width, MAX_NODE_ROWS + 2),
        *threads(snapshot, view, width, rows + 2),
    ]


def _filled(body: list[Text], foot: list[Text], height: int) -> list[Text]:
    """Return both, with the foot at the bottom."""
    return [*body, *[Text()] * (height - len(body) - len(foot)), *foot]


def _too_small(width: int, height: int) -> list[Text]:
    text = f"too small: {width}×{height}; at least {LEAST_WIDTH}×{LEAST_HEIGHT}. q quits"
    return [Text(clip(text, width))][:height] if width > 1 else []


def fit(parts: Sequence[Text], width: int) -> Text:
    """Return the parts side by side, as many as there is room for; the first is cut to fit."""
    line = parts[0].copy()
    if columns(line.plain) > width:
        line = Text(clip(line.plain, width), line.style)
    for part in parts[1:]:
        if columns(line.plain) + len(GAP) + columns(part.plain) > width:
            break
        line.append(GAP).append_text(part)
    return line


def summary(snapshot: Snapshot, view: View, width: int) -> list[Text]:
    """Return the three lines at the top."""
    return [_title(snapshot, view, width), _rates(snapshot, width), _costs(snapshot, view, width)]


def _title(snapshot: Snapshot, view: View, width: int) -> Text:
    state = " PAUSED " if view.paused else ""
    more = snapshot.processes - 1
    name = f"{clip(clean(snapshot.process), 24)} {snapshot.pid}"
    below = f" +{more}" if more > 0 else ""
    machine = f"{format_count(snapshot.n_nodes, 'node')}, {format_count(snapshot.n_cpus, 'CPU')}"
    parts = [
        Text(f"numatrace watch {name}{below}", "bold"),
        Text(clock(snapshot.elapsed_s)),
        Text(f"every {snapshot.every_s:g} s"),
        Text(machine),
        Text(clip(clean(snapshot.host), 24)),
    ]
    line = fit(parts, width - len(state))
    return line.append(state, "bold reverse") if state else line


def _rates(snapshot: Snapshot, width: int) -> Text:
    remote = snapshot.remote
    share = Text("remote ").append(remote_text(remote), remote_style(remote))
    if width >= WIDE and remote.low is not None and remote.high is not None:
        share.append(f" ({100 * remote.low:.0f} to {100 * remote.high:.0f})")
    parts = [
        Text(f"CPUs {snapshot.cpus:.2f} of {snapshot.n_cpus}"),
        share,
        Text(f"moves {rate(snapshot.moves_s)}/s"),
        Text(f"faults {rate(snapshot.faults_s)}/s"),
        Text(format_count(snapshot.threads_alive, "thread")),
    ]
    return fit(parts, width)


def _costs(snapshot: Snapshot, view: View, width: int) -> Text:
    parts = []
    if view.writing is not None:
        name = clip(clean(view.writing.path), max(12, width - 36))
        size = format_bytes(view.writing.size_bytes)
        parts += [Text(f"writing {name} {size} {clock(view.writing.seconds)}", "bold green")]
    if lost := sum(snapshot.lost.values()):
        parts += [Text(f"lost {lost:,}", "bold red")]
    if snapshot.overhead is not None:
        parts += [Text(f"overhead {100 * snapshot.overhead.total:.1f} % of a CPU")]
    source = f" ({clean(snapshot.source)})" if snapshot.source else ""
    parts += [Text(f"samples {rate(snapshot.samples_s)}/s{source}")]
    if not lost:
        parts += [Text("lost 0")]
    if snapshot.notes:
        parts += [Text(f"{format_count(len(snapshot.notes), 'note')}: h", "dim")]
    return fit(parts, width)


def nodes(snapshot: Snapshot, width: int, height: int) -> list[Text]:
    """Return the table of nodes, in at most `height` lines."""
    has_model = any(line.model_bytes is not None for line in snapshot.nodes)
    cells = min(BAR_COLUMNS, width - 24 - 10 * (2 + has_model))
    title = f"{'NODE':>4} {'CPU TIME':<{cells + 6}} {'CPUS':>7}  {'MEMORY':>9}"
    title += f" {'MODEL':>9}" * has_model + f" {'FREE':>9}"
    lines = [Text(title, "bold")]
    room = len(snapshot.nodes) if len(snapshot.nodes) < height else height - 2
    lines += [_node(line, cells, has_model=has_model) for line in snapshot.nodes[: max(0, room)]]
    if room < len(snapshot.nodes):
        lines.append(Text(f"     and {len(snapshot.nodes) - room} more nodes", "dim"))
    return lines


def _node(line: NodeLine, cells: int, *, has_model: bool) -> Text:
    text = Text(f"{line.node:>4} ")
    text.append(bar(line.share, cells), node_style(line.node))
    text.append(f" {format_share(line.share):>5} {line.cpus:>7.2f}  {_bytes(line.bytes):>9}")
    if has_model:
        text.append(f" {_bytes(line.model_bytes):>9}")
    return text.append(f" {_bytes(line.free_bytes):>9}")


def _bytes(count: int | None) -> str:
    return "-" if count is None else format_bytes(count)


def threads(snapshot: Snapshot, view: View, width: int, height: int) -> list[Text]:
    """Return the table of threads, in at most `height` lines."""
    lines = ordered(snapshot.threads, view.sort)
    room = len(lines) if len(lines) < height else height - 2
    shown = [head(width, view.sort), *(row(line, width) for line in lines[: max(0, room)])]
    if not lines:
        shown.append(Text("no thread ran lately", "dim"))
    if room < len(lines):
        shown.append(Text(f"     and {len(lines) - room} more", "dim"))
    return shown


def footer(view: View, width: int) -> Text:
    """Return the last line: what the keys do, or what there is to say."""
    if view.message:
        return Text(clip(clean(view.message), width), "bold yellow")
    record = "r end trace" if view.writing else "r write trace"
    keys = ["q quit", "h help", "s sort", "p go on" if view.paused else "p pause", record]
    text = fit([Text(key) for key in keys], width)
    return Text(pad(text.plain, width), "reverse")
