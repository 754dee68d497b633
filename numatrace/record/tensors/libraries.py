"""Find the files that hold a function: mapped by processes, needed by commands, beside programs."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from numatrace.record.tensors.elf import ElfFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numatrace.record.memory.maps import Mapping as MemoryMapping

Identity = tuple[int, int]
"""(dev, inode)"""

MAX_SEEN = 20_000
MAX_LIBRARIES = 32
MAX_WORDS = 16
"""Of a command that may be a program: `numactl --interleave=all llama-server ...`."""

MAX_VISITS = 512
MAX_ENTRIES = 4096
MAX_PACKAGE_FOLDERS = 8

FOLDERS = ("/lib", "/usr/lib", "/usr/local/lib", "/lib64", "/usr/lib64", "/usr/local/lib64")
MULTIARCH = ("x86_64-linux-gnu", "aarch64-linux-gnu")
BESIDE = (".", "../lib", "../lib/ollama", "lib", "lib/ollama")
"""Where programs keep their own libraries, from the folder of the program."""

PACKAGES = "../lib/python3*/site-packages"
PACKAGE_FOLDERS = ("llama_cpp/lib", "xllamacpp")
"""Where Python packages that hold llama.cpp keep it, from the folder of the interpreter."""

NAMES = re.compile(r"(?:libggml-base|libggml|libllama|xllamacpp)[.\-0-9a-z]*\.so[.0-9]*")


class Library(NamedTuple):
    """A file with the function: an open descriptor, and where the function begins in the file."""

    fd: int
    offset: int
    path: str


class Libraries:
    """The files with a function that were found so far, each looked into once."""

    def __init__(self, function: str) -> None:
        self.function = function
        self.found: dict[Identity, Library] = {}
        """By (st_dev, st_ino)."""
        self._seen: dict[Identity, Identity | None] = {}
        """Files as mappings show them, and what they are in `found`."""
        self._without: set[Identity] = set()

    def mapped_by(self, pid: int, mappings: Iterable[MemoryMapping]) -> set[Identity]:
        """Return those of the files that a process maps as code."""
        identities: set[Identity] = set()
        for mapping in mappings:
            if not mapping.inode or "x" not in mapping.perms:
                continue
            key = mapping.dev, mapping.inode
            if key not in self._seen and len(self._seen) < MAX_SEEN:
                self._seen[key] = self._look_at_mapped(pid, mapping)
            identity = self._seen.get(key)
            if identity is not None:
                identities.add(identity)
        return identities

    def prepare(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """Look into the programs that a command line names, and all libraries that they need.

        Where the dynamic linker would look (ld.so(8)), but for its cache, whose folders are the
        usual ones.
        """
        for word in command[:MAX_WORDS]:
            program = shutil.which(word)
            if program is not None:
                self._look_at_program(Path(program), environ)
                self.beside(program)

    def beside(self, program: str, root: str = "") -> None:
        """Look into llama.cpp's libraries where programs keep them: `root` is before every path."""
        folder = f"{root}{Path(program).parent}"
        places = [Path(folder, place) for place in BESIDE]
        if Path(program).name.startswith("python"):
            with contextlib.suppress(OSError, ValueError):
                found = itertools.islice(Path(folder).glob(PACKAGES), MAX_PACKAGE_FOLDERS)
                places += [each / package for each in found for package in PACKAGE_FOLDERS]
        for place in places:
            for name in filter(NAMES.fullmatch, _names(str(place))):
                self._look_at(f"{place}/{name}")

    def close(self) -> None:
        """Close the files."""
        for library in self.found.values():
            os.close(library.fd)
        self.found.clear()

    def _look_at_mapped(self, pid: int, mapping: MemoryMapping) -> Identity | None:
        # The first is the mapped file itself, but takes CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
        exact = f"/proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}"
        identity = self._look_at(exact)
        if identity is None and not os.access(exact, os.R_OK):
            seen_by_it = f"/proc/{pid}/root{mapping.path.removesuffix(' (deleted)')}"
            identity = self._look_at(seen_by_it, mapping.inode)
        return identity

    def _look_at_program(self, program: Path, environ: Mapping[str, str]) -> None:
        paths = [program.resolve()]
        visited: set[Path] = set()
        while paths and len(visited) < MAX_VISITS:
            path = paths.pop()
            if path in visited:
                continue
            visited.add(path)
            self._look_at(str(path))
            paths.extend(_needed(path, environ))

    def _look_at(self, path: str, inode: int = 0) -> Identity | None:
        """Open a file and look for the function. `inode`: the one that it must be."""
        fd = _open(path)
        if fd is None:
            return None
        status = os.fstat(fd)
        identity = status.st_dev, status.st_ino
        fits = inode in (0, status.st_ino) and identity not in self._without
        if not fits or identity in self.found or len(self.found) >= MAX_LIBRARIES:
            os.close(fd)
            return identity if fits and identity in self.found else None
        offset = ElfFile(fd).function_offset(self.function)
        if offset is None:
            os.close(fd)
            if len(self._without) < MAX_SEEN:
                self._without.add(identity)
            return None
        self.found[identity] = Library(fd, offset, path)
        return identity


def _open(path: str) -> int | None:
    """Open a regular file to read, without waiting for anything; None for all else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def _needed(path: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """The libraries that a file needs, where they exist."""
    fd = _open(str(path))
    if fd is None:
        return
    try:
        needs = ElfFile(fd).needs()
    finally:
        os.close(fd)
    origin = str(path.parent)
    own = [each.replace("$ORIGIN", origin).replace("${ORIGIN}", origin) for each in needs.folders]
    given = [each for each in environ.get("LD_LIBRARY_PATH", "").split(":") if each]
    usual = [*FOLDERS, *(f"{folder}/{each}" for folder in FOLDERS for each in MULTIARCH)]
    for name in needs.libraries:
        for folder in [*own, *given, *usual]:
            with contextlib.suppress(OSError, ValueError):
                found = Path(folder, name).resolve(strict=True)
                yield found
                break


def _names(folder: str) -> list[str]:
    with contextlib.suppress(OSError, ValueError), os.scandir(folder) as entries:
        return [entry.name for _, entry in zip(range(MAX_ENTRIES), entries, strict=False)]
    return []
