"""numa-vm from start to end: options, set-up, run, and the exit status for every outcome."""

from __future__ import annotations

import platform
import signal
import subprocess
from typing import TYPE_CHECKING

from numavm import InterruptedRunError, VmError
from numavm.docker import docker_folders
from numavm.emulator import get_qemu
from numavm.guest import run_guest
from numavm.kernels import get_kernel
from numavm.options import Options, parse_options
from numavm.packages import install_packages, locked_cache, say

if TYPE_CHECKING:
    from types import FrameType

FAILED = (
    125  # as `env` and `docker run` do: the status of what runs the command, not of the command
)
INTERRUPTED = 128


def main(arguments: list[str]) -> int:
    """Run numa-vm with these arguments and return the exit status."""
    options = parse_options(arguments)
    # As exceptions, signals end the children and remove the temporary files on their way.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return _run(options)
    except InterruptedRunError as interrupted:
        return INTERRUPTED + interrupted.number
    except (VmError, OSError, subprocess.CalledProcessError) as error:
        say(str(error))
        return FAILED


def _run(options: Options) -> int:
    if platform.machine() != "x86_64":
        raise VmError(f"this machine is {platform.machine()}; run this on an x86_64 one")
    with locked_cache() as cache:
        install_packages()
        kernel = get_kernel(options.kernel, cache)
        qemu = options.qemu or get_qemu(cache)
        if options.docker:
            options = options.with_programs(docker_folders(cache))
    return run_guest(options, kernel, qemu) if options.command else 0


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise InterruptedRunError(number)
