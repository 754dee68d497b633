"""The rows that describe: the machine, processes, threads, counters, notes, and the end."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from numatrace import __version__
from numatrace.model.process import Process, inference_server, ollama_serve
from numatrace.record.bpf.plan import OPTIONAL_TRACEPOINTS, Plan
from numatrace.record.machine import procfs
from numatrace.record.machine.environment import (
    machine_documents,
    memory_document,
    read_process,
    read_threads,
    thread_document,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numatrace.model.machine import Links
    from numatrace.record.summary import Summary
    from numatrace.trace.writer import TraceWriter

MEMORY_INTERVAL_S = 5.0
"""Between two looks at the free memory of every node."""

MAX_THREAD_ROWS = 20_000
"""Threads described in one recording: pools that clone workers per token make many."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What is found out about a process beside what /proc/PID tells at once."""

    version: str = ""
    listens: tuple[int, ...] = ()


class Documents:
    """Writes `system`, `process`, `thread`, `counter`, `note` and `end` rows."""

    def __init__(self, writer: TraceWriter) -> None:
        self.writer = writer
        self.processes: dict[int, Process] = {}
        self.notes: list[str] = []
        self._latest: dict[int, dict[str, int]] = {}
        self._threads: set[int] = set()
        self._learned: dict[int, Learned] = {}
        self._memory_due = 0.0

    def write_machine(self, plan: Plan) -> None:
        """The machine as it is at attach, and what this kernel cannot tell."""
        for name, value in machine_documents():
            self._system(name, value)
        self._system("recorder", {"version": __version__, "follow": plan.follow})
        self._memory_due = time.monotonic() + MEMORY_INTERVAL_S
        for tracepoint in plan.missing():
            if tracepoint in OPTIONAL_TRACEPOINTS:
                self.note(tracepoint, "this kernel has no such tracepoint")

    def write_links(self, links: Links) -> None:
        """What was measured of the way from each node's CPUs to each node's memory."""
        self._system("links", links.to_json())
        for why in dict.fromkeys(links.skipped.values()):
            pairs = [pair for pair, reason in links.skipped.items() if reason == why]
            self.note("links", f"{', '.join(pairs[:8])}: {why}")

    def write_starters(self, tgid: int) -> None:
        """The `ollama serve` above a process, if there is one, and what lies between.

        They are not followed, but a fix has to change their settings.
        """
        found = [read_process(pid) for pid in procfs.ancestors(tgid)]
        above = [process for process in found if process is not None]
        own = self.processes.get(tgid)
        serve = ollama_serve(own, [own, *above]) if own is not None else None
        if serve is None or serve.tgid == tgid:
            return
        for process in above[: above.index(serve) + 1]:
            if process.tgid not in self.processes:
                self._process(replace(process, relation="starter"))

    def write_client(self, process: Process) -> None:
        """A process that uses a server and is not followed. It is not among `processes`."""
        self._process_row(process)

    def learn(
        self, tgid: int, *, version: str | None = None, listens: tuple[int, ...] | None = None
    ) -> None:
        """Add what was found out about a process; writes it anew if that is new. None: as before.

        Ports that are closed again stay.
        """
        before = self._learned.get(tgid, Learned())
        now = Learned(version or before.version, listens or before.listens)
        process = self.processes.get(tgid)
        if now != before and process is not None:
            self._learned[tgid] = now
            self._process(self._with_learned(process))

    def _with_learned(self, process: Process) -> Process:
        learned = self._learned.get(process.tgid, Learned())
        return replace(process, version=learned.version, listens=learned.listens)

    def write_process(self, tgid: int) -> Process | None:
        """A process as it is now, with its threads; None if it is gone already."""
        process = read_process(tgid)
        if process is None:
            return None
        process = self._with_learned(process)
        if process != self.processes.get(tgid):
            self._process(process)
        for thread in read_threads(tgid):
            if thread.tid not in self._threads:
                self._thread(tgid, thread.tid, thread.comm, thread.to_json())
        return process

    def _process(self, process: Process) -> None:
        self.processes[process.tgid] = process
        self._process_row(process)

    def _process_row(self, process: Process) -> None:
        self.writer.add_rows(
            "process",
            [
                {
                    "t_ns": time.monotonic_ns(),
                    "tgid": process.tgid,
                    "ptgid": process.ppid,
                    "name": process.comm,
                    "value": json.dumps(process.to_json()),
                }
            ],
        )

    def write_interval(self, threads: Mapping[int, set[int]]) -> None:
        """What changes: new threads, fault counters, the memory of the nodes."""
        for tgid, tids in threads.items():
            self._latest[tgid] = procfs.fault_counters(tgid) or self._latest.get(tgid, {})
            for tid in tids - self._threads:
                self._new_thread(tgid, tid)
        if time.monotonic() >= self._memory_due:
            self._system(*memory_document())
            self._memory_due = time.monotonic() + MEMORY_INTERVAL_S

    def write_growth(self, baseline: Mapping[int, Mapping[str, int]], unseen_turns: int) -> None:
        """At the end: how far the kernel's own fault counters of each process have grown.

        `baseline`: what they were at attach; without an entry, 0. And `unseen_turns` of threads on
        CPUs, whose time is schedstat's.
        """
        now_ns = time.monotonic_ns()
        rows: list[dict[str, object]] = [
            {"t_ns": now_ns, "name": "unseen_turns", "count": unseen_turns}
        ]
        for tgid, latest in self._latest.items():
            before = baseline.get(tgid, {})
            for name, count in (procfs.fault_counters(tgid) or latest).items():
                grown = max(0, count - before.get(name, 0))
                rows.append({"t_ns": now_ns, "tgid": tgid, "name": name, "count": grown})
        self.writer.add_rows("counter", rows)
        self._system(*memory_document())

    def note(self, name: str, detail: str) -> None:
        """Something that was not recorded, and why."""
        self.notes.append(f"{name}: {detail}")
        self.writer.add_rows(
            "note", [{"t_ns": time.monotonic_ns(), "name": name, "detail": detail}]
        )

    def server(self, gguf_bytes: Mapping[int, int]) -> str:
        """Which process serves the model, and why it is taken for that."""
        tgid, reason = inference_server(list(self.processes.values()), gguf_bytes)
        return f"process {tgid}: {reason}" if tgid is not None else reason

    def write_end(self, summary: Summary) -> None:
        """The last row."""
        self.writer.add_rows(
            "end",
            [
                {
                    "t_ns": time.monotonic_ns(),
                    "detail": summary.reason,
                    "value": json.dumps(asdict(summary)),
                }
            ],
        )

    def _system(self, name: str, value: Mapping[str, object]) -> None:
        row = {"t_ns": time.monotonic_ns(), "name": name, "value": json.dumps(value)}
        self.writer.add_rows("system", [row])

    def _new_thread(self, tgid: int, tid: int) -> None:
        document = thread_document(tgid, tid)
        if document is not None:
            self._thread(tgid, tid, str(document["comm"]), document)

    def _thread(self, tgid: int, tid: int, comm: str, value: Mapping[str, object]) -> None:
        if len(self._threads) >= MAX_THREAD_ROWS:
            return
        self._threads.add(tid)
        self.writer.add_rows(
            "thread",
            [
                {
                    "t_ns": time.monotonic_ns(),
                    "tgid": tgid,
                    "tid": tid,
                    "name": comm,
                    "value": json.dumps(value),
                }
            ],
        )
