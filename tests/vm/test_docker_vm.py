"""A server in a container of a real docker engine: the fix for docker is run, and taken back."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from scenarios.table import quiet  # noqa: E402 (found once its folder is on the path)
from scenarios.trial import PORT, answers  # noqa: E402

from tests.vm.fixing import diagnosed, shown_healthy, wait_for  # noqa: E402

NAME = "llama"
IMAGE = "here"
DATA = Path("/mnt/disk/docker")
LOG = DATA.with_suffix(".log")
MODEL = Path("/mnt/disk/docker-model.gguf")
NOT_SHARED = ("boot", "dev", "lost+found", "proc", "run", "sys")

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(not shutil.which("dockerd"), reason="dockerd is not there (--docker)"),
]


def docker(*words: str, **more: bytes) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, check=False, **more)
    assert done.returncode == 0, (words, done.stderr.decode(errors="replace"))
    return done.stdout.decode().strip()


@pytest.fixture(scope="module")
def engine() -> Iterator[None]:
    """A docker daemon with an image of this machine's links."""
    options = ["--bridge=none", "--iptables=false", "--ip-forward=false", "--storage-driver=vfs"]
    with LOG.open("wb") as output:
        daemon = subprocess.Popen(
            ["dockerd", *options, f"--data-root={DATA}"], stdout=output, stderr=output
        )
    try:
        wait_for(
            lambda: not subprocess.run(["docker", "info"], capture_output=True).returncode, LOG
        )
        docker("import", "-", IMAGE, input=image())
        yield
    finally:
        daemon.terminate()
        daemon.wait(60)


def image() -> bytes:
    """An image with this machine's top level: what it links to comes from outside, mounted."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path in Path("/").iterdir():
            if path.is_symlink() or path.is_dir():
                tar.add(path, recursive=False)
    return packed.getvalue()


@contextlib.contextmanager
def container(*options: str, threads: int) -> Iterator[None]:
    """The server in a container that sees this machine's files."""
    command = [sys.executable, str(ROOT / "scripts/make-model"), str(MODEL), "--size-mb", "24"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    quiet()
    shared = [
        word
        for path in Path("/").iterdir()
        if path.is_dir() and not path.is_symlink() and path.name not in NOT_SHARED
        for word in ("--volume", f"{path}:{path}")
    ]
    serve = [str(ROOT / "scripts/llama-server"), "--model", str(MODEL), "--port", str(PORT)]
    serve += ["--threads", str(threads)]
    run = ["run", "--detach", "--name", NAME, "--network", "host", *shared, *options]
    docker(*run, "--entrypoint", sys.executable, IMAGE, *serve)
    try:
        wait_for(answers, LOG)
        yield
    finally:
        for name in docker("ps", "--all", "--format", "{{.Names}}").split():
            docker("rm", "--force", name)


def main_pid() -> int:
    return int(inspected("{{.State.Pid}}"))


def inspected(template: str) -> str:
    return docker("inspect", "--format", template, NAME)


def run_script(script: Path, *options: str) -> None:
    done = subprocess.run(
        ["bash", str(script), *options], capture_output=True, text=True, cwd=script.parent
    )
    assert done.returncode == 0, (script.read_text(), done.stdout, done.stderr)
    wait_for(answers, LOG)


def cpuset() -> tuple[str, str]:
    return inspected("{{.HostConfig.CpusetCpus}}"), inspected("{{.HostConfig.CpusetMems}}")


@pytest.mark.usefixtures("engine")
def test_a_container_on_one_node_with_memory_of_the_other_is_updated(tmp_path: Path) -> None:
    with container("--cpuset-cpus=2-3", "--cpuset-mems=0", threads=2):
        script = diagnosed(main_pid(), "C5", "docker", tmp_path)
        run_script(script)
        shown_healthy(main_pid(), tmp_path)
        assert cpuset() == ("0-1", "0"), script.read_text()
        run_script(script, "--undo")
        assert cpuset() == ("2-3", "0")
