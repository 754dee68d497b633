"""Ollama's process trees without Ollama: `serve`, and the llama.cpp server that it starts.

Before 0.30 `ollama serve` ran itself again as `ollama runner`, which read the model into private
memory; since then it starts llama.cpp's own llama-server, with its environment. Here each program
is a copy of the Python interpreter under Ollama's name, that runs scripts/llama-server: names,
command lines, parents and placement are Ollama's, and what computes is llama.cpp.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Literal

from scenarios import modelfiles
from scenarios.workload import SCRIPTS

Release = Literal["0.24", "0.30"]

CLI_FOLDER = "cli"
"""Where `ollama list` and its like are, in the folder of a release: to be put on the path."""

SERVE = """\
import os, signal, subprocess, sys
child = subprocess.Popen({child!r}, env=os.environ)
def leave(*_):
    child.kill()
    os.waitpid(child.pid, 0)
    os._exit(0)
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGINT, leave)
sys.exit(child.wait())
"""
RUNNER = """\
import ctypes, os, pathlib, runpy, site
site.addsitedir({site!r})
# Have the kernel show Ollama's command line: this one was made as long, and is written over.
text = b"".join(os.fsencode(word) + b"\\0" for word in {shown!r})
stat = open("/proc/self/stat").read().rpartition(")")[2].split()
ctypes.memmove(int(stat[45]), text, len(text))  # arg_start, proc_pid_stat(5)
assert open("/proc/self/cmdline", "rb").read() == text
llama = runpy.run_path({server!r})
options = {options!r} + runpy.run_path({modelfiles!r})["server_options"](pathlib.Path({models!r}))
llama["serve"](llama["parameters"](llama["settings"](options, dict(os.environ))))
"""
CLI = """\
#!/bin/sh
exec {python} {modelfiles} {models} "$@"
"""


def ollama_command(release: Release, model: Path, *options: str) -> list[str]:
    """Lay the programs out beside the model; returns the command line of `ollama serve`.

    `options` are llama-server's that change what is computed on, not what is shown.
    """
    home = model.parent / f"ollama-{release}"
    shutil.rmtree(home, ignore_errors=True)
    blob = home / "models/blobs" / f"sha256-{0xA11A:064x}"
    blob.parent.mkdir(parents=True)
    os.link(model, blob)
    ollama = _program(home / "bin/ollama")
    if release == "0.30":
        shown = [str(_program(home / "lib/ollama/llama-server")), "--model", str(blob)]
        shown += ["--port", "0", "--host", "127.0.0.1", "--no-webui", "--offline", "-c", "1024"]
        shown += ["-np", "1", "--log-verbosity", "4", "--flash-attn", "auto"]
        given = ["--model", str(blob), "--port", "0", "-c", "1024", "-np", "1", *options]
    else:
        shown = [str(ollama), "runner", "--model", str(blob), "--port", "0"]
        given = [*shown[2:], "--load-mode", "none", *options]
    child = [shown[0], str(home / "inference")]
    child.append("-" * (len(" ".join(shown)) - len(" ".join(child)) - 1))
    site, server = sysconfig.get_path("purelib"), str(SCRIPTS / "llama-server")
    modelfiles.add(home / "models", blob)
    stand_in = {"modelfiles": modelfiles.__file__, "models": str(home / "models")}
    runner = RUNNER.format(site=site, shown=shown, server=server, options=given, **stand_in)
    (home / "inference").write_text(runner)
    _write_cli(home / CLI_FOLDER / "ollama", CLI.format(python=sys.executable, **stand_in))
    (home / "serve").write_text(SERVE.format(child=child))
    # A Python named ollama that is told "serve" runs the file of this name in its folder.
    return ["env", "-C", str(home), str(ollama), "serve"]


def _write_cli(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    path.chmod(0o755)


def _program(path: Path) -> Path:
    """A copy of the interpreter: its own name is the process's, and what /proc/PID/exe shows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(sys.executable).resolve(), path)
    base = Path(sys.executable).resolve().parent
    (path.parent / "pyvenv.cfg").write_text(
        f"home = {base}\ninclude-system-site-packages = false\n"
    )
    return path
