"""Completion, by the protocol in which the script asks, and by the shells themselves."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from numatrace.cli import completion
from numatrace.cli.main import COMMANDS, cli, run

ROOT = Path(__file__).resolve().parents[2]


def asked(shell: str, *words: str) -> list[str]:
    """What numatrace answers when the script of a shell asks for the last word."""
    typed = ["numatrace", *words]
    # fish says which word it is by its text, the others by its place.
    place = words[-1] if shell == "fish" else str(len(words))
    environment = {
        completion.VARIABLE: f"{shell}_complete",
        "COMP_WORDS": shlex.join(typed[:-1] if shell == "fish" else typed),
        "COMP_CWORD": place,
    }
    done = subprocess.run(
        [sys.executable, "-m", "numatrace"],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("word", ["", "re", "co"])
def test_commands(word: str) -> None:
    wanted = [f"plain,{name}" for name in COMMANDS if name.startswith(word)]
    assert asked("bash", word) == wanted


def test_commands_in_zsh_and_fish() -> None:
    assert asked("zsh", "reco")[:2] == ["plain", "record"]
    assert asked("fish", "reco")[0].startswith("plain,record")


def test_every_option_of_every_command() -> None:
    context = cli.make_context("numatrace", ["--version"], resilient_parsing=True)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        answered = {line.partition(",")[2] for line in asked("bash", name, "--")}
        wanted = {
            option
            for param in command.params
            if param.param_type_name == "option"
            for option in param.opts
            if option.startswith("--")
        }
        assert wanted <= answered, name


def test_files_formats_pages_and_shells() -> None:
    assert asked("bash", "analyze", "tra")[0].startswith("file,")
    assert asked("bash", "analyze", "--format", "js") == ["plain,json"]
    assert asked("bash", "guide", "plug") == ["plain,plugins"]
    assert asked("bash", "completion", "") == [f"plain,{shell}" for shell in completion.SHELLS]


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_verb_prints_clicks_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    printed = capsys.readouterr().out
    assert f"{completion.VARIABLE}={shell}_complete" in printed.replace("set -x ", "")
    assert "numatrace" in printed


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_shell_takes_the_script(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here")
    script = tmp_path / "script"
    script.write_text(completion.script(shell))
    done = subprocess.run([program, "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_bash_completes_with_it(tmp_path: Path) -> None:
    program = tmp_path / "numatrace"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m numatrace "$@"\n')
    program.chmod(0o755)
    code = f"""
        PATH={shlex.quote(str(tmp_path))}:$PATH
        eval "$(numatrace completion bash)"
        COMP_WORDS=(numatrace doc) COMP_CWORD=1
        $(complete -p numatrace | sed 's/.*-F \\([^ ]*\\) .*/\\1/') numatrace
        echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "doctor"
