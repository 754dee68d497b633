"""Find the GGUF files of processes and get their tensor tables, read by a bounded subprocess."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from numatrace.record import workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numatrace.record.memory.maps import Mapping

MIN_MAPPED_BYTES = 64 << 10
MAX_DESCRIPTORS = 4096
MAX_BATCH = 512
MAX_SEEN = 100_000
"""Files and paths that are remembered, and looked into once."""

MAX_SHARDS = 1000
WALL_SECONDS = 615.0
"""A little more than the worker allows itself."""

MODEL_OPTIONS = ("--model", "-m", "--model-draft", "-md", "--mmproj", "-mm")
SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")

Identity = tuple[int, int]
"""(dev, inode)"""


class Tensor(NamedTuple):
    """A tensor of a GGUF file: its `offset` in the file and its `bytes`.

    `shape` as the file has it: the first is the length of a row (ggml's `ne`).
    """

    name: str
    type: str
    offset: int
    bytes: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GgufTable:
    """What the header of a GGUF file says; offsets and sizes in bytes.

    `dev`, `inode` and `path` are those that the mappings of the file show, if it is mapped.
    `tensors` lie within the file, in order of offset, none over another. `problem`: why
    the table is not there or not whole.
    """

    path: str
    dev: int
    inode: int
    data_offset: int = 0
    file_bytes: int = 0
    tensors: tuple[Tensor, ...] = ()
    model: str = ""
    architecture: str = ""
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may be a GGUF file, and how to open it: (path, follow symbolic links), in order.

    `inode` 0: not known. `named`: it claims to be a model, so that a failure is worth telling.
    """

    path: str
    paths: tuple[tuple[str, bool], ...]
    dev: int = 0
    inode: int = 0

    @property
    def named(self) -> bool:
        """Whether the path is that of a model."""
        path = self.path.removesuffix(" (deleted)")
        return path.endswith(".gguf") or "/blobs/sha256-" in path

    def request(self) -> dict[str, Any]:
        """What the worker is told."""
        return {"paths": self.paths, "inode": self.inode, "named": self.named}


def mapped_files(pid: int, mappings: Iterable[Mapping]) -> Iterator[Candidate]:
    """The files of which a process maps 64 KiB or more.

    /proc/PID/map_files leads to the mapped file itself, also when it was deleted or lies in a
    container; it takes CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN. Else the path is tried, as the
    process sees it, and the inode compared.
    """
    files: defaultdict[Identity, list[Mapping]] = defaultdict(list)
    for mapping in mappings:
        if mapping.inode:
            files[mapping.dev, mapping.inode].append(mapping)
    for (dev, inode), parts in files.items():
        if sum(part.bytes for part in parts) < MIN_MAPPED_BYTES:
            continue
        path = parts[0].path
        ranges = [f"/proc/{pid}/map_files/{part.start:x}-{part.end:x}" for part in parts[:3]]
        seen_by_it = f"/proc/{pid}/root/{path.removesuffix(' (deleted)').lstrip('/')}"
        yield Candidate(path, (*((each, True) for each in ranges), (seen_by_it, False)), dev, inode)


def open_files(pid: int) -> Iterator[Candidate]:
    """The files that a process has open. Nothing is opened here, nor is any file asked for."""
    folder = f"/proc/{pid}/fd"
    try:
        with os.scandir(folder) as entries:
            for _, entry in zip(range(MAX_DESCRIPTORS), entries, strict=False):
                try:
                    path = os.fsencode(Path(entry.path).readlink())
                except OSError:
                    continue
                if path.startswith(b"/") and not path.startswith((b"/dev/", b"/proc/", b"/sys/")):
                    shown = path.decode("utf-8", "backslashreplace")
                    yield Candidate(shown, ((entry.path, True),))
    except OSError:
        return


def named_files(pid: int, argv: Sequence[str]) -> Iterator[Candidate]:
    """The models that a command line names, with all shards of a split one.

    A server that does not map its model (`--no-mmap`) closes it once it is read.
    """
    for position, word in enumerate(argv):
        option, is_joined, value = word.partition("=")
        if option not in MODEL_OPTIONS:
            continue
        path = value if is_joined else next(iter(argv[position + 1 : position + 2]), "")
        for shard in shards(path):
            yield _as_seen_by(pid, shard)


def shards(path: str) -> Iterator[str]:
    """All paths of a split model (`NAME-00001-of-00003.gguf`), or the one that it is."""
    if match := SHARD.search(path):
        count = min(int(match[2]), MAX_SHARDS)
        stem = path[: match.start()]
        yield from (f"{stem}-{each:05}-of-{match[2]}.gguf" for each in range(1, count + 1))
    elif path:
        yield path


def _as_seen_by(pid: int, path: str) -> Candidate:
    """The file at a path that may be relative to the process's folder, and in its container."""
    if path.startswith("/"):
        return Candidate(path, ((f"/proc/{pid}/root{path}", True),))
    try:
        folder = str(Path(f"/proc/{pid}/cwd").readlink())
    except OSError:
        folder = ""
    return Candidate(str(Path(folder) / path), ((f"/proc/{pid}/cwd/{path}", True),))


@dataclass(slots=True)
class Job:
    """A worker that reads some files. Its output goes to memory, so that it never waits for us."""

    files: list[Candidate]
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    deadline: float
    reason: str = ""

    @classmethod
    def start(cls, files: list[Candidate], known: Iterable[Identity]) -> Job:
        """Begin to read `files`; those of `known` that are not mapped are left out."""
        request = {"known": list(known), "files": [file.request() for file in files]}
        output = os.fdopen(os.memfd_create("gguf-tables"), "w+b")
        with os.fdopen(os.memfd_create("gguf-request"), "w+b") as given:
            given.write(json.dumps(request).encode())
            given.seek(0)
            process = subprocess.Popen(
                workers.command("numatrace.record.tensors.gguf_worker"),
                stdin=given,
                stdout=output,
                stderr=subprocess.DEVNULL,
                env=workers.environment(),
                process_group=0,
            )
        return cls(files, process, output, time.monotonic() + WALL_SECONDS)

    def ended(self) -> bool:
        """Whether the worker has ended; it is ended when its time is up."""
        if self.process.poll() is None and time.monotonic() > self.deadline:
            self.stop()
        if self.process.returncode:
            code = self.process.returncode
            self.reason = f"signal {-code}" if code < 0 else f"exit status {code}"
        return self.process.returncode is not None

    def hasten(self) -> None:
        """Give the worker, which is nice to the server while that is recorded, its full share."""
        with contextlib.suppress(OSError):  # it ended, or we may not
            os.setpriority(os.PRIO_PROCESS, self.process.pid, 0)

    def stop(self) -> None:
        """End the worker now."""
        self.process.kill()
        self.process.wait()

    def answers(self) -> tuple[dict[int, Any], int]:
        """What it found by file number, and how many files it had begun to read."""
        self.output.seek(0)
        found: dict[int, Any] = {}
        begun = 0
        for line in self.output.read().split(b"\n"):
            try:
                answer = json.loads(line)
            except ValueError:
                continue  # the last line of a worker that was ended
            if "begin" in answer:
                begun = answer["begin"] + 1
            else:
                found[answer["file"]] = answer["table"]
        self.output.close()
        return found, begun


def _table(file: Candidate, found: dict[str, Any]) -> GgufTable:
    """The table as the worker told it."""
    return GgufTable(
        path=file.path,
        dev=file.dev if file.inode else found.get("st_dev", 0),
        inode=file.inode or found.get("st_ino", 0),
        data_offset=found.get("data_offset", 0),
        file_bytes=found.get("file_bytes", 0),
        tensors=tuple(
            Tensor(name, kind, offset, size, tuple(shape))
            for name, kind, offset, size, shape in found.get("tensors", ())
        ),
        model=found.get("model", ""),
        architecture=found.get("architecture", ""),
        problem=found["problem"],
    )


@dataclass(slots=True)
class GgufFinder:
    """Finds the GGUF files of processes in the background. All calls return at once but `finish`.

    `tables`: what was found so far, by the (dev, inode) that mappings show.
    """

    tables: dict[Identity, GgufTable] = field(default_factory=dict)
    _seen: set[Any] = field(default_factory=set)
    _known: set[Identity] = field(default_factory=set)
    _waiting: deque[Candidate] = field(default_factory=deque)
    _job: Job | None = None
    _hurried: bool = False

    def look(self, pid: int, mappings: Iterable[Mapping], argv: Sequence[str] = ()) -> None:
        """Have all files looked into that this process maps, has open or names, once each."""
        mapped = list(mapped_files(pid, mappings))
        for file in (*mapped, *open_files(pid), *named_files(pid, argv)):
            key = (file.dev, file.inode) if file.inode else file.path
            # A path that is mapped, too, needs no second look.
            if key in self._seen or len(self._seen) >= MAX_SEEN:
                continue
            self._seen.update((key, file.path))
            self._waiting.append(file)

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return self._job is not None or bool(self._waiting)

    def poll(self) -> list[GgufTable]:
        """The tables that came in since the last call."""
        news: list[GgufTable] = []
        if self._job is not None and self._job.ended():
            news = self._collect(self._job)
            self._job = None
        if self._job is None and self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
            self._job = Job.start(batch, self._known)
            if self._hurried:
                self._job.hasten()
        return news

    def hasten(self) -> None:
        """Nothing is recorded any more: let the worker run at full speed."""
        self._hurried = True
        if self._job is not None:
            self._job.hasten()

    def finish(
        self, timeout_s: float = 5.0, hurry: Callable[[], bool] = lambda: False
    ) -> list[GgufTable]:
        """Wait for what is left, at most so long and until told to hurry, and end."""
        self.hasten()
        news = self.poll()
        deadline = time.monotonic() + timeout_s
        while self.busy and time.monotonic() < deadline and not hurry():
            time.sleep(0.02)
            news += self.poll()
        self.close()
        return news

    def close(self) -> None:
        """End without waiting."""
        self._waiting.clear()
        if self._job is not None:
            self._job.stop()
            self._job.output.close()
            self._job = None

    def _collect(self, job: Job) -> list[GgufTable]:
        """Take over a worker's answers; what it did not come to is given to the next one."""
        found, begun = job.answers()
        if job.reason and not begun:
            found = {
                number: self._failure(job) for number, file in enumerate(job.files) if file.named
            }
        elif job.reason:
            found.setdefault(begun - 1, self._failure(job) if job.files[begun - 1].named else None)
            self._waiting.extendleft(reversed(job.files[begun:]))
        return [self._keep(job.files[number], told) for number, told in found.items() if told]

    @staticmethod
    def _failure(job: Job) -> dict[str, Any]:
        return {"problem": f"the reader was ended ({job.reason}): too long, too large or damaged"}

    def _keep(self, file: Candidate, told: dict[str, Any]) -> GgufTable:
        table = _table(file, told)
        if table.inode:
            self.tables[table.dev, table.inode] = table
            self._known.update({(table.dev, table.inode), (told.get("st_dev", 0), table.inode)})
        return table
