"""numa-vm from start to end: options, set-up, run, and the exit status for every outcome."""

from __future__ import annotations

import platform
import subprocess
import sys

from numavm import VmError
from numavm.guest import InterruptedRunError, run
from numavm.options import parse_options
from numavm.packages import prepare

FAILED = 125  # as `env` and `docker run` do: the status of what ran the command, not of the command
INTERRUPTED = 128


def main(arguments: list[str]) -> int:
    """Run numa-vm with these arguments and return the exit status."""
    options = parse_options(arguments)
    try:
        if platform.machine() != "x86_64":
            raise VmError(f"this machine is {platform.machine()}; guests are x86_64 only")
        kernel = prepare(options.kernel)
        return run(options, kernel) if options.command else 0
    except InterruptedRunError as interrupted:
        return INTERRUPTED + interrupted.number
    except KeyboardInterrupt:
        return INTERRUPTED + 2
    except (VmError, OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"numa-vm: {error}\n")
        return FAILED
