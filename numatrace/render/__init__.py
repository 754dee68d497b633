"""A report as text: one module for each way to show it; decides nothing."""

from __future__ import annotations

from numatrace.render.html import html_report
from numatrace.render.json_report import json_report
from numatrace.render.options import Renderer, RenderOptions
from numatrace.render.text import text_report

RENDERERS: dict[str, Renderer] = {
    "text": text_report,
    "json": json_report,
    "html": html_report,
}
"""Each takes a report and RenderOptions, and returns all of its output as one text."""

__all__ = ["RENDERERS", "RenderOptions", "Renderer"]
