"""Man pages and reference pages: they say what the commands say, in every reader of theirs."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numatrace.analyze.causes import CAUSES
from numatrace.cli.main import COMMANDS
from numatrace.record.pmu.tables import load

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "numatrace/guide"
MAN = sorted((ROOT / "numatrace/man/man1").glob("*.1"))
FINE = ("STYLE", 'WARNING: missing date, using "": TH')
"""A line may be long; a date would make the pages of one version differ."""


def part(name: str) -> ModuleType:
    """A module of scripts/reference."""
    if str(ROOT / "scripts") not in sys.path:
        sys.path.append(str(ROOT / "scripts"))
    return importlib.import_module(f"reference.{name}")


@pytest.fixture(scope="module")
def mandoc() -> str:
    program = shutil.which("mandoc")
    if program is None:
        pytest.skip("no mandoc here (Debian: mandoc)")
    return program


def rendered(mandoc: str, text: str) -> str:
    """A page as text, without overstriking; lines as wide as they like."""
    command = [mandoc, "-K", "utf-8", "-T", "utf8", "-O", "width=999"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return re.sub(".\b", "", done.stdout)


def test_there_is_a_page_for_every_command() -> None:
    names = {path.name for path in MAN}
    assert names == {"numatrace.1", *(f"numatrace-{verb}.1" for verb in COMMANDS)}


@pytest.mark.parametrize("page", MAN, ids=lambda page: page.name)
def test_mandoc_finds_nothing_wrong(mandoc: str, page: Path) -> None:
    done = subprocess.run([mandoc, "-T", "lint", page], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stdout.splitlines() if not any(ok in line for ok in FINE)]
    assert complaints == []


def test_a_reader_of_man_sees_what_help_says(mandoc: str) -> None:
    pages = part("man").man_pages()
    for verb in part("verbs").verbs():
        shown = rendered(mandoc, pages[f"{verb.name.replace(' ', '-')}.1"])
        spaced = " ".join(shown.split())
        assert verb.usage in shown
        assert verb.options
        for spelling, meaning in verb.options:
            assert spelling in shown
            assert meaning in spaced
        for kept, text in (*verb.help, *verb.epilog):
            for line in text.split("\n")[1:] if kept else [text]:
                assert " ".join(line.split()) in spaced


@settings(max_examples=20)
@given(st.text(st.characters(codec="ascii", exclude_categories=("C", "Z")), min_size=1))
def test_any_text_is_shown_as_it_is(mandoc: str, text: str) -> None:
    """Whatever roff would take for a request, an escape or a hyphen."""
    page = f'.TH X 1 "" "" ""\n.SH NAME\nx\n.nf\n{part("man")._line(text)}\n.fi\n'
    assert rendered(mandoc, page).splitlines()[4].strip() == text


def test_pages_are_the_same_every_time() -> None:
    code = (
        "from reference import man, commands, causes, cpus; import hashlib; print(hashlib.sha256("
    )
    code += "repr([man.man_pages(), commands.commands_page(), causes.causes_page(), "
    code += "cpus.cpus_page()]).encode()).hexdigest())"
    sums = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={
                "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}",
                "PYTHONHASHSEED": seed,
                "COLUMNS": wide,
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, wide in (("1", "60"), ("2", "200"))
    }
    assert len(sums) == 1


def test_pages_of_the_guide_hold_every_row() -> None:
    causes = (GUIDE / "causes.md").read_text()
    assert all(f"## {cause.ID}, {cause.NAME}\n" in causes for cause in CAUSES)
    cpus = (GUIDE / "cpus.md").read_text()
    assert all(f"| {row.name} |" in cpus for row in load())
    commands = (GUIDE / "commands.md").read_text()
    assert all(f"## numatrace {verb}\n" in commands for verb in COMMANDS)


def test_a_stale_page_is_noticed(tmp_path: Path) -> None:
    """The generator, run in a copy in which one page was changed and one is of no verb."""
    for name in ("numatrace", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    program = [sys.executable, str(tmp_path / "scripts/gen-reference")]
    subprocess.run(program, check=True, capture_output=True)
    check = [*program, "--check"]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0
    page = tmp_path / "numatrace/guide/causes.md"
    page.write_text(page.read_text() + "more\n")
    (tmp_path / "numatrace/man/man1/numatrace-gone.1").write_text("")
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "causes.md is stale" in done.stderr
    assert "numatrace-gone.1" in done.stderr
