"""The page `numatrace guide causes`: every cause, from its module."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from numatrace.analyze.causes import CAUSES, base
from numatrace.analyze.plans.choose import ANSWERS, PLACEMENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ATTRIBUTES = ("ID", "NAME", "NUMBER", "EXPLAINS")


def causes_page() -> str:
    """Return the page, in the order in which causes account for one another's signs."""
    lines = [
        "# Causes",
        "",
        "<!-- Generated from numatrace/analyze/causes by scripts/gen-reference: do not edit. -->",
        "",
        "What `numatrace analyze` looks for, in every report. A cause that accounts for the signs "
        "of others comes before them here; a report has the one first that costs most. Each "
        "finding has its evidence, what it costs and what would refute it: "
        "`numatrace guide reading` explains these, `numatrace guide situations` shows each cause "
        "as it was set up. Other packages can add causes: `numatrace guide plugins`.",
        "",
        "| cause | in a few words | the usual guides' number |",
        "|---|---|---|",
    ]
    known = sorted(CAUSES, key=lambda cause: cause.ID)
    lines += [f"| {each.ID} | {each.NAME} | {each.NUMBER or '–'} |" for each in known]
    for cause in CAUSES:
        lines += ["", *_section(cause)]
    lines += ["", "## Thresholds of several causes", "", *_thresholds(base)]
    return "\n".join(lines) + "\n"


def _section(cause: ModuleType) -> Iterator[str]:
    doc = " ".join((cause.__doc__ or "").split("\n\n")[0].split()).removeprefix(f"{cause.ID}, ")
    said = doc.partition(": ")[2] or doc
    yield f"## {cause.ID}, {cause.NAME}"
    yield from ("", f"{said[:1].upper()}{said[1:]}")
    looked = inspect.cleandoc(cause.look.__doc__).removeprefix("Return the finding: ")
    yield from ("", f"Looked for: {' '.join(looked.split())}")
    explains = f"Where it is found, it accounts for the signs of {', '.join(cause.EXPLAINS)}. "
    plans = ", ".join(f"`{kind}`" for kind in ANSWERS.get(cause.ID, PLACEMENT))
    answer = f"Plans that can end it, the preferred one first: {plans} (`numatrace guide model`)."
    yield from ("", f"{explains if cause.EXPLAINS else ''}{answer}")
    thresholds = list(_thresholds(cause))
    if len(thresholds) > 2:
        yield from ("", *thresholds)


def _thresholds(module: ModuleType) -> Iterator[str]:
    """Yield a table of the module's constants: name, value, and what is written below them."""
    yield from ("| threshold | value | why |", "|---|---|---|")
    body = ast.parse(Path(inspect.getfile(module)).read_text("utf-8")).body
    for number, node in enumerate(body):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        name = node.targets[0].id
        if name.isupper() and name not in ATTRIBUTES and not name.startswith("_"):
            yield f"| `{name}` | {_value(getattr(module, name))} | {_below(body, number)} |"


def _below(body: list[ast.stmt], number: int) -> str:
    """What the string below an assignment says."""
    after = body[number + 1] if number + 1 < len(body) else None
    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
        return " ".join(str(after.value.value).split()).replace("|", "\\|")
    return "as for the next one"


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_value, value))
    if isinstance(value, float):
        return f"{value:.4g}" if value < 1e6 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
