"""A comparison of two recordings, for people and for programs; decides nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from numatrace.render.compare.answer import answer, limit, prediction, settings
from numatrace.render.compare.glance import in_short
from numatrace.render.compare.parts import layers, nodes, threads
from numatrace.render.compare.shares import figures, remote
from numatrace.render.layout import put_together

if TYPE_CHECKING:
    from collections.abc import Callable

    from numatrace.model.comparison import Comparison
    from numatrace.render.options import RenderOptions

SECTIONS: tuple[Callable[[Comparison, RenderOptions], list[str]], ...] = (
    answer,
    prediction,
    limit,
    remote,
    figures,
    nodes,
    threads,
    layers,
    settings,
)
"""In the order of the text. Each returns its lines, or none when it has nothing to say."""


def comparison_json(comparison: Comparison) -> str:
    """Return all of it as one JSON document of printable ASCII (see json_report)."""
    return json.dumps(comparison.to_json(), indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def comparison_text(comparison: Comparison, options: RenderOptions) -> str:
    """Return it as text; every line stays below the width.

    Without `colour` it has no control characters but newlines, whatever the traces hold.
    """
    parts = [lines for section in SECTIONS if (lines := section(comparison, options))]
    return put_together(parts, in_short(comparison, options), options)
