"""JSON Schemas (draft 2020-12) of the documents of `--json`, made from the types they consist of.

See report.py and comparison.py of the model. A schema is strict: every field is there, and no
other. So it holds for the version of numatrace that made it; documents of another one may have
further fields, and programs should pass over what they do not know.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal, get_args, get_origin

from numatrace.model.comparison import COMPARISON_VERSION, Comparison
from numatrace.model.report import REPORT_VERSION, Report

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PLAIN: dict[object, dict[str, object]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
}
NODE = r"^(0|[1-9][0-9]*)$"
"""A node's number is a string where it is a key."""

Schema = dict[str, Any]


def report_schema() -> Schema:
    """Return the schema of the document of `numatrace analyze --json`."""
    return _document(Report, "report", REPORT_VERSION)


def comparison_schema() -> Schema:
    """Return the schema of the document of `numatrace compare --json`."""
    return _document(Comparison, "comparison", COMPARISON_VERSION)


def _document(cls: type, name: str, version: int) -> Schema:
    found: dict[str, Schema] = {}
    _object(cls, found)
    top = found.pop(cls.__name__)
    top["properties"]["schema_version"]["const"] = version
    head = {"$schema": DIALECT, "$id": f"urn:numatrace:{name}:{version}"}
    return {**head, "title": f"numatrace {name}, version {version}", **top, "$defs": found}


def _object(cls: type, found: dict[str, Schema]) -> None:
    """Add a dataclass, and those it refers to, each once."""
    hints = typing.get_type_hints(cls)
    annotated = typing.get_type_hints(cls, include_extras=True)
    names = [field.name for field in dataclasses.fields(cls)]
    schema: Schema = {"description": " ".join((cls.__doc__ or "").split()), "type": "object"}
    found[cls.__name__] = schema
    schema["properties"] = {
        name: {**_of(hints[name], found), "description": get_args(annotated[name])[1]}
        for name in names
    }
    schema["required"] = names
    schema["additionalProperties"] = False


def _of(hint: Any, found: dict[str, Schema]) -> Schema:
    """Return the schema of a field's type. Raises TypeError for one that JSON has no form for."""
    if hint in PLAIN:
        return dict(PLAIN[hint])
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if hint.__name__ not in found:
            _object(hint, found)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    inner = get_args(hint)
    if get_origin(hint) is Literal:
        return {"enum": list(inner)}
    if get_origin(hint) is tuple and inner[1:] == (...,):
        return {"type": "array", "items": _of(inner[0], found)}
    if get_origin(hint) is dict and inner[0] is int:
        values = _of(inner[1], found)
        return {
            "type": "object",
            "propertyNames": {"pattern": NODE},
            "additionalProperties": values,
        }
    if isinstance(hint, types.UnionType) or get_origin(hint) is typing.Union:
        return {"anyOf": [_of(each, found) for each in inner]}
    raise TypeError(f"no JSON form for {hint}")
