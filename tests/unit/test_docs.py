"""What the documents say is there, and what is there is documented."""

from __future__ import annotations

import importlib
import importlib.util
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
DOCUMENTS = {"README.md": README, "CONTRIBUTING.md": CONTRIBUTING, "CHANGELOG.md": CHANGELOG}
GUIDE = "\n".join(page.read_text() for page in sorted((ROOT / "numatrace/guide").glob("*.md")))


def walk(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """The command and all below it, with the words that call them."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None, f"{name} lists {below} and does not have it"
            yield from walk(found, f"{name} {below}")


@pytest.fixture(scope="module")
def commands() -> dict[str, click.Command]:
    cli = importlib.import_module("numatrace.cli.main").cli
    return dict(walk(cli, "numatrace"))


def test_every_command_is_documented_and_has_help(commands: dict[str, click.Command]) -> None:
    for name, command in commands.items():
        assert f"`{name}`" in README + GUIDE or name == "numatrace", name
        assert command.help, name


def test_every_option_is_documented_and_has_help(commands: dict[str, click.Command]) -> None:
    for name, command in commands.items():
        for option in command.params:
            if not isinstance(option, click.Option) or option.hidden:
                continue
            spellings = [*option.opts, *option.secondary_opts]
            assert any(f"`{said}" in README + GUIDE for said in spellings), (name, spellings)
            assert option.help, (name, spellings)


def test_every_command_ends_its_help_with_examples(commands: dict[str, click.Command]) -> None:
    for name, command in commands.items():
        assert f"  {name}" in (command.epilog or "") or "  sudo " in (command.epilog or ""), name


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", DOCUMENTS[name]):
        assert target.startswith("https://") or (ROOT / target).exists(), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_paths_that_documents_name_exist(name: str) -> None:
    """A path in backticks, up to its first <placeholder>, is a file or a folder."""
    starts = "|".join(["numatrace", "bpf", "scripts", "tests", "fixtures", r"\.ci"])
    for path in re.findall(rf"`((?:{starts})/[^`\s<*]*)", DOCUMENTS[name]):
        assert (ROOT / path).exists() or path == "numatrace/_bpf", path


def test_the_commands_to_copy_from_the_readme_exist() -> None:
    programs = re.findall(r"^    (scripts/\S+)", README + "\n" + CONTRIBUTING, re.MULTILINE)
    assert {"scripts/quickstart", "scripts/test"} <= set(programs)
    for program in programs:
        assert (ROOT / program).is_file(), program


def test_lists_that_contributors_extend_exist() -> None:
    """CONTRIBUTING.md names lists in capitals; each must be a name of some module."""
    sources = "\n".join(path.read_text() for path in (ROOT / "numatrace").rglob("*.py"))
    names = set(re.findall(r"`([A-Z]{4,})`", CONTRIBUTING))
    assert {"EVENTS", "CAUSES", "DEPLOYMENTS", "RENDERERS", "COMMANDS"} <= names
    for name in names:
        assert re.search(rf"^{name}\b.* = ", sources, re.MULTILINE), name


def test_markers_and_stages_are_those_of_the_tests() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    markers = {line.split(":")[0] for line in project["tool"]["pytest"]["ini_options"]["markers"]}
    for marker in markers:
        assert f"`{marker}`" in CONTRIBUTING, marker
    script = (ROOT / "scripts/test").read_text()
    for stage in re.findall(
        r"^\| `(\w+)` \| ", CONTRIBUTING.partition("## Tests")[2], re.MULTILINE
    ):
        assert re.search(rf"^  {stage} ", script, re.MULTILINE), stage


def test_changes_begin_with_the_unreleased_ones() -> None:
    headings = re.findall(r"^## (.+)$", CHANGELOG, re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert re.search(r"^- \S", CHANGELOG.partition("## Unreleased")[2], re.MULTILINE)
