"""Read the tensor tables of GGUF files, in a process of its own that may fail without harm.

`python -m numatrace.record.tensors.gguf_worker` reads a request (see `Job.start` in gguf_table.py)
from standard input and writes one JSON line before and one after each file to standard output.
Files may be damaged or hostile, and may lie on file systems that never answer: so nobody but this
process opens them, and it runs under limits of memory, CPU time, wall time and output.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import struct
import sys
from collections import Counter
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, cast

from numatrace.model import text as model_text
from numatrace.record.workers import end_with_starter

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    from gguf import GGUFReader, GGUFValueType

    Reader = GGUFReader
    Order = Literal["I", "S", "<"]
    Parts = tuple[int, list[npt.NDArray[Any]], list[int], list[GGUFValueType]]
    """Size in bytes, arrays, which of these are values, and their types: see GGUFReader."""
else:
    # Importing gguf and numpy takes 0.3 s, so it waits until a GGUF file is found: see `describe`.
    Reader = object

MAGIC = b"GGUF"
PROBLEM_CHARACTERS = 300

CPU_SECONDS = 20
"""For all files of one request; the table of a model of 1,000 tensors takes 0.1 s."""

WALL_SECONDS = 600
NICE = 19
DATA_BYTES = 1 << 30
OUTPUT_BYTES = 64 << 20

MAX_TENSORS = 1 << 17
MAX_STRINGS = 1 << 24
"""Strings in one array: a vocabulary of today has 300,000."""

MAX_NAME_BYTES = 256
MAX_DIMENSIONS = 8
"""ggml itself has four (GGML_MAX_DIMS)."""


class DamagedError(ValueError):
    """The file cannot be what it says."""


class RawTensor(NamedTuple):
    """A row of the tensor table as it stands in the file: `offset` counts from the data's start."""

    name: str
    type: int
    dims: tuple[int, ...]
    offset: int


class HeaderRules(Reader):
    """What a GGUFReader does otherwise here: read no tensor, skip arrays, believe no number.

    GGUFReader makes two numpy arrays for each string, which takes 12 s and 650 MB for the
    vocabulary of a large model. Nothing in a vocabulary is needed here.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        import numpy

        self.numpy = numpy
        # numpy.memmap takes an open file as well as a path.
        super().__init__(cast("Any", stream))

    def _get(
        self, offset: int, dtype: npt.DTypeLike, count: int = 1, override_order: Order | None = None
    ) -> npt.NDArray[Any]:
        """As in GGUFReader, but a plain array (a third of the time), and all of it or EOFError."""
        kind = self.numpy.dtype(dtype).newbyteorder(override_order or self.byte_order)
        if offset + int(count) * kind.itemsize > len(self.data):
            raise EOFError
        return self.numpy.frombuffer(self.data, kind, int(count), offset)

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> Parts:
        from gguf import GGUFValueType

        if raw_type != GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        kind = GGUFValueType(int(self._get(orig_offs, "uint32")[0]))
        count = int(self._get(orig_offs + 4, "uint64")[0])
        return self._skip_array(kind, count, orig_offs + 12) - orig_offs, [], [], []

    def _skip_array(self, kind: GGUFValueType, count: int, offset: int) -> int:
        """The offset behind an array's values."""
        if scalar := self.gguf_scalar_to_np.get(kind):
            offset += count * scalar().itemsize
        elif kind.name == "STRING" and count <= MAX_STRINGS:
            offset = self._skip_strings(count, offset)
        else:
            raise DamagedError(f"an array of {count} values of type {kind.name}")
        if offset > len(self.data):
            raise EOFError
        return offset

    def _skip_strings(self, count: int, offset: int) -> int:
        length = struct.Struct("<Q" if self._little() else ">Q").unpack_from
        data, end = self.data.data, len(self.data) - 8
        for _ in range(count):
            if offset > end:
                raise EOFError
            offset += 8 + length(data, offset)[0]
        return offset

    def _little(self) -> bool:
        return (sys.byteorder == "little") == (self.byte_order == "I")

    def _build_tensor_info(self, offs: int, count: int) -> tuple[int, list[Any]]:
        if count > MAX_TENSORS:
            raise DamagedError(f"{count} tensors")
        raw: list[RawTensor] = []
        for _ in range(int(count)):
            parts = self._get_tensor_info_field(offs).parts
            _, name, n_dims, dims, kind, offset = parts
            if n_dims[0] > MAX_DIMENSIONS:
                raise DamagedError(f"a tensor of {n_dims[0]} dimensions at offset {offs}")
            text = name[: MAX_NAME_BYTES + 1].tobytes().decode("utf-8", "replace")
            raw.append(RawTensor(text, int(kind[0]), tuple(dims.tolist()), int(offset[0])))
            offs += sum(int(part.nbytes) for part in parts)
        return offs, raw

    def _build_tensors(self, start_offs: int, fields: list[Any]) -> None:
        self.raw: list[RawTensor] = fields


class Sizes:
    """Checks rows of a tensor table one by one, and counts what it refuses, by reason."""

    def __init__(self, data_offset: int, file_bytes: int) -> None:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        self.data_offset = data_offset
        self.file_bytes = file_bytes
        self.refused: Counter[str] = Counter()
        self.names: set[str] = set()
        self.types = {int(each): each.name for each in GGMLQuantizationType}
        self.blocks = {int(each): size for each, size in GGML_QUANT_SIZES.items()}

    def tensor_bytes(self, raw: RawTensor) -> int | str:
        """Size of a tensor in bytes, or why it cannot be."""
        if raw.type not in self.blocks:
            return f"of type {raw.type}, which the installed gguf package does not know"
        if len(raw.name.encode()) > MAX_NAME_BYTES or raw.name in self.names:
            return "with a name that is too long or not the only one"
        per_block, block_bytes = self.blocks[raw.type]
        elements = 1
        for dim in raw.dims:
            elements *= dim
        if raw.dims and raw.dims[0] % per_block:
            return "whose rows are no whole number of blocks"
        size = elements // per_block * block_bytes
        past = self.data_offset + raw.offset + size > self.file_bytes
        return "that end past the end of the file" if past else size

    def rows(self, table: list[RawTensor]) -> list[list[Any]]:
        """[name, type, offset in the file, bytes, shape] of every sound tensor, by offset."""
        rows: list[list[Any]] = []
        end = 0
        for raw in sorted(table, key=lambda raw: raw.offset):
            size = self.tensor_bytes(raw)
            offset = self.data_offset + raw.offset
            if isinstance(size, int) and size and offset < end:
                size = "that lie over another"
            if isinstance(size, str):
                self.refused[size] += 1
                continue
            self.names.add(raw.name)
            end = max(end, offset + size)
            name = printable(raw.name, MAX_NAME_BYTES)
            rows.append([name, self.types[raw.type], offset, size, list(raw.dims)])
        return rows

    def problem(self) -> str | None:
        """What was refused, in words."""
        said = [f"{count} tensors {reason}" for reason, count in sorted(self.refused.items())]
        return f"left out: {'; '.join(said)}" if said else None


def describe(stream: IO[bytes]) -> dict[str, Any]:
    """What the header of a GGUF file says. Raises almost anything if it is damaged."""
    from gguf import GGUFReader

    class HeaderReader(HeaderRules, GGUFReader):
        """A GGUFReader that keeps to the rules."""

    reader = HeaderReader(stream)
    data_offset = int(reader.data_offset)
    sizes = Sizes(data_offset, len(reader.data))
    tensors = sizes.rows(reader.raw)
    return {
        "data_offset": data_offset,
        "tensors": tensors,
        "model": text_field(reader, "general.name"),
        "architecture": text_field(reader, "general.architecture"),
        "problem": sizes.problem(),
    }


def text_field(reader: HeaderRules, key: str) -> str:
    """A text of the header, empty if it is not there or is no text."""
    field = reader.get_field(key)
    value = field.contents() if field is not None and field.types else ""
    return printable(value) if isinstance(value, str) else ""


def printable(text: object, limit: int = PROBLEM_CHARACTERS) -> str:
    """The beginning of a text as it may be shown, at most `limit` characters."""
    return model_text.printable(str(text)[:limit], limit)


def set_limits() -> None:
    """Bound this process, and let it end with the recorder that started it."""
    end_with_starter()
    # RLIMIT_DATA bounds what is allocated. RLIMIT_AS would count the file's own mapping as well,
    # which is as large as the model.
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES, DATA_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT_BYTES, OUTPUT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(WALL_SECONDS)
    # A server's threads wait for one another: what one of them loses to us, all lose.
    os.nice(NICE)


def open_regular(path: str, follow: bool) -> int | None:
    """A descriptor of the regular file, None if it is none or cannot be opened.

    O_PATH first: opening a device or a named pipe can do things, or wait for ever.
    """
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    except (OSError, ValueError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(f"/proc/self/fd/{handle}", flags)
    except OSError:
        return None
    finally:
        os.close(handle)


def open_first(paths: list[list[Any]], inode: int) -> int | None:
    """The first of `paths` ([path, follow symbolic links]) that opens and, if given, is `inode`."""
    for path, follow in paths:
        file = open_regular(path, follow)
        if file is None:
            continue
        if inode in (0, os.fstat(file).st_ino):
            return file
        os.close(file)
    return None


def read_table(file: int) -> dict[str, Any]:
    """What the header of an open GGUF file says, or why it cannot be read, as `problem`."""
    # Our faults on the header must not bring in the pages around it: where the page cache of a
    # model lies is what we are here to observe.
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    try:
        with os.fdopen(os.dup(file), "rb") as stream:
            return describe(stream)
    except ImportError as error:
        return {"problem": printable(f"the Python package gguf cannot be used: {error}")}
    except MemoryError:
        return {"problem": f"its header needs more than {DATA_BYTES >> 20} MiB: damaged"}
    except EOFError:
        return {"problem": "cut off: the file ends within its header"}
    except Exception as error:  # anything may come of a hostile file, and all of it means damaged
        reason = error.args[0] if isinstance(error, KeyError) and error.args else error
        return {"problem": printable(f"damaged: {reason}")}


def look(file: dict[str, Any], known: set[tuple[int, int]]) -> dict[str, Any] | None:
    """The table of one file of the request; None if it is no GGUF file, or known already."""
    opened = open_first(file["paths"], file["inode"])
    if opened is None:
        return {"problem": "cannot be opened"} if file["named"] else None
    try:
        status = os.fstat(opened)
        identity = (status.st_dev, status.st_ino)
        if (identity in known and not file["inode"]) or os.pread(opened, 4, 0) != MAGIC:
            return None
        known.add(identity)
        facts = {"st_dev": status.st_dev, "st_ino": status.st_ino, "file_bytes": status.st_size}
        return facts | read_table(opened)
    except OSError as error:
        return (
            {"problem": printable(f"cannot be read: {error.strerror}")} if file["named"] else None
        )
    finally:
        os.close(opened)


def serve(request: dict[str, Any], output: IO[str], limits: Callable[[], None]) -> None:
    """Answer a request: per file a line when it is begun, and one with its table or null."""
    limits()
    known = {(device, inode) for device, inode in request["known"]}
    for number, file in enumerate(request["files"]):
        for answer in ({"begin": number}, {"file": number, "table": look(file, known)}):
            output.write(json.dumps(answer) + "\n")
            output.flush()


if __name__ == "__main__":
    serve(json.load(sys.stdin), sys.stdout, set_limits)
