"""A report as one HTML file that needs nothing else: no network, no server, no fonts."""

from numatrace.render.html.page import html_report

__all__ = ["html_report"]
