"""One run: start QEMU, pass on the guest's output as it comes, and learn the exit status."""

from __future__ import annotations

import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, BinaryIO

from numavm import InterruptedRunError, VmError
from numavm.initrd import job_archive
from numavm.packages import cache_folder, say, tool
from numavm.qemu import Files, qemu_argv

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numavm.kernels import Kernel
    from numavm.options import Options

TIMED_OUT = 124
CONSOLE_TAIL = 3000  # bytes of kernel messages shown when the guest dies: a panic and its stack
POWER_OFF_S = 20.0  # that a guest gets to power off once its command has ended
PORTS = ("stdout", "stderr", "status", "console")


def run_guest(options: Options, kernel: Kernel, qemu: str) -> int:
    """Boot, run the command and return its exit status. Raises VmError when the guest died."""
    with ExitStack() as stack:
        # Files without a name, and a QEMU that dies with us: nothing is left behind, come what may.
        initrd = stack.enter_context(_nameless())
        initrd.write(kernel.initrd.read_bytes() + job_archive(options, kernel.modules))
        initrd.flush()
        disk = stack.enter_context(_disk(options.disk_mib)) if options.disk_mib else None
        pairs = {name: socket.socketpair() for name in PORTS}
        files = Files(
            qemu=qemu,
            vmlinux=kernel.vmlinux,
            initrd=initrd.fileno(),
            disk=disk.fileno() if disk else None,
            ports={name: theirs.fileno() for name, (_, theirs) in pairs.items()},
        )
        deadline = time.monotonic() + options.timeout_s
        stack.enter_context(_qemu(options, files))
        for _, theirs in pairs.values():
            theirs.close()
        received = _receive({name: ours for name, (ours, _) in pairs.items()}, options, deadline)
    return _outcome(received, options, timed_out=time.monotonic() >= deadline)


def exit_status(report: bytes) -> int | None:
    """The exit status in what the guest reported, None when it did not get so far."""
    match = re.fullmatch(rb"([0-9]{1,3})\n", report)
    return int(match[1]) if match and int(match[1]) < 256 else None


def _outcome(received: dict[str, bytes], options: Options, *, timed_out: bool) -> int:
    status = exit_status(received["status"])
    if status is not None:
        return status
    if timed_out:
        say(f"no end after {options.timeout_s:g} s (--timeout), so the guest was ended")
        return TIMED_OUT
    if not options.console:
        sys.stderr.write(received["console"].decode(errors="replace"))
    raise VmError("the guest ended without an exit status; above are its last messages, if any")


def _receive(
    sockets: dict[str, socket.socket], options: Options, deadline: float
) -> dict[str, bytes]:
    """Pass on the output until QEMU has ended or time is up; return the rest, by port."""
    received = {"status": b"", "console": b""}
    with selectors.DefaultSelector() as selector:
        for name, end in sockets.items():
            selector.register(end, selectors.EVENT_READ, name)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                data = _read(sockets[key.data])
                if not data:
                    selector.unregister(key.fileobj)
                elif key.data in received:
                    received[key.data] = (received[key.data] + data)[-CONSOLE_TAIL:]
                    if key.data == "status":
                        deadline = min(deadline, time.monotonic() + POWER_OFF_S)
                if key.data == "stdout":
                    _write(sys.stdout.buffer, data)
                elif key.data == "stderr" or (key.data == "console" and options.console):
                    _write(sys.stderr.buffer, data)
    return received


def _read(end: socket.socket) -> bytes:
    try:
        return end.recv(65536)
    except ConnectionResetError:  # QEMU ended with something of ours unread
        return b""


def _write(target: BinaryIO, data: bytes) -> None:
    try:
        target.write(data)
        target.flush()
    except BrokenPipeError as error:  # as in `numa-vm ... | head -1`
        raise InterruptedRunError(signal.SIGPIPE) from error


@contextmanager
def _qemu(options: Options, files: Files) -> Iterator[None]:
    inherited = [files.initrd, *files.ports.values()]
    inherited += [files.disk] if files.disk is not None else []
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *qemu_argv(options, files)],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        pass_fds=inherited,
        process_group=0,  # Ctrl-C is for us, who then end it
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _nameless() -> Iterator[BinaryIO]:
    # Not in /tmp, which may be memory: a disk can be large.
    with tempfile.TemporaryFile(dir=cache_folder()) as file:
        yield file


@contextmanager
def _disk(size_mib: int) -> Iterator[BinaryIO]:
    with _nameless() as file:
        file.truncate(size_mib << 20)
        path = f"/proc/self/fd/{file.fileno()}"
        command = [tool("mkfs.ext4"), "-q", "-F", path]
        subprocess.run(command, pass_fds=[file.fileno()], stdout=sys.stderr, check=True)
        yield file
