"""numa-vm from start to end: options, set-up, run, and the exit status for every outcome."""

from __future__ import annotations

import platform
import subprocess

from numavm import VmError
from numavm.emulator import get_qemu
from numavm.guest import InterruptedRunError, run_guest
from numavm.kernels import get_kernel
from numavm.options import parse_options
from numavm.packages import install_packages, locked_cache, say

FAILED = 125  # as `env` and `docker run` do: the status of what ran the command, not of the command
INTERRUPTED = 128


def main(arguments: list[str]) -> int:
    """Run numa-vm with these arguments and return the exit status."""
    options = parse_options(arguments)
    try:
        if platform.machine() != "x86_64":
            raise VmError(f"this machine is {platform.machine()}; guests are x86_64 only")
        with locked_cache() as cache:
            install_packages()
            kernel = get_kernel(options.kernel, cache)
            qemu = options.qemu or get_qemu(cache)
        return run_guest(options, kernel, qemu) if options.command else 0
    except InterruptedRunError as interrupted:
        return INTERRUPTED + interrupted.number
    except KeyboardInterrupt:
        return INTERRUPTED + 2
    except (VmError, OSError, subprocess.CalledProcessError) as error:
        say(str(error))
        return FAILED
