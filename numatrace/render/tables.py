"""Tables of a text report, with bars in their cells where there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from numatrace.render.bars import Heat, bar
from numatrace.render.layout import INDENT, paint
from numatrace.render.width import clean, clip, clip_middle, columns, pad

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numatrace.render.options import RenderOptions

GAP = "  "
NAME = 26
"""Columns that a name keeps where it gives way to bars."""
BAR_LEAST, BAR_MOST = 4, 20
"""Columns of a bar; with less room there is none."""


class Column(NamedTuple):
    """A column of a table. One with a `least` width is cut to that when space is short.

    One that is `spare` is left out then.
    """

    title: str
    right: bool = True
    least: int = 0
    cut: Callable[[str, int], str] = clip_middle
    spare: bool = False


class _Shape(NamedTuple):
    """The widths of a table's columns, of the bars before the cells, and what does not fit."""

    widths: list[int]
    bars: list[int]
    over: int


def table(
    heads: Sequence[Column], rows: Sequence[Sequence[str]], options: RenderOptions
) -> list[str]:
    """Return a table with its head as lines; none for no rows. Cells may come from anywhere."""
    if not rows:
        return []
    shape = _shape(heads, rows, options.columns)
    kept = [index for index, column in enumerate(heads) if not column.spare]
    if shape.over > 0 and len(kept) < len(heads):
        less = [[row[index] for index in kept] for row in rows]
        return table([heads[index] for index in kept], less, options)
    over_bars = [
        column._replace(right=column.right and not space)
        for column, space in zip(heads, shape.bars, strict=True)
    ]
    whole = [width + space + 1 if space else width for width, space in zip(*shape[:2], strict=True)]
    titles = [column.title for column in heads]
    top = _line(over_bars, titles, _Shape(whole, [0] * len(heads), shape.over), options)
    first = paint(top, "faint", options)
    return [first, *(_line(heads, row, shape, options) for row in rows)]


def _shape(heads: Sequence[Column], rows: Sequence[Sequence[str]], space: int) -> _Shape:
    """Return the widths that fit into some columns; names give way to bars, within limits."""
    heat = [any(map(_has_bar, cells)) for cells in zip(*rows, strict=True)]
    texts = [[columns(clean(cell)) for cell in cells] for cells in zip(*rows, strict=True)]
    titles = [columns(column.title) for column in heads]
    widths = [max(title, *sizes) for title, sizes in zip(titles, texts, strict=True)]
    over = len(INDENT) + sum(widths) + len(GAP) * (len(widths) - 1) - space
    wanted = over + sum(heat) * (BAR_LEAST + 1)
    narrow = _narrow(heads, widths, wanted, NAME) if any(heat) else widths
    if sum(widths) - sum(narrow) < wanted:
        narrow = _narrow(heads, widths, over, 0)
    over -= sum(widths) - sum(narrow)
    return _with_bars(narrow, over, titles, [max(sizes) for sizes in texts], heat)


def _with_bars(
    widths: list[int], over: int, titles: list[int], texts: list[int], heat: list[bool]
) -> _Shape:
    """Return the shape with the longest bars that fit, or with none."""
    for bar_ in range(BAR_MOST, BAR_LEAST - 1, -1):
        # Bars are equally long, lest they mislead; a title may stand above a bar.
        wide = [
            max(title, bar_ + 1 + text) - bar_ - 1 if has else width
            for has, title, text, width in zip(heat, titles, texts, widths, strict=True)
        ]
        grown = sum(wide) + sum(heat) * (bar_ + 1) - sum(widths)
        if any(heat) and grown + over <= 0:
            return _Shape(wide, [bar_ * has for has in heat], over)
    return _Shape(widths, [0] * len(heat), over)


def _narrow(heads: Sequence[Column], widths: list[int], wanted: int, least: int) -> list[int]:
    """Return the widths less so many columns, as far as names can give them."""
    narrow = list(widths)
    for index, column in enumerate(heads):
        if column.least and wanted > 0:
            cut = min(wanted, max(0, narrow[index] - max(column.least, least)))
            narrow[index] -= cut
            wanted -= cut
    return narrow


def _has_bar(cell: str) -> bool:
    return isinstance(cell, Heat) and cell.share is not None


def _line(
    heads: Sequence[Column], cells: Sequence[str], shape: _Shape, options: RenderOptions
) -> str:
    """Return a row; coloured only if it fits, as it then needs no cut."""
    parts = [
        _cell(column, cell, *size)
        for column, cell, size in zip(
            heads, cells, zip(shape.widths, shape.bars, strict=True), strict=True
        )
    ]
    gap = " " if shape.over > 0 else GAP
    plain = INDENT + gap.join(before + text for before, text, _ in parts)
    shown = clip(plain.rstrip(), options.columns)
    if not options.colour or shown != plain.rstrip():
        return shown
    painted = [
        _tint(before, style, options) + text if before else _tint(text, style, options)
        for before, text, style in parts
    ]
    return (INDENT + gap.join(painted)).rstrip()


def _cell(column: Column, cell: str, width: int, space: int) -> tuple[str, str, str]:
    """Return a cell's bar, its text and the style of the bar, or of the text without one."""
    text = pad(column.cut(clean(cell), width), width, right=column.right)
    if not isinstance(cell, Heat):
        return " " * (space + 1 if space else 0), text, ""
    if cell.share is None or not space:
        return "", text, cell.style
    return pad(bar(cell.share, space), space + 1), text, cell.style


def _tint(text: str, style: str, options: RenderOptions) -> str:
    """Return text in a style, the spaces around it plain."""
    inner = text.strip()
    return text.replace(inner, paint(inner, style, options), 1) if style and inner else text
