"""The fix as a script: it parses, shows without doing, does exactly that, stops, and goes back."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from numatrace.analyze.fixes import by_hand, docker, systemd
from numatrace.analyze.fixes.quoting import RefusedError, shell
from numatrace.analyze.fixes.script import NoFixError, script
from numatrace.analyze.plans.plan import Plan
from numatrace.model.findings import Fix, Step
from numatrace.model.process import Deployment
from tests.unit.fix_world import Notes, as_process, commands, report_of, situation_of
from tests.unit.test_analyze_world import MODEL, World
from tests.unit.test_render_text import NOTHING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.analyze.situation import Situation

BIND = Plan("bind", (1,), (2, 3), True, 2, ("/m/a model.gguf",))
UNIT = Deployment("llama.service", "system")
NOBODY = 4_194_303
"""A pid that no process has: the largest, on a machine with the usual limit far below it."""


def simple(*steps: Step, undo: tuple[Step, ...] = ()) -> Fix:
    return Fix(
        "x/y", "by hand", "do something", steps, (Step("echo sure", "See."),), undo, ("A note.",)
    )


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the server's name that may be ended."""
    program = tmp_path / "llama-server"
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "600"]) as running:
        threading.Thread(target=running.wait, daemon=True).start()  # nobody waits for a zombie
        yield running
        running.kill()


def write(folder: Path, text: str, name: str = "fix.sh") -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o700)
    return path


def parses(path: Path) -> bool:
    shells = [each for each in ("bash", "sh", "dash") if shutil.which(each)]
    return all(
        subprocess.run([each, "-n", path], capture_output=True, check=False).returncode == 0
        for each in shells
    )


# --- a fix for a server started by hand, run for real


def test_a_server_is_stopped_and_started_under_the_policy_and_put_back(
    notes: Notes, server: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    argv = (
        str(tmp_path / "llama-server"),
        "-m",
        "/m/a model.gguf",
        "--alias",
        "it's $(odd); \x1b[2J",
    )
    now = as_process(situation_of(World()), tgid=server.pid, argv=argv, cwd=str(tmp_path))
    path = write(tmp_path, script(report_of(by_hand.render(now, BIND, ()))))
    assert parses(path)
    shown = notes.run(path, "--check")
    assert (shown.returncode, notes.calls(), server.poll()) == (0, [], None)
    assert "numactl --cpunodebind=1" in shown.stdout
    done = notes.run(path, RUNS_S="30")
    assert done.returncode == 0, done.stderr
    assert server.wait(5) == -signal.SIGTERM
    calls = notes.calls(2)
    assert calls[0] == ["dd", "if=/m/a model.gguf", "iflag=nocache", "count=0"]
    assert calls[1] == ["numactl", "--cpunodebind=1", "--membind=1", *argv, "-t", "2"]
    assert "It runs as process" in done.stdout
    end(done.stdout)
    assert (tmp_path / "numatrace-server.log").exists()


def end(said: str) -> None:
    os.kill(int(said.split("It runs as process ")[1].split()[0]), signal.SIGTERM)


def test_a_pid_that_is_another_process_by_now_is_left_alone(
    notes: Notes, server: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    now = as_process(situation_of(World()), tgid=server.pid, comm="other", cwd=str(tmp_path))
    path = write(tmp_path, script(report_of(by_hand.render(now, BIND, ()))))
    done = notes.run(path)
    assert done.returncode == 1
    assert "Step 1 failed" in done.stderr
    assert server.poll() is None
    assert notes.calls() == []


def test_a_server_that_ends_at_once_is_a_failure(notes: Notes, tmp_path: Path) -> None:
    command = "sh -c 'echo no such model; exit 3'"
    path = write(tmp_path, script(report_of(simple(Step(command, "Start.", stays=True)))))
    done = notes.run(path, WAIT_S="1")
    assert done.returncode == 1
    assert "Step 1 failed (exit status 3)" in done.stderr
    assert "no such model" in done.stderr


# --- systemd, by what systemctl is told


def test_a_unit_gets_its_drop_in_and_loses_it_again(notes: Notes, tmp_path: Path) -> None:
    now = situation_of(World(deployment=UNIT))
    found = systemd.render(now, BIND, ())
    path = write(tmp_path, script(report_of(found)))
    assert parses(path)
    assert notes.run(path).returncode == 0
    assert notes.written() == ["\n".join(commands(found)[1].split("\n")[1:-1]) + "\n"]
    assert [call[:2] for call in notes.calls()] == [
        ["mkdir", "-p"], ["tee", "/etc/systemd/system/llama.service.d/numatrace.conf"],
        ["systemctl", "daemon-reload"], ["systemctl", "stop"], ["dd", "if=/m/a model.gguf"],
        ["systemctl", "start"],
    ]  # fmt: skip
    notes.path.unlink()
    assert notes.run(path, "--undo").returncode == 0
    assert [call[0] for call in notes.calls()] == ["rm", "systemctl", "systemctl"]


def test_it_stops_at_the_first_step_that_fails(notes: Notes, tmp_path: Path) -> None:
    found = systemd.render(situation_of(World(deployment=UNIT)), BIND, ())
    path = write(tmp_path, script(report_of(found)))
    done = notes.run(path, FAILS="dd")
    assert done.returncode == 1
    assert "Step 5 failed (exit status 1): Drop the model's pages" in done.stderr
    assert "--undo" in done.stderr
    assert notes.calls()[-1][0] == "dd"


# --- docker


def test_a_container_is_made_again_from_what_inspect_says(notes: Notes, tmp_path: Path) -> None:
    named = Deployment(container_kind="docker", container_name="llm")
    argv = ("/app/llama-server", "-m", "a b", "-t", "64")
    now = situation_of(World(deployment=named, argv=argv))
    path = write(tmp_path, script(report_of(docker.render(now, replace(BIND, evict=()), ()))))
    assert parses(path)
    done = notes.run(path)
    assert done.returncode == 0, done.stderr
    run = next(call for call in notes.calls(1, "docker") if call[1] == "run")
    assert run[2:5] == ["-d", "--name", "llm"]
    assert run[-6:] == ["false", "-m", "a b", "-t", "2"][-6:] or run[-5:] == [
        "false", "-m", "a b", "-t", "2",
    ]  # fmt: skip
    assert run[run.index("--entrypoint") + 1] == "/app/llama-server"


# --- the script itself


def test_steps_share_one_shell_and_root_goes_through_sudo(notes: Notes, tmp_path: Path) -> None:
    steps = (
        Step("model='a b' && test -n \"$model\"", "Find it."),
        Step('ollama stop "$model"', "Stop it."),
        Step("systemctl daemon-reload", "Reload.", needs_root=True),
    )
    path = write(tmp_path, script(report_of(simple(*steps))))
    notes.run(path)
    assert notes.calls()[0] == ["ollama", "stop", "a b"]
    if os.geteuid() == 0:
        assert notes.calls()[1] == ["systemctl", "daemon-reload"]


def test_wrong_calls_and_other_shells_are_told(notes: Notes, tmp_path: Path) -> None:
    path = write(tmp_path, script(report_of(simple(Step("ollama list", "Look.")))))
    done = notes.run(path, "--help")
    assert (done.returncode, notes.calls()) == (2, [])
    assert "--check | --verify | --undo" in done.stderr
    assert notes.run(path, "--verify").stdout == "1. See.\nsure\n"
    if shutil.which("dash"):
        assert notes.run("dash", path).returncode == 2
        assert notes.calls() == []


def test_nothing_in_a_comment_can_become_a_command(notes: Notes, tmp_path: Path) -> None:
    evil = "x\nollama stop y\r\u2028ollama rm z `ollama a` $(ollama b) \x1b[2J"
    found = replace(simple(Step("true", evil)), title=evil, notes=(evil,), deployment=evil)
    path = write(tmp_path, script(report_of(found, sentence=evil)))
    assert parses(path)
    for mode in ("--check", "run", "--undo", "--verify"):
        assert notes.run(path, mode).returncode == 0
    assert notes.calls() == []
    assert "\x1b" not in path.read_text()


def test_a_report_without_a_fix_is_no_script() -> None:
    with pytest.raises(NoFixError, match="no process that could be judged"):
        script(NOTHING)
    with pytest.raises(NoFixError, match="cannot be shown"):
        script(report_of(simple(Step("echo '\x1b[2J'", "Why."))))


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    now = situation_of(World(deployment=UNIT))
    for place, found in enumerate(
        [systemd.render(now, BIND, ()), by_hand.render(now, BIND, ()), simple(Step("true", "W."))]
    ):
        path = write(tmp_path, script(report_of(found)), f"{place}.sh")
        done = subprocess.run(["shellcheck", path], capture_output=True, text=True, check=False)
        assert done.stdout == ""


# --- hostile names: what arrives is exactly the name

TEXT = st.text(
    st.characters(exclude_characters="\0\ufffd", exclude_categories=("Cs",)), max_size=20
)
ODD = st.sampled_from(
    ["a b", "'", '"', "$(touch x)", "`id`", ";reboot", "a\nb", "\\", "*", "~", "-x", "\x1b]0;t\x07",
     "é漢👩‍👩‍👧", "\u202egpj", "!!", "%s", "#", "&& false", "", "\t", "\x7f", "<<END\nEND\n"]
)  # fmt: skip


@given(st.lists(TEXT | ODD, min_size=1, max_size=4), TEXT | ODD, ODD)
@settings(max_examples=40, deadline=None)
def test_what_arrives_is_exactly_the_name(words: list[str], path: str, folder: str) -> None:
    assume(not path.endswith(" (deleted)"))
    with TemporaryDirectory() as name:
        place = Path(name)
        notes = Notes(place)
        inner = place / folder.replace("/", "_") if folder not in ("", "~") else place
        inner.mkdir(exist_ok=True)
        now: Situation = as_process(
            NOW, tgid=NOBODY, argv=("/bin/llama-server", *words, "-t", "2"), cwd=str(inner)
        )
        found = by_hand.render(now, replace(BIND, evict=(f"/{path}",)), ())
        # Without the step that ends a process: there is none with this pid.
        steps = tuple(step for step in found.steps if " kill " not in step.command)
        assert len(steps) == len(found.steps) - 1
        file = write(place, script(report_of(replace(found, steps=steps))))
        assert parses(file)
        done = notes.run(file, RUNS_S="0.1")
        calls = {call[0]: call[1:] for call in notes.calls(2)}
        assert calls["dd"][0] == f"if=/{path}", done.stderr
        start = ["--cpunodebind=1", "--membind=1", "/bin/llama-server"]
        assert calls["numactl"][:3] == start
        given_ = calls["numactl"][3:]
        assert len(given_) == len(words) + 2
        assert [word for word, old in zip(given_, words, strict=False) if word != old] in (
            [],
            ["2"],
        )


NOW = situation_of(World())


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_quoting_gives_something_that_can_be_shown_or_nothing(text: str) -> None:
    try:
        assert shell(text).isprintable()
    except RefusedError:
        assert "\0" in text or "\ufffd" in text


def test_mode_is_for_the_owner_only(tmp_path: Path) -> None:
    from numatrace.cli.analyze import write_script

    place = tmp_path / "fix.sh"
    old = os.umask(0)
    try:
        write_script(place, report_of(simple(Step("true", "W."))), force=False)
    finally:
        os.umask(old)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert MODEL.startswith("/")
