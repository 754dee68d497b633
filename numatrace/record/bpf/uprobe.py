"""Run a BPF program whenever a function of a file is called, in whatever process maps the file."""

from __future__ import annotations

import ctypes
import platform

from numatrace.model.errors import CapabilityError
from numatrace.record.bpf.perf_event import PERF_EVENT_OPEN, Attr, open_event, run_program
from numatrace.record.machine.files import read_integer

UPROBE_TYPE = "/sys/bus/event_source/devices/uprobe/type"


def attach_uprobe(file: int, offset: int, program: int) -> int:
    """Attach a BPF program (its descriptor) to the code at `offset` of an open file.

    Returns a descriptor: the program stays attached until it is closed. Not by way of bcc, which
    would look the path up once more and read the file with a parser that trusts it.
    Raises CapabilityError where the kernel has no uprobes, OSError where it refuses.
    """
    known, kind = platform.machine() in PERF_EVENT_OPEN, read_integer(UPROBE_TYPE)
    if not known or kind is None:
        why = f"there is no {UPROBE_TYPE}" if known else f"unknown machine {platform.machine()}"
        raise CapabilityError("cannot trace functions", why, "use a kernel with CONFIG_UPROBES")
    path = ctypes.create_string_buffer(f"/proc/self/fd/{file}".encode())
    attr = Attr(type=kind, config1=ctypes.addressof(path), config2=offset)
    # Any CPU will do: the program hangs on the probe, which is the same on all of them.
    return run_program(open_event(attr, -1, 0), program)
