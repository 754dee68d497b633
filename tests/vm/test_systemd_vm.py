"""A server that systemd runs: the drop-in is applied by the real systemd, and taken back."""

from __future__ import annotations

import contextlib
import subprocess
import sys
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

FIRST = Path("/proc/1/comm").read_text().strip()
UNIT = "llama-test.service"
FOLDER = Path("/etc/systemd/system")
MODEL = Path("/mnt/disk/model.gguf")
LOG = Path("/mnt/disk/server.log")

pytestmark = [
    pytest.mark.vm,
    pytest.mark.systemd,
    pytest.mark.skipif(FIRST != "systemd", reason=f"the first process is {FIRST}, not systemd"),
]

SERVICE = f"""\
[Unit]
Description=A server whose memory is all on node 0
DefaultDependencies=no
[Service]
ExecStart={sys.executable} {ROOT}/scripts/llama-server --model {MODEL} --port {PORT} --threads 4
NUMAPolicy=bind
NUMAMask=0
StandardOutput=append:{LOG}
StandardError=append:{LOG}
"""


def systemctl(*words: str) -> str:
    done = subprocess.run(["systemctl", *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def main_pid() -> int:
    return int(systemctl("show", "--property=MainPID", "--value", UNIT))


def wait_until_it_answers() -> None:
    wait_for(answers, LOG)


@pytest.fixture
def unit() -> Iterator[Path]:
    """The unit, started; its model lies on a real file system."""
    command = [sys.executable, str(ROOT / "scripts/make-model"), str(MODEL), "--size-mb", "24"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    quiet()
    path = FOLDER / UNIT
    path.write_text(SERVICE)
    systemctl("daemon-reload")
    systemctl("start", UNIT)
    wait_until_it_answers()
    yield path
    with contextlib.suppress(subprocess.CalledProcessError):
        systemctl("stop", UNIT)


def verified(unit: Path) -> str:
    """What `systemd-analyze verify` has to say of the unit with its drop-ins."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True
    )
    mine = [line for line in done.stderr.splitlines() if UNIT in line]
    return "\n".join(mine) or ("" if done.returncode == 0 else done.stderr)


def test_the_drop_in_makes_the_unit_healthy_and_is_taken_back(unit: Path, tmp_path: Path) -> None:
    script = diagnosed(main_pid(), "C1", "systemd", tmp_path)

    subprocess.run(["bash", str(script)], check=True, cwd=tmp_path)
    wait_until_it_answers()
    drop_ins = list(FOLDER.glob(f"{UNIT}.d/*.conf"))
    assert len(drop_ins) == 1
    assert verified(unit) == ""
    shown_healthy(main_pid(), tmp_path)

    subprocess.run(["bash", str(script), "--undo"], check=True, cwd=tmp_path)
    assert not list(FOLDER.glob(f"{UNIT}.d/*.conf"))
    assert systemctl("show", "--property=AllowedMemoryNodes", "--value", UNIT) == ""
    wait_until_it_answers()
