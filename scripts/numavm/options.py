"""The command line of numa-vm."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from numavm.machine import Machine, parse_machine, parse_size_mib

DISK_MOUNT = "/mnt/disk"
PASSED_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "VIRTUAL_ENV")
TCG = "tcg,thread=multi"

EPILOG = f"""\
in the guest:
  This machine's files, as they are. The command runs as root in the caller's folder, without input,
  with the caller's {", ".join(PASSED_ENVIRONMENT)},
  what --env adds, and NUMATRACE_VM=1. Writes stay in the guest's memory and are gone afterwards, in
  /tmp and $HOME too; below --rw folders they reach this machine. There is tracefs, debugfs, bpf,
  cgroup2 with all controllers enabled, a loopback interface, and modprobe for the guest's kernel;
  no network and no udev. With --systemd the command is one of its services, and no unit of this
  machine's is started. Files below --rw are read anew each time they are opened; those in
  {DISK_MOUNT} have a page cache as on a real disk. All others are on an overlay, as in a container:
  the device number of a mapping in /proc/PID/maps is not the one that stat gives for the file.

exit status:
  The command's; 124 after --timeout; 125 when there is no guest, or it died; 2 for a wrong option;
  128 plus the signal that ended numa-vm.

set-up:
  What is missing is installed with apt-get: QEMU, and what commands in the guest are likely to use.
  A kernel, docker, and a newer QEMU where the installed one is unreliable, come from Debian's
  packages too, unpacked in
  ${{NUMATRACE_CACHE:-${{XDG_CACHE_HOME:-$HOME/.cache}}/numatrace}}/numa-vm.
  Delete that to have newer ones.

examples:
  numa-vm numactl --hardware
  numa-vm --nodes 4 --cpus-per-node 1 --memory-per-node 1G \\
          --distances '10,12,20,32;12,10,32,20;20,32,10,12;32,20,12,10' numactl --hardware
  numa-vm --nodes 3 --cpus-per-node 2,2,0 cat /sys/devices/system/node/has_cpu
  numa-vm --disk 1G sh -c 'cp model.gguf {DISK_MOUNT}; numactl -m 1 wc -c {DISK_MOUNT}/model.gguf'
  numa-vm --rw out -- .venv/bin/python -m pytest -m vm tests/vm
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for. Sizes in MiB, paths absolute."""

    machine: Machine
    kernel: str
    timeout_s: float
    disk_mib: int
    rw: tuple[Path, ...]
    cwd: Path
    environment: dict[str, str]
    accel: str
    qemu: str | None
    qemu_args: tuple[str, ...]
    append: tuple[str, ...]
    console: bool
    prepare: bool
    systemd: bool
    docker: bool
    command: tuple[str, ...]

    def with_programs(self, folders: list[str]) -> Options:
        """The same with more folders in the guest's PATH, before its own."""
        path = ":".join([*folders, self.environment["PATH"]])
        return replace(self, environment={**self.environment, "PATH": path})


def parse_options(arguments: list[str]) -> Options:
    """Read the command line; ends the program with status 2 and a message when it is wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    if not command and not given.prepare:
        parser.error("which command? For example: numa-vm numactl --hardware")
    try:
        return Options(
            machine=parse_machine(
                given.nodes, given.cpus_per_node, given.memory_per_node, given.distances
            ),
            kernel=_kernel(given.kernel),
            timeout_s=_timeout(given.timeout),
            disk_mib=parse_size_mib(given.disk),
            rw=tuple(_folder(text, "--rw") for text in given.rw),
            cwd=_folder(given.cwd, "--cwd"),
            environment=_environment(given.env),
            accel="kvm" if given.kvm else given.accel,
            qemu=given.qemu,
            qemu_args=tuple(given.qemu_arg),
            append=tuple(given.append),
            console=given.console,
            prepare=given.prepare,
            systemd=given.systemd,
            docker=given.docker,
            command=tuple(command),
        )
    except ValueError as error:
        parser.error(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="numa-vm",
        usage="%(prog)s [options] [--] COMMAND...",
        description="Run a command in a virtual machine with several NUMA nodes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    _add_machine(parser)
    add(
        "--timeout",
        default="900",
        metavar="SECONDS",
        help="end the guest then, boot included (900)",
    )
    add("--disk", default="0", metavar="SIZE", help=f"an empty ext4 of this size at {DISK_MOUNT}")
    add(
        "--rw", action="append", default=[], metavar="DIR", help="writes in here reach this machine"
    )
    add("--cwd", default=".", metavar="DIR", help="folder to run in (the current one)")
    add("--env", action="append", default=[], metavar="NAME=VALUE", help="set in the guest")
    add("--prepare", action="store_true", help="install and cache everything, run COMMAND if given")
    add("--systemd", action="store_true", help="systemd as the guest's first process")
    add("--docker", action="store_true", help="have dockerd and docker in the guest's PATH")
    add("--console", action="store_true", help="show the guest's kernel messages")
    add("command", nargs=argparse.REMAINDER, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


def _add_machine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--nodes", type=int, default=2, metavar="N", help="number of NUMA nodes (2)")
    add("--cpus-per-node", default="2", metavar="N[,N...]", help="0 for a memory-only node (2)")
    add(
        "--memory-per-node",
        default="2G",
        metavar="SIZE[,SIZE...]",
        help="0 for a CPU-only node (2G)",
    )
    add("--distances", metavar="'A,B;C,D'", help="matrix of node distances (10 local, 21 remote)")
    add("--kernel", default="6.12", metavar="VERSION", help="Debian kernel that starts so (6.12)")
    add("--kvm", action="store_true", help="use KVM; only where it works, emulation always does")
    add("--accel", default=TCG, metavar="ARG", help=f"QEMU's accelerator ({TCG})")
    add("--qemu", metavar="PROGRAM", help="another QEMU")
    add("--qemu-arg", action="append", default=[], metavar="ARG", help="one argument more for QEMU")
    add("--append", action="append", default=[], metavar="ARG", help="one kernel parameter more")


def _kernel(text: str) -> str:
    if not re.fullmatch(r"[0-9]+\.[0-9]+[0-9.+a-z-]*", text):
        raise ValueError(f"--kernel {text!r} is not a version such as 6.12 or 6.12.107+deb12")
    return text


def _timeout(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,7}(\.[0-9]+)?", text) or float(text) <= 0:
        raise ValueError(f"--timeout {text!r} is not a number of seconds above 0")
    return float(text)


def _folder(text: str, option: str) -> Path:
    path = Path(text).resolve()
    if not path.is_dir():
        raise ValueError(f"{option} {text!r} is not a folder")
    return path


def _environment(pairs: list[str]) -> dict[str, str]:
    variables = {name: os.environ[name] for name in PASSED_ENVIRONMENT if name in os.environ}
    variables |= {"USER": "root", "LOGNAME": "root", "SHELL": "/bin/sh", "NUMATRACE_VM": "1"}
    # The command is root's, and users may lack root's folders: modprobe is there.
    folders = variables.get("PATH", "/usr/bin:/bin").split(":")
    variables["PATH"] = ":".join(dict.fromkeys([*folders, "/usr/sbin", "/sbin"]))
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"--env {pair!r} is not NAME=VALUE")
        variables[name] = value
    return variables
