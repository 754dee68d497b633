"""Known stimuli for the probes: a fresh process that does exactly what it is told.

The process is started before the probes are armed and takes its orders through a pipe, so that
neither the recorder's activity nor the start of the process itself is counted. This file is
also that process's program: run by its path, with the standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import platform
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

ANSWER_TIMEOUT_S = 10.0
"""Longest that one stimulus may take; the longest takes well under a second."""

MADV_NOHUGEPAGE = 15
"""include/uapi/asm-generic/mman-common.h; Python names it on Linux only."""

SYS_ARCH_PRCTL = 158
ARCH_GET_FS = 0x1003
"""arch/x86/entry/syscalls/syscall_64.tbl, arch/x86/include/uapi/asm/prctl.h."""

PROT_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
PRIVATE_ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS

_LIBC = ctypes.CDLL(None, use_errno=True)

_KEPT: dict[str, mmap.mmap] = {}
"""What the recorder may still look at after the answer."""

Answer = dict[str, int]


class StimulusError(Exception):
    """The stimulus process ended, or gave no answer in time."""


class Stimulus:
    """The process, from the recorder's side. Use as a context manager."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self._child.pid
        try:
            self.order("warm_up")
        except StimulusError:
            self.close()
            raise

    def __enter__(self) -> Stimulus:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process. Safe to call twice."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # an order that it did not live to read
                    pipe.close()

    def order(self, name: str, **values: int) -> Answer:
        """Have something done and wait for its end. Raises StimulusError."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps([name, values]).encode() + b"\n")
            self._child.stdin.flush()
        except OSError as error:
            raise StimulusError(f"{name}: the process has ended") from error
        return self._answer(name)

    def _answer(self, name: str) -> Answer:
        assert self._child.stdout is not None
        if not select.select([self._child.stdout], [], [], ANSWER_TIMEOUT_S)[0]:
            raise StimulusError(f"{name}: no answer in {ANSWER_TIMEOUT_S:.0f} s")
        line = self._child.stdout.readline()
        if not line:
            raise StimulusError(f"{name}: the process has ended")
        answer: Answer = json.loads(line)
        return answer

    def touch(self, pages: int) -> Answer:
        """Write to fresh private pages: exactly one fault each.

        Answers with `addr` and `bytes` of the range.
        """
        return self.order("touch", pages=pages)

    def read_into(self, pages: int) -> Answer:
        """Have the kernel write to fresh pages: one fault each, taken in kernel mode.

        Answers with `addr` and `bytes` of the range.
        """
        return self.order("read_into", pages=pages)

    def burn(self, oncpu_ns: int) -> Answer:
        """Compute for so long in 20 pieces, after each of which the thread yields and sleeps.

        Answers with `oncpu_ns` by the thread's own CPU clock.
        """
        return self.order("burn", oncpu_ns=oncpu_ns)

    def read(self, pages: int, oncpu_ns: int) -> Answer:
        """Read pages, which are there already and stay, over and over for so long.

        Answers with `addr` and `bytes` of the range, and `oncpu_ns` by the thread's CPU clock.
        """
        return self.order("read", pages=pages, oncpu_ns=oncpu_ns)

    def copy(self, oncpu_ns: int) -> Answer:
        """Be in read(2) for so long. Answers with `oncpu_ns` by the thread's CPU clock."""
        return self.order("copy", oncpu_ns=oncpu_ns)

    def fault(self, oncpu_ns: int) -> Answer:
        """Write to fresh pages, again and again, for so long. Answers with `oncpu_ns`."""
        return self.order("fault", oncpu_ns=oncpu_ns)

    def thread_base(self) -> Answer:
        """Ask the kernel where thread-local addresses begin. Answers with `thread_base`.

        0 on machines other than x86-64.
        """
        return self.order("thread_base")

    def lifecycle(self) -> Answer:
        """Begin and end a thread, then a child that replaces its program and ends.

        Answers with `tid` of the thread and `pid` of the child.
        """
        return self.order("lifecycle")

    def pin(self, cpu: int) -> Answer:
        """Let the thread run on this CPU only. Answers with the `cpu` it then runs on."""
        return self.order("pin", cpu=cpu)

    def hop(self, cpus: tuple[int, int], times: int) -> Answer:
        """Move the thread, which is pinned to the first CPU, to the other one so many times.

        Answers with `hops`, how often it then really ran on the other one.
        """
        return self.order("hop", first=cpus[0], second=cpus[1], times=times)

    def settle(self) -> None:
        """Wait until the process waits for its next order, and so is off its CPU."""
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while time.monotonic() < deadline:
            time.sleep(0.002)
            if self._state() in "SD":
                return
        raise StimulusError(f"still running after {ANSWER_TIMEOUT_S:.0f} s")

    def _state(self) -> str:
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise StimulusError("the process has ended") from error
        return stat.rpartition(")")[2].split()[0]

    def schedstat_ns(self) -> int:
        """Time of the process's thread on CPUs as the scheduler counts it.

        Exact while the thread sleeps. Raises StimulusError where the kernel does not count it.
        """
        path = Path(f"/proc/{self.pid}/task/{self.pid}/schedstat")
        try:
            return int(path.read_text().split()[0])
        except (OSError, ValueError, IndexError) as error:
            raise StimulusError("the kernel has no schedstat") from error


# What follows runs in the stimulus process.


def _fresh(pages: int) -> tuple[int, int, mmap.mmap]:
    """Address, length and mapping of fresh private memory in small pages."""
    size = pages * mmap.PAGESIZE
    area = mmap.mmap(-1, size, PRIVATE_ANONYMOUS, PROT_READ_WRITE)
    with contextlib.suppress(OSError):  # EINVAL: this kernel has no huge pages to refuse
        area.madvise(MADV_NOHUGEPAGE)
    anchor = ctypes.c_char.from_buffer(area)
    return ctypes.addressof(anchor), size, area


def _touch(pages: int) -> Answer:
    addr, size, _area = _fresh(pages)
    ctypes.memset(addr, 1, size)
    return {"addr": addr, "bytes": size}


def _read_into(pages: int) -> Answer:
    addr, size, area = _fresh(pages)
    zeros = os.open("/dev/zero", os.O_RDONLY)
    try:
        os.readv(zeros, [area])
    finally:
        os.close(zeros)
    return {"addr": addr, "bytes": size}


def _burn(oncpu_ns: int) -> Answer:
    before = time.thread_time_ns()
    for _ in range(20):
        end = time.thread_time_ns() + oncpu_ns // 20
        while time.thread_time_ns() < end:
            pass
        os.sched_yield()
        time.sleep(0.001)
    return {"oncpu_ns": time.thread_time_ns() - before}


def _for(oncpu_ns: int, work: Callable[[], object]) -> Answer:
    """Do something over and over for so much CPU time."""
    before = time.thread_time_ns()
    while time.thread_time_ns() < before + oncpu_ns:
        work()
    return {"oncpu_ns": time.thread_time_ns() - before}


def _read(pages: int, oncpu_ns: int) -> Answer:
    addr, size, area = _fresh(pages)
    _KEPT["read"] = area
    ctypes.memset(addr, 1, size)
    search = _LIBC.memchr  # reads all of it, and finds nothing
    search.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    return _for(oncpu_ns, lambda: search(addr, 2, size)) | {"addr": addr, "bytes": size}


def _copy(oncpu_ns: int) -> Answer:
    area = bytearray(1 << 20)
    zeros = os.open("/dev/zero", os.O_RDONLY)
    try:
        return _for(oncpu_ns, lambda: os.readv(zeros, [area]))
    finally:
        os.close(zeros)


def _fault(oncpu_ns: int) -> Answer:
    return _for(oncpu_ns, lambda: _touch(256))


def _thread_base() -> Answer:
    base = ctypes.c_uint64(0)
    if platform.machine() == "x86_64":
        _LIBC.syscall(SYS_ARCH_PRCTL, ARCH_GET_FS, ctypes.byref(base))
    return {"thread_base": base.value}


def _lifecycle() -> Answer:
    thread = threading.Thread(target=int)
    thread.start()
    tid = thread.native_id or 0
    thread.join()
    # fork and exec by hand: posix_spawn may use vfork, whose child counts on our pages.
    pid = os.fork()
    if pid == 0:
        try:
            os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", ""])
        finally:
            os._exit(127)
    os.waitpid(pid, 0)
    return {"tid": tid, "pid": pid}


def _pin(cpu: int) -> Answer:
    os.sched_setaffinity(0, {cpu})
    return {"cpu": _LIBC.sched_getcpu()}


def _hop(first: int, second: int, times: int) -> Answer:
    hops = 0
    for index in range(times):
        cpu = first if index % 2 else second
        hops += _pin(cpu)["cpu"] == cpu
    return {"hops": hops}


def _warm_up() -> Answer:
    """Run each path once, so that later ones load no code and grow no heap."""
    _touch(8)
    _read_into(8)
    _burn(1)
    _read(8, 1)
    return {}


ORDERS: dict[str, Callable[..., Answer]] = {
    "warm_up": _warm_up,
    "touch": _touch,
    "read_into": _read_into,
    "burn": _burn,
    "read": _read,
    "copy": _copy,
    "fault": _fault,
    "thread_base": _thread_base,
    "lifecycle": _lifecycle,
    "pin": _pin,
    "hop": _hop,
}


def _obey() -> None:
    """Take orders until the recorder closes the pipe."""
    for line in iter(sys.stdin.buffer.readline, b""):
        name, values = json.loads(line)
        os.write(1, json.dumps(ORDERS[name](**values)).encode() + b"\n")


if __name__ == "__main__":
    _obey()
