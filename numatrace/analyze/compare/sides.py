"""What is taken from each of the two reports: its server, its threads, how it was run."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from numatrace.model.comparison import Setting, SideView

if TYPE_CHECKING:
    from numatrace.model.report import Report
    from numatrace.model.views import ProcessView, ThreadView

WORK = ("prompt", "decode", "compute")
"""Phases in which the server computes answers."""


def side(report: Report) -> SideView:
    """Return a recording's verdict and what it rests on."""
    return SideView(
        kind=report.verdict.kind,
        sentence=report.verdict.sentence,
        causes=tuple(dict.fromkeys(finding.cause for finding in report.findings)),
        duration_ns=report.provenance.duration_ns,
        rung=report.access.rung if report.access is not None else "",
    )


def of_server(report: Report) -> int | None:
    """Return the server's process id, or None."""
    if report.server is not None:
        return report.server.tgid
    return next((each.tgid for each in report.processes if each.is_server), None)


def server_threads(report: Report) -> list[ThreadView]:
    """Return the server's threads and worker slots by falling CPU time."""
    tgid = of_server(report)
    mine = [thread for thread in report.threads if thread.tgid == tgid]
    return sorted(mine, key=lambda thread: (-oncpu_ns(thread), thread.tid))


def compute_threads(report: Report) -> list[ThreadView]:
    """Return those that did the work."""
    return [thread for thread in server_threads(report) if thread.role == "compute"]


def oncpu_ns(thread: ThreadView) -> int:
    """Return a thread's CPU time on all nodes."""
    return sum(thread.oncpu_ns.values())


def settings(before: Report, after: Report) -> tuple[Setting, ...]:
    """Return how the server was run in both recordings."""
    olds, news = _settings(before), _settings(after)
    return tuple(Setting(name, olds[name], news[name]) for name in olds)


def _settings(report: Report) -> dict[str, str]:
    tgid = of_server(report)
    process = next((each for each in report.processes if each.tgid == tgid), None)
    balancing = report.machine.numa_balancing
    return {
        **_of_process(process),
        "compute threads": str(len(compute_threads(report)) or ""),
        "kernel.numa_balancing": "" if balancing is None else str(balancing),
        "kernel": report.machine.kernel,
    }


def _of_process(process: ProcessView | None) -> dict[str, str]:
    return {
        "command": shlex.join(process.argv) if process is not None else "",
        "memory policy": (process.policy or "") if process is not None else "",
        "allowed CPUs": process.allowed_cpus if process is not None else "",
        "allowed memory nodes": process.allowed_nodes if process is not None else "",
        "systemd unit": (process.unit or "") if process is not None else "",
        "container": (process.container or "") if process is not None else "",
    }
