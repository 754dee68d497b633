"""A llama.cpp server under load: start it, ask it, record it, end it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

SCRIPTS = Path(__file__).resolve().parent.parent
ROOT = SCRIPTS.parent
READY = re.compile(rb"http://127\.0\.0\.1:\d+")
RECORDING = "recording process"
ESTABLISHED = "01"
"""In /proc/net/tcp, see tcp_states.h."""
START_TIMEOUT_S = 240.0
"""Emulated machines load slowly."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that listens."""

    process: subprocess.Popen[bytes]
    url: str
    pid: int
    """numactl and its like exec the server, so this is the process's own."""


def server_command(model: Path, *options: str) -> list[str]:
    """The command line of a server of this model on a free port."""
    command = [sys.executable, str(SCRIPTS / "llama-server"), "--model", str(model), "--port", "0"]
    return [*command, *options]


@contextlib.contextmanager
def serving(command: Sequence[str], log: Path) -> Iterator[Server]:
    """Run a server until the block ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)
    try:
        yield Server(process, wait_for_url(process, log), process.pid)
    finally:
        end(process)


def wait_for_url(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address that a server says it listens on. Raises RuntimeError with what it said."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if found := READY.search(log.read_bytes()):
            return found[0].decode()
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"the server does not listen; it said:\n{log.read_text(errors='replace')}")


@contextlib.contextmanager
def asking(url: str, wrapper: Sequence[str] = (), tokens: int = 64) -> Iterator[None]:
    """Send requests, one after the other, by a client started through a wrapper."""
    command = [*wrapper, sys.executable, str(SCRIPTS / "ask-model"), "--url", url]
    process = subprocess.Popen(
        [*command, "--tokens", str(tokens), "--seconds", "3600"], stdout=subprocess.DEVNULL
    )
    try:
        _wait_until_asked(url)
        yield
    finally:
        end(process)


def _wait_until_asked(url: str) -> None:
    """Until a client is connected: on an emulated machine it takes seconds to begin."""
    served = f":{int(url.rpartition(':')[2]):04X}"
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if local.endswith(served) and state == ESTABLISHED:
                return
        time.sleep(0.05)
    raise RuntimeError(f"nobody asks {url}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that we started."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def numatrace(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run numatrace itself, as a user would."""
    command = [sys.executable, "-m", "numatrace", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "NO_COLOR": "1"}
    )


def record(
    pid: int,
    trace: Path,
    seconds: float,
    *options: str,
    load: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> str:
    """Record a process under load into a trace; returns what was said, or raises RuntimeError.

    The load begins once the recorder is at work, and ends before it writes its end: on an emulated
    machine the threads of a server that computes leave other programs hardly any CPU.
    """
    # An emulated CPU takes so long to decode code that few samples a second have to do.
    rate = () if "-F" in options else ("-F", "11")
    command = [sys.executable, "-m", "numatrace", "record", "-p", str(pid), "-o", str(trace)]
    # Not beside the trace: a folder of the host's is no place to read what is being written.
    with tempfile.NamedTemporaryFile("w+") as output:
        said = Path(output.name)
        process = subprocess.Popen(
            [*command, "--force", *rate, *options],
            stdout=output, stderr=subprocess.STDOUT, cwd=ROOT,
            env={**os.environ, "NO_COLOR": "1"},
        )  # fmt: skip
        try:
            _wait_for(process, said)
            with load():
                time.sleep(seconds)
        finally:
            process.send_signal(signal.SIGINT)
            status = process.wait(START_TIMEOUT_S)
        text = said.read_text()
    if status:
        raise RuntimeError(text)
    return text


def _wait_for(recorder: subprocess.Popen[bytes], said: Path) -> None:
    """Until the recorder says that it records."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while RECORDING not in said.read_text():
        if recorder.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"nothing is recorded:\n{said.read_text()}")
        time.sleep(0.05)


STORM = """
import mmap
memory = mmap.mmap(-1, 64 << 20)
memory.madvise(mmap.MADV_NOHUGEPAGE)
while True:
    for at in range(0, len(memory), 4096):
        memory[at] = 1
    memory.madvise(mmap.MADV_DONTNEED)
"""


@contextlib.contextmanager
def fault_storm() -> Iterator[int]:
    """A process that does nothing but fault pages in, until the block ends; gives its pid."""
    process = subprocess.Popen([sys.executable, "-c", STORM])
    try:
        yield process.pid
    finally:
        end(process)


def set_balancing(value: int) -> None:
    """Switch the kernel's NUMA balancing on or off: it moves threads, and some of their memory."""
    Path("/proc/sys/kernel/numa_balancing").write_text(f"{value}\n")


def drop_page_cache() -> None:
    """Empty the page cache, so that the next reader decides where the model lies."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
