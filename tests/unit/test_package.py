"""What is built and installed: all of it, the same bytes every time, and enough to work alone."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from numatrace.cli.main import COMMANDS
from numatrace.record.bpf.bcc_import import find_bcc

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
PACKED = ("numatrace", "bpf")
"""Folders that ship, beside the files of the root."""
FIXTURE = "fixtures/S1"


def run(*command: str | Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> str:
    """Output of a command that has to succeed."""
    done = subprocess.run(
        command, env=env, cwd=cwd, text=True, check=False, capture_output=True, timeout=600
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def checkout(folder: Path, *, when: int, mask: int) -> Path:
    """A copy of what would be packed, of another age and readable by others than here."""
    folder.mkdir()
    for name in PACKED:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder / name)
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode & ~mask)
        os.utime(path, (when, when))
    return folder


def built(source: Path, target: Path, seed: str) -> dict[str, str]:
    """SHA-256 of what `python -m build` makes of a checkout, by the file's name."""
    env = os.environ | {"SOURCE_DATE_EPOCH": "1700000000", "PYTHONHASHSEED": seed}
    run(sys.executable, "-m", "build", "--no-isolation", "-o", target, source, env=env)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in target.iterdir()}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with a checkout in `source`, and in `dist` what was built of it."""
    folder = tmp_path_factory.mktemp("build")
    source = checkout(folder / "source", when=1_600_000_000, mask=0)
    return folder, built(source, folder / "dist", "1")


def test_a_build_gives_the_same_bytes_again(
    build: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    """In another folder, from files of another age and mode; the wheel is made of the sdist."""
    _, first = build
    assert sorted(Path(name).suffix for name in first) == [".gz", ".whl"]
    another = checkout(tmp_path / "another", when=1_750_000_000, mask=0o007)
    assert built(another, tmp_path / "dist", "2") == first


def test_the_wheel_has_every_file_and_no_other(build: tuple[Path, dict[str, str]]) -> None:
    folder, _ = build
    source = folder / "source"
    (path,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    wanted = set()
    for file in (each for folder in PACKED for each in (source / folder).rglob("*")):
        relative = str(file.relative_to(source))
        if file.is_file() and relative != "bpf/.clang-format":
            wanted.add(re.sub("^bpf/", "numatrace/_bpf/", relative))
    data = next(name.partition("/")[0] for name in names if ".data/" in name)
    shipped = {name.replace(f"{data}/data/share/", "numatrace/") for name in names}
    assert shipped == wanted


# --- the smoke test: installed by pipx, with what the package index has, and nothing else


@pytest.fixture(scope="module")
def installed(build: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which pipx installed the wheel: bin/numatrace, and man/man1."""
    folder = tmp_path_factory.mktemp("pipx")
    (wheel,) = (build[0] / "dist").glob("*.whl")
    run(sys.executable, "-m", "venv", folder / "tools")
    run(folder / "tools/bin/python", "-m", "pip", "install", "--quiet", "pipx")
    places = {name: str(folder / name.lower()) for name in ("HOME", "BIN_DIR", "MAN_DIR")}
    env = os.environ | {f"PIPX_{name}": place for name, place in places.items()}
    run(folder / "tools/bin/pipx", "install", "--python", sys.executable, wheel, env=env)
    return folder


def numatrace(installed: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it with nothing of this environment: no path to tools, no home, another folder."""
    return subprocess.run(
        [installed / "bin_dir/numatrace", *arguments],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(installed)},
        cwd=installed,
        text=True,
        capture_output=True,
        check=False,
        timeout=120,
    )


@pytest.mark.slow
def test_installed_help_names_every_command(installed: Path) -> None:
    done = numatrace(installed, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.slow
def test_installed_alone(installed: Path) -> None:
    """No tool of the tests came with it."""
    python = next(installed.glob("home/venvs/numatrace/bin/python"))
    code = "from importlib.metadata import distributions as d; print(*[x.name for x in d()])"
    names = set(run(python, "-c", code, cwd=installed).lower().split())
    assert {"numatrace", "pyarrow", "rich"} <= names
    assert not {"pytest", "hypothesis", "ruff", "mypy", "polars", "duckdb", "build"} & names


@pytest.mark.slow
def test_installed_analyze_gives_the_report_of_the_checkout(installed: Path) -> None:
    trace = ROOT / FIXTURE / "trace.arrow"
    done = numatrace(installed, "analyze", trace, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    here = run(sys.executable, "-m", "numatrace", "analyze", trace, "--json")
    assert json.loads(done.stdout) == json.loads(here)
    text = numatrace(installed, "analyze", trace)
    assert text.stdout == run(sys.executable, "-m", "numatrace", "analyze", trace)


@pytest.mark.slow
def test_installed_guide_and_completion(installed: Path) -> None:
    assert numatrace(installed, "guide").stdout.count("\n") >= 10
    assert numatrace(installed, "guide", "trace").stdout.startswith("# ")
    assert "complete" in numatrace(installed, "completion", "bash").stdout


@pytest.mark.slow
def test_installed_doctor_finds_the_distributions_bcc(installed: Path) -> None:
    """From an environment that does not see the system's packages, as pipx makes them."""
    settings = next(installed.glob("home/venvs/numatrace/pyvenv.cfg")).read_text()
    assert "include-system-site-packages = false" in settings
    done = numatrace(installed, "doctor", "--json")
    found = {one["id"]: one for one in json.loads(done.stdout)["checks"]}
    assert found["python"]["state"] == "yes"
    folder = find_bcc()
    assert (found["bcc"]["state"] == "yes") == (folder is not None)
    if folder is not None:
        assert str(folder) in found["bcc"]["value"]
        assert found["libbcc"]["state"] == "yes"
    else:
        assert found["bcc"]["todo"]


@pytest.mark.slow
def test_installed_man_pages(installed: Path) -> None:
    pages = {path.name for path in (installed / "man_dir/man1").glob("numatrace*.1")}
    assert pages == {path.name for path in (ROOT / "numatrace/man/man1").glob("*.1")}


@pytest.mark.slow
def test_a_plugin_can_be_injected(installed: Path) -> None:
    """`pipx inject`, as `numatrace guide plugins` says; last, for it changes the environment."""
    python = next(installed.glob("home/venvs/numatrace/bin/python"))
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    run(*pip, "--no-deps", ROOT / "tests/example_plugin")
    done = numatrace(installed, "analyze", ROOT / FIXTURE / "trace.arrow", "--format", "markdown")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("**")
