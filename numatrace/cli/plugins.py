"""Causes and renderers of other packages, by their entry points; a broken one is only left out."""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Literal

from numatrace.model.errors import NumatraceError, UsageError
from numatrace.model.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from numatrace.analyze.causes.guarded import GuardedCause
    from numatrace.model.report import Report
    from numatrace.render import Renderer, RenderOptions

Group = Literal["numatrace.causes", "numatrace.renderers"]
GROUPS: tuple[Group, ...] = ("numatrace.causes", "numatrace.renderers")
NAME_SHAPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
TEXT_CHARS = 80


@dataclass(frozen=True, slots=True)
class Plugin:
    """An entry point of one of GROUPS."""

    kind: Literal["cause", "renderer"]
    name: str
    package: str
    """Name and version of the package that it comes with."""
    entry: metadata.EntryPoint

    def __str__(self) -> str:
        return f"{self.kind} {self.name} ({self.package})"


@dataclass(frozen=True, slots=True)
class Causes:
    """The causes that could be taken in, and a line for each one that could not."""

    taken: tuple[GuardedCause, ...] = ()
    problems: tuple[str, ...] = ()

    def all_problems(self) -> list[str]:
        """Return a line for each that could not be taken in, or that failed when it looked."""
        failed = [
            f"cause {each.ID} ({each.package}): {problem}"
            for each in self.taken
            for problem in each.problems
        ]
        return [*self.problems, *failed]


def plugins(group: Group) -> list[Plugin]:
    """Return the entry points of a group, by name and package; nothing is imported."""
    kind: Literal["cause", "renderer"] = "cause" if group == "numatrace.causes" else "renderer"
    try:
        entries = list(metadata.entry_points(group=group))
    except Exception:  # a damaged package anywhere on the path
        return []
    found = [
        Plugin(kind, printable(each.name, TEXT_CHARS), _package(each), each) for each in entries
    ]
    return sorted(found, key=lambda each: (each.name, each.package))


def _package(entry: metadata.EntryPoint) -> str:
    try:
        assert entry.dist is not None
        return printable(f"{entry.dist.name} {entry.dist.version}", TEXT_CHARS)
    except Exception:  # metadata without a name, or none at all
        return "an unknown package"


def silenced() -> AbstractContextManager[object]:
    """Keep what other packages print out of the report: it goes to standard error."""
    return redirect_stdout(sys.stderr)


def causes() -> Causes:
    """Import the causes of other packages; never raises what they raise."""
    found = plugins("numatrace.causes")
    if not found:
        return Causes()
    from numatrace.analyze.causes.guarded import described, guarded

    taken: dict[str, GuardedCause] = {}
    problems: list[str] = []
    for plugin in found:
        try:
            with silenced():
                cause = guarded(plugin.entry.load(), plugin.package)
            if cause.ID in taken:
                raise ValueError(f"the ID {cause.ID} is also that of {taken[cause.ID].package}")
            taken[cause.ID] = cause
        except (Exception, SystemExit) as error:
            problems.append(f"{plugin}: {described(error)}")
    return Causes(tuple(taken.values()), tuple(problems))


def renderers(ours: Mapping[str, object]) -> tuple[dict[str, Plugin], list[str]]:
    """Return other packages' renderers by the name of the format, and what is wrong with the rest.

    Nothing is imported. A name that we have, or another package has, stays with the first.
    """
    taken: dict[str, Plugin] = {}
    problems: list[str] = []
    for plugin in plugins("numatrace.renderers"):
        name = plugin.entry.name
        if not NAME_SHAPE.fullmatch(name):
            problems.append(f"{plugin}: its name is no name of a format")
        elif name in ours:
            problems.append(f"{plugin}: numatrace itself has a format of that name")
        elif name in taken:
            problems.append(f"{plugin}: {taken[name].package} has a format of that name")
        else:
            taken[name] = plugin
    return taken, problems


def loaded_renderer(plugin: Plugin) -> Renderer:
    """Import a renderer and return it guarded. Raises NumatraceError where that fails.

    What it raises, and what it returns that is no text, is a NumatraceError, too, when it is used.
    """
    from numatrace.analyze.causes.guarded import described

    def failed(why: str) -> NumatraceError:
        todo = f"choose another --format, or report it to the makers of {plugin.package}"
        return NumatraceError(f"the {plugin} failed", why, todo)

    try:
        with silenced():
            render = plugin.entry.load()
    except (Exception, SystemExit) as error:
        raise failed(described(error)) from error
    if not callable(render):
        raise failed(f"it is {type(render).__name__} and cannot be called")

    def guarded(report: Report, options: RenderOptions) -> str:
        try:
            with silenced():
                text = render(report, options)
        except (Exception, SystemExit) as error:
            raise failed(described(error)) from error
        if not isinstance(text, str):
            raise failed(f"it returned {type(text).__name__} and no text")
        return text

    return guarded


def formats(*, others: bool = True) -> list[str]:
    """Return the names of all formats, our own first."""
    from numatrace.render import RENDERERS

    return [*RENDERERS, *(renderers(RENDERERS)[0] if others else ())]


def renderer(name: str, *, others: bool) -> tuple[Renderer, bool]:
    """Return the renderer of a format, and whether it is our own. Raises UsageError for none.

    Without `others`, only ours are known.
    """
    from numatrace.render import RENDERERS

    if name in RENDERERS:
        return RENDERERS[name], True
    taken = renderers(RENDERERS)[0] if others else {}
    if name not in taken:
        what, why = f"no format {name!r}", f"there are: {', '.join(formats(others=others))}"
        raise UsageError(what, why, "choose one of these with --format")
    return loaded_renderer(taken[name]), False


def without_controls(text: str) -> str:
    """Return a text for the terminal: all but line ends and tabs that would act on it is replaced.

    Names in a trace are hostile, and whether another package knows that cannot be seen.
    """
    return "\n".join(
        "\t".join(printable(part, len(part)) for part in line.split("\t"))
        for line in text.split("\n")
    )


def described_plugins() -> Iterator[tuple[str, str]]:
    """Yield every plugin and what is wrong with it ("" for nothing); imports them all."""
    from numatrace.render import RENDERERS

    known = causes()
    for cause in known.taken:
        yield f"cause {cause.ID} ({cause.package})", ""
    taken, problems = renderers(RENDERERS)
    for plugin in taken.values():
        try:
            loaded_renderer(plugin)
        except NumatraceError as error:
            problems.append(f"{plugin}: {error.why}")
        else:
            yield str(plugin), ""
    for problem in (*known.problems, *problems):
        yield problem.partition(": ")[0], problem.partition(": ")[2]
