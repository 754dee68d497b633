"""What is around the followed processes: the ports they listen on, their version, their clients."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from numatrace.model.process import ollama_serve
from numatrace.record.machine import listens
from numatrace.record.machine.clients import LOOK_S, Clients
from numatrace.record.machine.environment import read_process
from numatrace.record.machine.procfs import PROC
from numatrace.record.machine.versions import Versions, version_of_path

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from numatrace.model.process import Process
    from numatrace.record.machine.documents import Documents
    from numatrace.record.machine.listens import Listen

FIRST_INTERVAL_S = 3.0
LAST_INTERVAL_S = 60.0
"""Between two looks: each time twice as long. One costs some 12 ms, most of it the kernel's."""
THOROUGH_S = 0.2
"""How long the first and the last look may go through other processes' open files."""
LAST_ANSWERS_S = 0.5
"""How long the end waits for a version that has been asked for."""
MAX_SERVERS = 64
"""Processes whose sockets are looked at: the longest followed."""


class Surroundings:
    """Looks around at attach, every few seconds and at the end, and has `process` rows written."""

    def __init__(self, documents: Documents, proc: Path = PROC) -> None:
        self.documents = documents
        self.proc = proc
        self.clients = Clients(proc)
        self.versions = Versions()
        self._due = 0.0
        self._interval_s = FIRST_INTERVAL_S
        self._network = listens.network_name("self", proc)

    def tick(self, followed: Collection[int]) -> None:
        """Look, if it is time."""
        self._take_versions()
        if time.monotonic() >= self._due:
            self.look(followed, LOOK_S if self._due else THOROUGH_S)
            self._due = time.monotonic() + self._interval_s
            self._interval_s = min(2 * self._interval_s, LAST_INTERVAL_S)

    def finish(self, followed: Collection[int]) -> None:
        """Look for the last time."""
        self.look(followed, THOROUGH_S)
        self._take_versions(LAST_ANSWERS_S)

    def look(self, followed: Collection[int], seconds: float) -> None:
        """Look at the sockets of followed processes and starters, and for clients of theirs.

        At other processes' open files for `seconds` at most.
        """
        processes = self.documents.processes
        servers = [pid for pid, each in processes.items() if each.relation == "starter"]
        servers += [pid for pid in processes if pid in followed][:MAX_SERVERS]
        spaces = listens.networks(servers, self.proc)
        sockets = listens.listening(servers, spaces, self.proc)
        for pid in servers:
            self._server(processes[pid], sockets.get(pid, ()))
        known = [*servers, *followed]
        ollama = any(ollama_serve(processes[pid], [processes[pid]]) for pid in servers)
        for pid in self.clients.look(sockets, spaces, known, seconds, ollama=ollama):
            client = read_process(pid, self.proc.parent)
            if client is not None:
                self.documents.write_client(replace(client, relation="client"))

    def _server(self, process: Process, sockets: tuple[Listen, ...]) -> None:
        self.documents.learn(process.tgid, listens=listens.port_numbers(sockets))
        if process.version:
            return
        path = process.exe.removesuffix(" (deleted)")
        if version := version_of_path(path) or self._version_above(process):
            self.documents.learn(process.tgid, version=version)
        elif sockets and listens.network_name(process.tgid, self.proc) == self._network != "":
            self.versions.ask(process, sockets)

    def _take_versions(self, wait_s: float = 0.0) -> None:
        for tgid, version in self.versions.answers(wait_s).items():
            self.documents.learn(tgid, version=version)
            for process in list(self.documents.processes.values()):
                if self._version_above(process) and not process.version:
                    self.documents.learn(process.tgid, version=version)

    def _version_above(self, process: Process) -> str:
        """Of Ollama's own runner, which is the same program as the `ollama serve` above it."""
        if process.argv[1:2] != ("runner",):
            return ""
        serve = ollama_serve(process, list(self.documents.processes.values()))
        return serve.version if serve is not None else ""
