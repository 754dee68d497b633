"""Compile, load and attach the BPF programs with bcc."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

from numatrace.model.errors import CapabilityError
from numatrace.record.bpf.bcc_import import find_bcc, import_bcc
from numatrace.record.bpf.call import has_task_pt_regs
from numatrace.record.bpf.plan import PROGRAMS, RECLAIM, Plan, bpf_folder, program_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Loading:
    """A load under way in a thread: bcc compiles while the caller imports what it needs next.

    Imports neither numpy nor pyarrow, which take as long as the compiler does. Meanwhile
    the process has another working directory: the compiler changes to the headers and back.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.refused: dict[str, str] = {}
        """Rings without which the recording goes on, and why the kernel takes no program there."""
        self._bpf: Any = None
        self._error: CapabilityError | None = None
        self._thread = threading.Thread(target=self._run, name="bcc")
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether `result` need not wait."""
        return not self._thread.is_alive()

    def result(self) -> Any:
        """bcc's BPF object, compiled and attached. Raises CapabilityError."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._bpf

    def cancel(self) -> None:
        """Unload what was loaded, where it is not wanted after all."""
        self._thread.join()
        if self._bpf is not None:
            self._bpf.cleanup()

    def _run(self) -> None:
        try:
            self._bpf, self.refused = load(self.plan)
        except CapabilityError as error:
            self._error = error


def load(plan: Plan) -> tuple[Any, dict[str, str]]:
    """Compile and attach; returns bcc's BPF object. Raises CapabilityError.

    And the optional rings for which the kernel takes no program, with the reason.
    """
    folder = find_bcc()
    if folder is None:
        raise CapabilityError("cannot trace", "bcc was not found", "run: numatrace doctor")
    os.environ["BCC_KERNEL_SOURCE"] = str(bpf_folder() / "headers")
    flags = plan.cflags() + ["-DHAVE_TASK_PT_REGS"] * has_task_pt_regs()
    with _stderr_to_memory() as compiler_output:
        try:
            bcc = import_bcc(folder).BPF
            bpf = bcc(text=program_text(plan).encode(), cflags=flags)
        except Exception as error:  # bcc raises bare Exception
            why = (compiler_output() or str(error))[:500]
            raise CapabilityError(
                "cannot load the BPF programs", why, "run: numatrace doctor"
            ) from error
        refused = {}
        for ring in plan.optional:
            try:
                _load_optional(bpf, plan, ring)
            except Exception as error:  # bcc raises bare Exception
                refused[ring] = (compiler_output() or str(error))[:500]
        return bpf, refused


def _load_optional(bpf: Any, plan: Plan, ring: str) -> None:
    """Load the program that fills an optional ring; it is then in `bpf.funcs`."""
    kind, name = PROGRAMS[ring]
    bpf.load_func(name.encode(), getattr(type(bpf), kind))
    if ring != "access":
        return
    for program, tracepoints in RECLAIM.items():
        for tracepoint in filter(plan.has, tracepoints):
            bpf.attach_tracepoint(
                tp=tracepoint.replace("/", ":").encode(), fn_name=program.encode()
            )


@contextlib.contextmanager
def _stderr_to_memory() -> Iterator[Callable[[], str]]:
    """Catch what bcc's compiler and libbpf write to file descriptor 2.

    Yields a function that returns the last lines of it.
    """
    catcher = os.memfd_create("bcc-stderr", os.MFD_CLOEXEC)
    saved = os.dup(2)
    os.dup2(catcher, 2)

    def text() -> str:
        lines = os.pread(catcher, 65_536, 0).decode("utf-8", "replace").splitlines()
        errors = [line for line in lines if "error" in line.lower()] or lines[-3:]
        return "; ".join(line.strip() for line in errors[:3])

    try:
        yield text
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(catcher)
