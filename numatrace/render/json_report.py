"""A report as JSON, for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numatrace.model.report import Report
    from numatrace.render.options import RenderOptions


def json_report(report: Report, options: RenderOptions) -> str:
    """Return the report as one JSON document; `numatrace guide json` describes its fields.

    All of it, whatever the options. It is printable ASCII: control characters, and characters that
    reverse or hide text, are escaped, so it may be shown on a terminal.
    """
    return json.dumps(report.to_json(), indent=2, ensure_ascii=True, allow_nan=False) + "\n"
