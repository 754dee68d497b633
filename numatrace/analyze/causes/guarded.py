"""Causes of other packages: checked when they are taken in, and guarded when they look."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields, is_dataclass, replace
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from numatrace.model.findings import Finding, RuledOut
from numatrace.model.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from numatrace.analyze.situation import Situation

WHY_CHARS = 200
"""Characters of an exception that are shown."""
NAME_CHARS = 60
ID_SHAPE = re.compile(r"(?!C\d)[A-Za-z][A-Za-z0-9_.-]{0,31}")
"""C with a number is numatrace's own."""


@dataclass(slots=True)
class GuardedCause:
    """A cause of another package; whatever it raises or returns, the report is made all the same.

    Attributes and `look` are those of `base.Cause`. Problems, one line each, collect in `problems`.
    """

    ID: str
    NAME: str
    NUMBER: int | None
    EXPLAINS: tuple[str, ...]
    package: str
    """Name and version of the package that it comes with."""
    inner: Callable[[Situation], object]
    problems: list[str] = field(default_factory=list)

    def look(self, situation: Situation) -> Finding | RuledOut:
        """Return what the cause says; that it cannot be judged, where it fails."""
        try:
            found = self.inner(situation)
            problem = self._problem(found)
        except (Exception, SystemExit) as error:
            found, problem = None, described(error)
        if problem:
            self.problems.append(problem)
            why = f"The cause of {self.package} failed: {problem}."
            return RuledOut(self.ID, self.NAME, judged=False, why=why)
        if isinstance(found, RuledOut):
            return replace(found, name=self.NAME, why=f"{found.why} (Judged by {self.package}.)")
        assert isinstance(found, Finding)  # or there would be a problem
        note = f"This cause comes with the package {self.package}."
        # `plan` names a plan of ours that the fix carries out, which these do not.
        fixes = tuple(replace(fix, plan="") for fix in found.fixes)
        return replace(found, name=self.NAME, fixes=fixes, notes=(*found.notes, note))

    def _problem(self, found: object) -> str:
        """Say what is wrong with what was returned; "" when it fits."""
        if not isinstance(found, Finding | RuledOut):
            return f"it returned {_kind(found)} and no Finding or RuledOut"
        wrong = misfit(found, type(found))
        if wrong:
            return f"{type(found).__name__}.{wrong}"
        if isinstance(found, Finding) and found.lost_ns and found.lost_ns.unit != "ns":
            return f"Finding.lost_ns is in {_shown(found.lost_ns.unit)} and not in 'ns'"
        return "" if found.cause == self.ID else f"it returned the cause {_shown(found.cause)}"


def guarded(cause: object, package: str) -> GuardedCause:
    """Take in a cause of another package. Raises ValueError where it is not one, with the reason.

    May raise whatever its attributes raise.
    """
    names = ("ID", "NAME", "NUMBER", "EXPLAINS", "look")
    missing = [name for name in names if not hasattr(cause, name)]
    if missing:
        raise ValueError(f"{_kind(cause)} without {', '.join(missing)} is no cause")
    id_, name, number, explains, look = (getattr(cause, each) for each in names)
    if not isinstance(id_, str) or not ID_SHAPE.fullmatch(id_):
        raise ValueError(f"the ID {_shown(id_)} is no name, or one of numatrace's own")
    if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARS or not name.isprintable():
        raise ValueError(f"the NAME {_shown(name)} is no line of at most {NAME_CHARS} characters")
    if misfit_value(number, int | None):
        raise ValueError(f"the NUMBER {_shown(number)} is neither a number nor None")
    if misfit_value(explains, tuple[str, ...]):
        raise ValueError("EXPLAINS is no tuple of causes")
    if not callable(look):
        raise ValueError("look cannot be called")
    return GuardedCause(id_, name, number, explains, package, look)


def described(error: BaseException) -> str:
    """Say on one line what was raised."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # __str__ of somebody else's class
        text = ""
    return printable(f"{type(error).__name__}: {text}" if text else type(error).__name__, WHY_CHARS)


def misfit(item: Any, kind: type) -> str:
    """Name the first field of a dataclass whose value is not of its type; "" when all are."""
    hints = get_type_hints(kind)
    for part in fields(kind):
        wrong = misfit_value(getattr(item, part.name), hints[part.name])
        if wrong:
            return f"{part.name} {wrong}"
    return ""


def misfit_value(value: object, hint: Any) -> str:
    """Say why a value is not of a type that reports are made of; "" when it is."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        wrongs = [misfit_value(value, part) for part in parts]
        return "" if "" in wrongs else wrongs[0]
    if origin is Literal:
        return "" if isinstance(value, str) and value in parts else f"is {_shown(value)}"
    if origin is tuple:
        if not isinstance(value, tuple):
            return f"is {_kind(value)} and no tuple"
        return next((wrong for each in value if (wrong := misfit_value(each, parts[0]))), "")
    if is_dataclass(hint) and isinstance(hint, type):
        inside = misfit(value, hint) if type(value) is hint else ""
        wrong = "" if type(value) is hint else f"is {_kind(value)} and no {hint.__name__}"
        return wrong or (f"has {hint.__name__}.{inside}" if inside else "")
    return _misfit_plain(value, hint)


def _misfit_plain(value: object, hint: type) -> str:
    kinds = (int, float) if hint is float else (hint,)
    if type(value) not in kinds:
        return f"is {_kind(value)} and no {'None' if hint is type(None) else hint.__name__}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}"
    return ""


def _kind(value: object) -> str:
    return f"an object of type {printable(type(value).__name__, NAME_CHARS)}"


def _shown(value: object) -> str:
    return repr(printable(value, NAME_CHARS)) if isinstance(value, str) else _kind(value)
