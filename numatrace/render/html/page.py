"""Put the page together: skeleton, style, scripts and data, and a policy that runs nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING

from numatrace.model.access import HOW
from numatrace.model.text import printable
from numatrace.render.html.bounds import LEVELS, bounded
from numatrace.render.html.words import WORDS

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from numatrace.model.report import Report
    from numatrace.render.options import RenderOptions

MAX_BYTES = 5_000_000
"""A page stays below this, whatever the trace."""
DATA_BYTES = MAX_BYTES - 300_000
"""Of these; the rest is for style and scripts."""
SCRIPTS = (
    "dom",
    "format",
    "copy",
    "table",
    "answer",
    "machine",
    "heat",
    "timeline",
    "memory",
    "causes",
    "origins",
    "main",
)
"""Modules of the page, in the order in which they are put together."""
LIBRARY, LIBRARY_STYLE, LICENCE = "uPlot.iife.min.js", "uPlot.min.css", "LICENSE-uPlot"
ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}
TITLE_CHARS = 300


def html_report(report: Report, options: RenderOptions) -> str:
    """Return the report as one HTML page below MAX_BYTES; the same report gives the same page.

    All of it, whatever the options, as far as it fits: what was left out is said on the page.
    """
    del options  # a page is sorted, searched and cut by its reader
    whole = report.to_json()
    for limits in LEVELS:
        parts, left_out = bounded(whole, limits)
        data: dict[str, object] = {"report": parts, "left_out": +left_out}
        if is_small(data):
            break
    return _page(report.verdict.sentence, data)


def is_small(data: object) -> bool:
    """Return whether data fits; no more of it is written out than it takes to know."""
    room = DATA_BYTES
    for piece in json.JSONEncoder(allow_nan=False, separators=(",", ":")).iterencode(data):
        room -= len(piece.translate(ESCAPES))
        if room < 0:
            return False
    return True


def data_text(data: object) -> str:
    """Return data as JSON that cannot end or change the element that it is in."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.translate(ESCAPES)


def _page(sentence: str, data: dict[str, object]) -> str:
    library = f"/*\n{_read(_vendor(LICENCE))}*/\n{_read(_vendor(LIBRARY))}"
    style = f"{_read(_vendor(LIBRARY_STYLE))}\n{_read(_here('page.css'))}"
    script = "".join(_read(_here(f"{name}.js")) for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{script}}})();\n'
    texts = {
        "policy": _policy(scripts=(library, script), style=style),
        "sentence": html.escape(printable(sentence, TITLE_CHARS)),
        "style": style,
        "library": library,
        "script": script,
        "data": data_text(data | {"words": WORDS | {"how": HOW}}),
    }
    # In one pass: nothing that was put in is looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: texts[found[1]], _read(_here("page.html")))


def _policy(*, scripts: tuple[str, ...], style: str) -> str:
    """Return a Content-Security-Policy that allows these scripts and this style, and no more."""
    run = " ".join(map(_source, scripts))
    return (
        f"default-src 'none'; script-src {run}; style-src {_source(style)}; base-uri 'none';"
        " form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _here(name: str) -> Traversable:
    return files("numatrace.render.html") / name


def _vendor(name: str) -> Traversable:
    return _here("vendor") / name


def _read(place: Traversable) -> str:
    return place.read_text("utf-8")
