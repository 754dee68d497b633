"""Functions in ELF files, against nm; libraries that a program needs; files that are anything."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numatrace.record.memory.maps import read_maps
from numatrace.record.tensors.elf import ElfFile
from numatrace.record.tensors.libraries import Libraries

if TYPE_CHECKING:
    from pathlib import Path

FUNCTION = "ggml_backend_tensor_alloc"
LIBRARY = f"int {FUNCTION}(void) {{ return 1; }}\nint other(void) {{ return 2; }}\n"
PROGRAM = f"#include <stdio.h>\nint {FUNCTION}(void);\nint main(void)\n" + (
    f'{{ printf("%d\\n", {FUNCTION}()); fflush(stdout); return getchar(); }}\n'
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with the function, and a program beside it that needs it."""
    folder = tmp_path_factory.mktemp("elf")
    (folder / "library.c").write_text(LIBRARY)
    (folder / "program.c").write_text(PROGRAM)
    library = folder / "libggml-base.so.0"
    commands = [
        ["gcc", "-shared", "-fPIC", "-o", library, folder / "library.c"],
        ["gcc", "-o", folder / "program", folder / "program.c", library, "-Wl,-rpath,$ORIGIN"],
        ["gcc", "-o", folder / "single", folder / "program.c", folder / "library.c"],
    ]
    for command in commands:
        subprocess.run(command, check=True)
    subprocess.run(["strip", "-o", folder / "stripped.so", library], check=True)
    return folder


def offset_of(path: Path, function: str = FUNCTION) -> int | None:
    fd = os.open(path, os.O_RDONLY)
    try:
        return ElfFile(fd).function_offset(function)
    finally:
        os.close(fd)


@pytest.mark.parametrize("name", ["libggml-base.so.0", "stripped.so", "single"])
def test_the_code_of_the_function_is_there(built: Path, name: str) -> None:
    """The oracle: nm's address, where the bytes are those of the process that runs it."""
    offset = offset_of(built / name)
    assert offset is not None
    dynamic = ["-D"] if name == "stripped.so" else []
    lines = subprocess.run(
        ["nm", *dynamic, built / name], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    [address] = [int(line.split()[0], 16) for line in lines if line.endswith(f" T {FUNCTION}")]
    # gcc's default layout has code at the same place in the file and in memory.
    assert offset == address
    assert offset_of(built / name, "ggml_backend_tensor") is None
    assert offset_of(built / name, "getchar") is None


def test_a_program_that_only_calls_the_function_does_not_hold_it(built: Path) -> None:
    assert offset_of(built / "program") is None


def test_what_a_command_needs_is_found_before_it_runs(built: Path) -> None:
    libraries = Libraries(FUNCTION)
    libraries.prepare(["env", "X=1", str(built / "program")], {})
    [found] = libraries.found.values()
    assert os.path.samefile(f"/proc/self/fd/{found.fd}", built / "libggml-base.so.0")  # noqa: PTH121
    libraries.close()


def test_what_a_process_maps_is_found_once(built: Path) -> None:
    libraries = Libraries(FUNCTION)
    process = subprocess.Popen(
        [built / "program"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    first = libraries.mapped_by(process.pid, read_maps(process.pid) or ())
    again = libraries.mapped_by(process.pid, read_maps(process.pid) or ())
    libraries.prepare([str(built / "program")], {})
    process.communicate("")
    assert first == again == set(libraries.found)
    assert len(first) == 1
    libraries.close()


@settings(deadline=None)
@given(st.data())
def test_damaged_files_are_read_without_harm(built: Path, data: st.DataObject) -> None:
    raw = bytearray((built / "libggml-base.so.0").read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.one_of(st.integers(0, 64), st.integers(0, len(raw) - 1)))
        raw[at] = data.draw(st.integers(0, 255))
    fd = os.memfd_create("damaged")
    try:
        os.write(fd, raw[: data.draw(st.integers(0, len(raw)))])
        elf = ElfFile(fd)
        offset = elf.function_offset(FUNCTION)
        elf.needs()
    finally:
        os.close(fd)
    assert offset is None or offset >= 0
