"""Compile, load and attach the BPF programs with bcc."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

from numatrace.model.errors import CapabilityError
from numatrace.record.bcc_import import find_bcc, import_bcc
from numatrace.record.plan import Plan, bpf_folder, program_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Loading:
    """A load under way in a thread: bcc compiles while the caller imports what it needs next.

    Imports neither numpy nor pyarrow, which take as long as the compiler does. Meanwhile
    the process has another working directory: the compiler changes to the headers and back.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._bpf: Any = None
        self._error: CapabilityError | None = None
        self._thread = threading.Thread(target=self._run, name="bcc")
        self._thread.start()

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
            self._bpf = load(self.plan)
        except CapabilityError as error:
            self._error = error


def load(plan: Plan) -> Any:
    """Compile and attach; returns bcc's BPF object. Raises CapabilityError."""
    folder = find_bcc()
    if folder is None:
        raise CapabilityError("cannot trace", "bcc was not found", "run: numatrace doctor")
    os.environ["BCC_KERNEL_SOURCE"] = str(bpf_folder() / "headers")
    with _stderr_to_memory() as compiler_output:
        try:
            return import_bcc(folder).BPF(text=program_text().encode(), cflags=plan.cflags())
        except Exception as error:  # bcc raises bare Exception
            why = (compiler_output() or str(error))[:500]
            raise CapabilityError(
                "cannot load the BPF programs", why, "run: numatrace doctor"
            ) from error


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
