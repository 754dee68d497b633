"""Read the tables of a text report back: cells by the titles of their columns."""

from __future__ import annotations

import re

BLOCKS = "▏▎▍▌▋▊▉█"


def without_bars(line: str) -> str:
    """A line with spaces for bars, so that nothing but words and numbers is left."""
    return re.sub(f"[{BLOCKS}]", " ", line)


def cells(line: str) -> list[str]:
    """What stands apart by two spaces or more."""
    return re.split(r" {2,}", without_bars(line).strip())


def tables(shown: str) -> list[list[dict[str, str]]]:
    """All tables of a section: a row is what stands below each title.

    A cell belongs to the title that it overlaps, else to the one that it ends or begins with; where
    a title stands above a bar, the number is at the end of the bar.
    """
    found: list[list[dict[str, str]]] = []
    titles: list[tuple[int, int, str]] = []
    for line in shown.split("\n"):
        spans = _spans(without_bars(line))
        if len(titles) > 1 and len(spans) == 1 and spans[0][0] >= titles[1][0]:
            continue  # the last cell of the row before runs on
        if not line.startswith("  ") or len(spans) < 2:
            titles = []
        elif not titles:
            titles = spans
            found.append([])
        else:
            found[-1].append(_row(titles, spans))
    return [table for table in found if table]


def _spans(line: str) -> list[tuple[int, int, str]]:
    return [(m.start(), m.end(), m[0]) for m in re.finditer(r"\S+(?: \S+)*", line)]


def _row(titles: list[tuple[int, int, str]], spans: list[tuple[int, int, str]]) -> dict[str, str]:
    row: dict[str, str] = {}
    for first, last, text in spans:
        over = [t for t in titles if t[0] < last and first < t[1]]
        ends = [t for t in titles if t[1] == last or t[0] == first]
        before = [t for t in titles if t[0] <= first]
        title = (ends or over[-1:] or before[-1:] or titles[:1])[0]
        row[title[2]] = text
    return row
