"""Which version a server is, without running anything: it is asked over HTTP, or its path tells.

Ollama answers GET /api/version, llama.cpp's server GET /props. Only servers of the recorder's own
network are asked, in a thread of their own, and whatever answers has little time and space.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from numatrace.model.process import VERSION_LIMIT, ollama_serve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numatrace.model.process import Process
    from numatrace.record.machine.listens import Listen

CONNECT_S = 0.3
ANSWER_S = 0.3
ANSWER_BYTES = 1 << 20
"""Of an answer: /props holds the model's chat template, some 30 kB."""
ATTEMPTS = 3
"""A server that loads its model answers with an error, so it is asked again later."""
PORTS_ASKED = 4

_OLLAMA = re.compile(r"v?([0-9]{1,4}(?:\.[0-9]{1,4}){2}[0-9A-Za-z.+-]{0,40})")
_BUILD = re.compile(r"(b[0-9]{1,6})(?:-[0-9a-zA-Z]{1,40})?")
_OLLAMA_PATH = re.compile(r"/[^/]*ollama(?:-v?|/)([0-9]+\.[0-9]+\.[0-9]+)(?=[/-])")
_BUILD_PATH = re.compile(r"/(?:llama(?:\.cpp)?-)?(b[0-9]{4,6})(?=[/-])|/llama\.cpp/([0-9]{4,6})/")
NO_BUILDS = ("b0", "b1")
"""What a build says that did not know its number, such as one from a shallow clone."""


class Question(NamedTuple):
    """A path to GET, and the field of the JSON answer that holds the version."""

    path: str
    field: str
    parse: Callable[[str], str]


@dataclass(slots=True)
class _Asked:
    attempts: int = 0
    waits: bool = False


class Versions:
    """Asks servers for their versions in the background: `ask`, and take `answers` later."""

    def __init__(self) -> None:
        self._asked: dict[int, _Asked] = {}
        self._wanted: SimpleQueue[tuple[int, Question, tuple[tuple[str, int], ...]]] = SimpleQueue()
        self._found: SimpleQueue[tuple[int, str]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def ask(self, process: Process, listens: Sequence[Listen]) -> None:
        """Ask a server that listens in this network, unless it is asked already or gave nothing."""
        question = question_for(process)
        places = addresses(listens)
        asked = self._asked.setdefault(process.tgid, _Asked())
        if question is None or not places or asked.waits or asked.attempts >= ATTEMPTS:
            return
        asked.attempts, asked.waits = asked.attempts + 1, True
        self._wanted.put((process.tgid, question, places))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="versions", daemon=True)
            self._thread.start()

    def answers(self, wait_s: float = 0.0) -> dict[int, str]:
        """Return the versions that came since the last call, by process.

        Waits for those that are asked for, `wait_s` at most.
        """
        end = time.monotonic() + wait_s
        found: dict[int, str] = {}
        while True:
            left_s = (
                end - time.monotonic() if any(each.waits for each in self._asked.values()) else 0
            )
            try:
                tgid, version = self._found.get(timeout=max(0.0, left_s))
            except Empty:
                return found
            self._asked[tgid].waits = False
            if version:
                self._asked[tgid].attempts = ATTEMPTS
                found[tgid] = version

    def _work(self) -> None:
        while True:
            tgid, question, places = self._wanted.get()
            version = ""
            for place in places:
                version = version or question.parse(_field(get(*place, question.path), question))
            self._found.put((tgid, version))


def question_for(process: Process) -> Question | None:
    """Return what to ask a process; None if it is no server that would know."""
    if ollama_serve(process, [process]) is not None:
        return Question("/api/version", "version", ollama_version)
    names = {name.rpartition("/")[2] for name in (process.exe, *process.argv[:1], process.comm)}
    return Question("/props", "build_info", build_number) if "llama-server" in names else None


def ollama_version(text: str) -> str:
    """Return Ollama's version in its own spelling, "0.24.0"; "" if it is none."""
    match = _OLLAMA.fullmatch(text)
    return match[1][:VERSION_LIMIT] if match else ""


def build_number(text: str) -> str:
    """Return llama.cpp's build number from "b10488-ec98e2002"; "" if it is none."""
    match = _BUILD.fullmatch(text)
    return match[1] if match and match[1] not in NO_BUILDS else ""


def version_of_path(path: str) -> str:
    """Return the version that a program's path names, as releases and packages do; else ""."""
    if match := _OLLAMA_PATH.search(path):
        return match[1][:VERSION_LIMIT]
    match = _BUILD_PATH.search(path)
    return match[1] or f"b{match[2]}" if match else ""


def addresses(listens: Sequence[Listen]) -> tuple[tuple[str, int], ...]:
    """Return host and port to connect to, for sockets on a loopback address or on any."""
    found: dict[tuple[str, int], None] = {}
    for port, address in listens:
        if address.is_loopback:
            found[str(address), port] = None
        elif address.is_unspecified:  # one of version 6 takes connections of version 4 too
            found["127.0.0.1", port] = None
            if address.version == 6:
                found["::1", port] = None
    return tuple(found)[:PORTS_ASKED]


def get(host: str, port: int, path: str) -> bytes:
    """Return what an HTTP server answers within ANSWER_S, at most ANSWER_BYTES; b"" without."""
    # As 1.0: an answer that is not in chunks, and the end of the connection is its end.
    request = f"GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((host, port), CONNECT_S) as connection:
            return _exchange(connection, request.encode())
    except (OSError, ValueError):
        return b""


def _exchange(connection: socket.socket, request: bytes) -> bytes:
    end = time.monotonic() + ANSWER_S
    connection.sendall(request)
    answer = bytearray()
    while len(answer) <= ANSWER_BYTES:
        connection.settimeout(max(0.001, end - time.monotonic()))
        data = connection.recv(1 << 16)
        if not data:
            return bytes(answer)
        answer += data
        if time.monotonic() > end:
            break
    return b""


def _field(answer: bytes, question: Question) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    if not re.match(rb"HTTP/1\.[01] 200 ", head):
        return ""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    text = value.get(question.field) if isinstance(value, dict) else None
    return text if isinstance(text, str) else ""
