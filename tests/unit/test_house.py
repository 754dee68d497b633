"""The rules of the house: sources, what is named, what ships, and the runner of VM tests."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "numatrace"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES = sorted(PACKAGE.rglob("*.py"))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def run(*command: str | Path, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command, with the tools of this interpreter's environment first on the path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        command, cwd=cwd, env=os.environ | {"PATH": path} | env, text=True, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def kept_files() -> list[Path]:
    """Files that are in the repository or would be with `git add .`."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    assert listed.returncode == 0, listed.stdout
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def scripts_in(interpreter: str) -> list[str]:
    """Files of scripts/ and .ci/ whose first line names the interpreter."""
    name = interpreter.encode()
    found = [*(ROOT / "scripts").iterdir(), ROOT / ".ci/run"]
    head = {path: path.read_bytes()[:100].split(b"\n")[0] for path in found if path.is_file()}
    return sorted(
        relative(path) for path, line in head.items() if line.startswith(b"#!") and name in line
    )


# --- stage `lint`: the same tools, in the same order, as .pre-commit-config.yaml


def c_files() -> list[str]:
    found = [path for pattern in ("*.c", "*.h") for path in (ROOT / "bpf").rglob(pattern)]
    return sorted(relative(path) for path in found if path.name != "events.h")  # a generated file


def checks() -> dict[str, list[str]]:
    python = [".", *scripts_in("python")]
    return {
        "python-format": ["ruff", "format", "--check", *python],
        "c-format": ["clang-format", "--dry-run", "-Werror", *c_files()],
        "python-lint": ["ruff", "check", *python],
        "shell-lint": [
            "shellcheck",
            "-x",
            "-P",
            "SCRIPTDIR",
            "scripts/common.sh",
            *scripts_in("bash"),
        ],
        "types": ["mypy"],
        "layers": ["lint-imports", "--no-cache"],
        "generated-files": [sys.executable, "scripts/gen-events", "--check"],
        "reference-pages": [sys.executable, "scripts/gen-reference", "--check"],
        "spelling": ["codespell"],
    }


@pytest.mark.static
@pytest.mark.parametrize("name", checks())
def test_sources(name: str) -> None:
    result = run(*checks()[name])
    sys.stdout.write(result.stdout)  # shown once, under the failure
    assert result.returncode == 0, name


# --- modules


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_module_says_its_one_job_and_stays_small(path: Path) -> None:
    text = path.read_text()
    doc = ast.get_docstring(ast.parse(text))
    assert doc, "the first line of a module says its one job"
    assert len(doc.splitlines()[0]) <= 100
    assert len(text.splitlines()) <= 400


def imported(path: Path) -> set[str]:
    """Top-level names of the modules that the file imports, whenever it does."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def test_model_needs_the_standard_library_only() -> None:
    allowed = sys.stdlib_module_names | {"numatrace"}
    for path in (PACKAGE / "model").rglob("*.py"):
        assert imported(path) <= allowed, relative(path)


def test_every_import_is_a_declared_dependency() -> None:
    """A plain `pip install numatrace` must bring all that numatrace imports."""
    declared = {re.split(r"[^\w-]", spec)[0] for spec in PROJECT["project"]["dependencies"]}
    allowed = declared | sys.stdlib_module_names | {"numatrace", "bcc"}  # bcc: the distribution's
    for path in MODULES:
        assert imported(path) <= allowed, relative(path)


# --- what is named in the repository


def forbidden_texts() -> dict[str, re.Pattern[bytes]]:
    """What must not be written anywhere; put together here so that this file does not hold it."""
    hosts = ["py" + "pi.org", "pythonho" + "sted.org", "deb.debian" + ".org", "crates" + ".io"]
    hosts += ["registry.npm" + "js", "proxy.golang" + ".org", "archive.ubuntu" + ".com"]
    folders = [str(ROOT), sys.prefix, str(Path.home() / ".cache"), str(Path.home() / ".pyenv")]
    folders += ["/" + "work/main", "/" + "work/shared", "/" + "root/.pyenv", "/" + "tmp/v"]
    return {
        "host of a package registry": re.compile("|".join(map(re.escape, hosts)).encode()),
        "path of one machine": re.compile(
            rf"(?<![\w.])(?:{'|'.join(map(re.escape, folders))})(?![\w.-])".encode()
        ),
    }


@pytest.mark.parametrize("what", forbidden_texts())
def test_no_file_names_a(what: str) -> None:
    pattern = forbidden_texts()[what]
    for path in kept_files():
        hit = pattern.search(path.read_bytes())
        assert not hit, f"{relative(path)}: {hit.group() if hit else b''!r}"


def test_programs_are_executable_and_say_how_they_run() -> None:
    for path in (ROOT / "scripts").iterdir():
        if path.is_file() and not path.suffix:
            assert path.read_bytes().startswith(b"#!/usr/bin/env "), relative(path)
            assert os.access(path, os.X_OK), relative(path)


def test_the_test_script_explains_itself_without_setting_anything_up() -> None:
    told = run("scripts/test", "--help")
    assert told.returncode == 0
    assert "--allow-skips" in told.stdout
    assert run("scripts/test", "--nonsense").returncode == 2


# --- what ships


def build(target: str, folder: Path) -> Path:
    """Build a distribution as pip would, without the network."""
    from hatchling.builders.sdist import SdistBuilder
    from hatchling.builders.wheel import WheelBuilder

    builder = {"wheel": WheelBuilder, "sdist": SdistBuilder}[target](str(ROOT))
    return Path(next(iter(builder.build(directory=str(folder), versions=["standard"]))))


def test_wheel_carries_bpf_sources_guide_and_licences(tmp_path: Path) -> None:
    with zipfile.ZipFile(build("wheel", tmp_path)) as wheel:
        shipped = set(wheel.namelist())
    bpf = [path for path in (ROOT / "bpf").rglob("*") if path.suffix in {".c", ".h"}]
    wanted = {f"numatrace/_bpf/{path.relative_to(ROOT / 'bpf')}" for path in bpf}
    wanted |= {relative(path) for path in [*MODULES, *(PACKAGE / "guide").glob("*.md")]}
    assert bpf
    assert wanted <= shipped
    assert {"numatrace/_bpf/LICENSE"} <= shipped
    assert {name.split("/")[0].partition("-")[0] for name in shipped} == {"numatrace"}


def test_sdist_is_enough_to_build_the_wheel(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "LICENSE", "bpf/LICENSE", "bpf/events.h", "README.md"} <= names
    assert {relative(path) for path in MODULES} <= names


# --- the runner of tests/conftest.py, with a stand-in for the guest


GUEST_TESTS = """
import os
import pytest

def test_passes():
    assert os.environ["NUMATRACE_IN_VM"] == "1"

@pytest.mark.parametrize("name", ["a b", "c[d]", "e::f"])
def test_parametrized(name):
    assert name

def test_fails():
    print("said in the guest")
    assert 1 + 1 == 3

def test_skips():
    pytest.skip("because of this")

@pytest.fixture
def broken():
    raise ValueError("no such thing")

def test_errors(broken):
    pass
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with this one's conftest.py and settings, and one file of VM tests."""
    (tmp_path / "tests/vm").mkdir(parents=True)
    for name in ("pyproject.toml", "tests/conftest.py", "tests/elsewhere.py"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "tests/vm/test_guest.py").write_text(GUEST_TESTS)
    return tmp_path


def run_pytest(
    project: Path, *arguments: str, guest: str = "env", seconds: str = "60"
) -> tuple[int, str]:
    command = (sys.executable, "-m", "pytest", "-m", "", *arguments)
    host = {"NUMATRACE_IN_VM": "", "NUMATRACE_VM": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    settings = {"NUMATRACE_VM_COMMAND": guest, "NUMATRACE_VM_SECONDS": seconds}
    result = run(*command, cwd=project, **host, **settings)
    return result.returncode, result.stdout


def test_guest_results_become_the_hosts(project: Path) -> None:
    status, output = run_pytest(project)
    assert status == 1
    assert "1 failed, 4 passed, 1 skipped, 1 error in" in output.splitlines()[-1]
    for text in ("assert (1 + 1) == 3", "said in the guest", "because of this", "no such thing"):
        assert text in output


def test_a_skip_in_a_chosen_stage_is_a_failure(project: Path) -> None:
    chosen = ("--stages=vm", "-k", "skips or passes")
    status, output = run_pytest(project, *chosen)
    assert status == 1
    assert "1 failed, 1 passed, 5 deselected in" in output.splitlines()[-1]
    status, output = run_pytest(project, *chosen, "--allow-skips")
    assert status == 0
    assert "1 passed, 1 skipped, 5 deselected in" in output.splitlines()[-1]


def test_a_stage_without_tests_is_a_failure(project: Path) -> None:
    status, output = run_pytest(project, "--stages=vm,kernel")
    assert status == 4
    assert "no test belongs to stage kernel" in output


def test_a_guest_that_does_not_start_fails_every_test(project: Path) -> None:
    status, output = run_pytest(project, guest="sh -c 'echo no such kernel; exit 3'")
    assert status == 1
    assert "7 failed in" in output.splitlines()[-1]
    assert "exit status 3" in output
    failures = output.partition("short test summary")[0]
    assert failures.count("no such kernel") == 1, "the guest's output is shown with the first only"


def test_a_guest_that_dies_keeps_what_it_reported(project: Path) -> None:
    dies = "import os\n\ndef test_dies():\n    os._exit(9)\n"
    (project / "tests/vm/test_zz.py").write_text(dies)
    status, output = run_pytest(project, "-k", "passes or dies")
    assert status == 1
    assert "1 failed, 1 passed, 6 deselected in" in output.splitlines()[-1]
    assert "did not finish this test (exit status 9)" in output


def test_a_guest_that_ends_badly_after_all_tests_is_a_failure(project: Path) -> None:
    status, output = run_pytest(project, "-k", "passes", guest="sh -c '\"$@\"; exit 7' guest")
    assert status == 1
    assert "ended badly after its last test (exit status 7)" in output


def test_a_guest_that_hangs_is_ended(project: Path) -> None:
    hangs = "sh -c 'sleep 100' guest"
    status, output = run_pytest(project, "-k", "passes", guest=hangs, seconds="0.5")
    assert status == 1
    assert "did not finish this test (ended after 0 s" in output


UNIT_TESTS = """
import os
import sys
import pytest

def test_where_it_runs():
    assert sys.argv[-1].startswith("@")

@pytest.mark.parametrize("name", ["a b", "c[d]", "e::f"])
def test_parametrized(name):
    assert "NUMATRACE_REPORTS" not in os.environ

def test_fails():
    print("said elsewhere")
    assert {number} + 1 == 3
"""


def test_a_stage_in_several_processes_counts_as_one(project: Path) -> None:
    (project / "tests/unit").mkdir()
    for number in range(6):
        code = UNIT_TESTS.replace("{number}", str(number))
        (project / f"tests/unit/test_{number:02}.py").write_text(code)
    status, output = run_pytest(project, "--stages=unit", "--durations=1")
    assert status == 1
    assert "5 failed, 25 passed, 7 deselected in" in output.splitlines()[-1]
    assert output.count("said elsewhere") >= 5
    assert "slowest" in output


def test_a_share_that_dies_fails_its_own_tests_only(project: Path) -> None:
    (project / "tests/unit").mkdir()
    dies = "import os\n\ndef test_dies():\n    os._exit(9)\n"
    for number in range(12):
        code = dies if number == 7 else "def test_passes():\n    pass\n"
        (project / f"tests/unit/test_{number:02}.py").write_text(code)
    status, output = run_pytest(project, "--stages=unit")
    assert status == 1
    assert "did not finish this test (exit status 9)" in output
    passed = int(re.findall(r"(\d+) passed", output)[-1])
    assert 6 <= passed < 12


def test_the_first_failure_ends_all_shares(project: Path) -> None:
    (project / "tests/unit").mkdir()
    (project / "tests/unit/test_a.py").write_text("def test_fails():\n    assert 0\n")
    slow = "import time\n\ndef test_slow():\n    time.sleep(300)\n"
    (project / "tests/unit/test_b.py").write_text(slow)
    status, output = run_pytest(project, "--stages=unit", "-x")
    assert status == 1
    assert "1 failed, 7 deselected in" in output.splitlines()[-1]
