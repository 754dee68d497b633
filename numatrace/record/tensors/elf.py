"""Bounded look into ELF files: where a function lies in the file, and which libraries it needs.

Files may be anything: sizes are bounded, and what makes no sense is as if it were not there.
Layout from the System V gABI (Elf64_Ehdr, Elf64_Phdr, Elf64_Shdr, Elf64_Sym, Elf64_Dyn).
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

import numpy as np

MAX_HEADERS = 4096
MAX_TABLE_BYTES = 128 << 20
"""Of a symbol table and its names: those of llama.cpp with all its symbols are some 2 MiB."""

MAX_DYNAMIC_BYTES = 1 << 16
MAX_NEEDED = 256

MAGIC = b"\x7fELF\x02\x01"
"""64 bits, little endian: x86-64 and arm64."""

PT_LOAD, PT_DYNAMIC = 1, 2
SHT_SYMTAB, SHT_DYNSYM = 2, 11
DT_NEEDED, DT_STRTAB, DT_RPATH, DT_RUNPATH = 1, 5, 15, 29
STT_FUNC = 2

_EHDR = struct.Struct("<16x HHIQQQI HHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = np.dtype(
    [
        ("name", "<u4"),
        ("info", "u1"),
        ("other", "u1"),
        ("shndx", "<u2"),
        ("value", "<u8"),
        ("size", "<u8"),
    ]
)


class Segment(NamedTuple):
    """A program header: offsets and sizes in bytes."""

    type: int
    offset: int
    vaddr: int
    file_bytes: int


class Section(NamedTuple):
    """A section header; `link` is the number of the section with its strings."""

    type: int
    offset: int
    bytes: int
    link: int


class Needs(NamedTuple):
    """What the dynamic section asks for: libraries, and folders to look for them in first."""

    libraries: tuple[str, ...]
    folders: tuple[str, ...]


class ElfFile:
    """One open ELF file. `valid` is False for any other file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.segments: tuple[Segment, ...] = ()
        self._sections: tuple[Section, ...] = ()
        header = self._read(0, 64)
        self.valid = len(header) == 64 and header.startswith(MAGIC)
        if self.valid:
            self._read_headers(header)

    def _read_headers(self, header: bytes) -> None:
        _, _, _, _, phoff, shoff, _, _, phsize, phnum, shsize, shnum, _ = _EHDR.unpack(header)
        if phsize == _PHDR.size and phnum <= MAX_HEADERS:
            rows = _PHDR.iter_unpack(self._whole(phoff, phsize * phnum, phsize))
            self.segments = tuple(
                Segment(kind, offset, vaddr, size) for kind, _, offset, vaddr, _, size, _, _ in rows
            )
        if shsize == _SHDR.size and shnum <= MAX_HEADERS:
            rows = _SHDR.iter_unpack(self._whole(shoff, shsize * shnum, shsize))
            self._sections = tuple(
                Section(kind, offset, size, link)
                for _, kind, _, _, offset, size, link, _, _, _ in rows
            )

    def function_offset(self, name: str) -> int | None:
        """Where the code of a function begins in the file, in bytes; None if it has none."""
        for section in self._sections:
            if section.type in (SHT_DYNSYM, SHT_SYMTAB):
                value = self._value(section, name.encode())
                offset = None if value is None else self._file_offset(value)
                if offset is not None:
                    return offset
        return None

    def needs(self) -> Needs:
        """What its dynamic section asks for; nothing for a static program."""
        entries = self._dynamic()
        table = next((value for tag, value in entries if tag == DT_STRTAB), None)
        start = None if table is None else self._file_offset(table)
        if start is None:
            return Needs((), ())
        wanted = [value for tag, value in entries if tag == DT_NEEDED][:MAX_NEEDED]
        paths = [value for tag, value in entries if tag in (DT_RPATH, DT_RUNPATH)]
        folders = ":".join(self._string(start + value) for value in paths).split(":")
        libraries = (self._string(start + value) for value in wanted)
        return Needs(tuple(filter(None, libraries)), tuple(filter(None, folders)))

    def _dynamic(self) -> list[tuple[int, int]]:
        for segment in self.segments:
            if segment.type == PT_DYNAMIC:
                size = min(segment.file_bytes, MAX_DYNAMIC_BYTES)
                return list(struct.iter_unpack("<QQ", self._whole(segment.offset, size, 16)))
        return []

    def _value(self, section: Section, name: bytes) -> int | None:
        """The address of a defined function of this name."""
        if section.link >= len(self._sections):
            return None
        strings = self._sections[section.link]
        names = self._read(strings.offset, min(strings.bytes, MAX_TABLE_BYTES))
        at = names.find(b"\0" + name + b"\0")
        if at < 0:
            return None
        size = min(section.bytes, MAX_TABLE_BYTES)
        symbols = np.frombuffer(self._whole(section.offset, size, _SYM.itemsize), _SYM)
        mine = symbols[(symbols["name"] == at + 1) & (symbols["shndx"] != 0)]
        mine = mine[mine["info"] & 0xF == STT_FUNC]
        return int(mine[0]["value"]) if len(mine) else None

    def _file_offset(self, vaddr: int) -> int | None:
        for segment in self.segments:
            within = vaddr - segment.vaddr
            if segment.type == PT_LOAD and 0 <= within < segment.file_bytes:
                return segment.offset + within
        return None

    def _string(self, offset: int) -> str:
        return self._read(offset, 4096).partition(b"\0")[0].decode("utf-8", "replace")

    def _whole(self, offset: int, size: int, unit: int) -> bytes:
        """So many bytes, cut to whole units where the file ends before."""
        data = self._read(offset, size)
        return data[: len(data) // unit * unit]

    def _read(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._fd, size, offset)
        except (OSError, OverflowError):
            return b""
