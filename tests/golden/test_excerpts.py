"""Excerpts and pictures of reports in documents are of the reports that the fixtures give."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "fixtures/S1/report.svg"


def blocks(document: str) -> list[str]:
    """The indented blocks of a page, without their indent."""
    found = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", document, re.MULTILINE)
    return [re.sub("^ {4}", "", block, flags=re.MULTILINE).strip("\n") for block in found]


@pytest.mark.parametrize("page", ["README.md", "numatrace/guide/reading.md"])
def test_an_excerpt_is_the_beginning_of_a_report(page: str) -> None:
    reports = [path.read_text("utf-8") for path in (ROOT / "fixtures").glob("S*/report.txt")]
    shown = [block for block in blocks((ROOT / page).read_text("utf-8")) if "Problem: " in block]
    assert len(shown) == 1
    assert any(report.startswith(shown[0] + "\n") for report in reports)


def test_the_map_of_layers_is_one_of_a_report() -> None:
    report = (ROOT / "fixtures/S4/report.txt").read_text("utf-8")
    page = (ROOT / "numatrace/guide/reading.md").read_text("utf-8")
    shown = [block for block in blocks(page) if block.startswith("blk.")]
    assert len(shown) == 1
    assert all(f"  {line}\n" in report for line in shown[0].split("\n"))


def test_the_picture_shows_what_the_report_says() -> None:
    command = [sys.executable, str(ROOT / "scripts/gen-picture"), "--check"]
    done = subprocess.run(command, check=False)
    assert done.returncode == 0, "scripts/gen-picture writes it anew"


def test_the_picture_is_small_and_loads_nothing() -> None:
    picture = PICTURE.read_text("utf-8")
    assert len(picture) < 150 * 1024
    assert not re.search(r"@font-face|@import|<image|<script|(?:src|href)=", picture)
