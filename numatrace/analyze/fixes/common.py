"""Steps and remarks that the fixes of all deployments share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.fixes.quoting import RefusedError, shell
from numatrace.analyze.plans.plan import EVICT_SHARE
from numatrace.analyze.plans.room import need_bytes, room_bytes
from numatrace.model.process import ARGV_BYTES, ARGV_COUNT
from numatrace.model.report import Step
from numatrace.model.units import format_nodes, format_share

if TYPE_CHECKING:
    from numatrace.analyze.plans.plan import Plan
    from numatrace.analyze.situation import Situation
    from numatrace.model.process import Process

DELETED = " (deleted)"


def nodelist(plan: Plan) -> str:
    """Return the plan's nodes as numactl and systemd take them."""
    return ",".join(str(node) for node in plan.nodes)


def title(plan: Plan) -> str:
    """Say what the plan brings about."""
    if plan.kind == "bind":
        return f"run the server and keep its memory on node {plan.node}"
    return f"spread the server's memory evenly over {format_nodes(plan.nodes)}"


def evict_steps(plan: Plan, *, needs_root: bool) -> list[Step]:
    """Return the commands that drop the models' page cache; the server must have stopped.

    `dd` with `nocache` and a count of 0 asks the kernel to drop a file's cached pages and copies
    nothing (its manual's own example); reading, it cannot harm the file.
    """
    return [
        Step(
            f"dd if={shell(path)} iflag=nocache count=0",
            "Drop the model's pages from the page cache: they outlive the server, and would stay"
            " where they are.",
            needs_root,
        )
        for path in plan.evict
    ]


def check_evictable(plan: Plan) -> None:
    """Raise RefusedError where a model's file is no longer there under its name."""
    for path in plan.evict:
        if path.endswith(DELETED):
            raise RefusedError("the model's file was deleted or replaced since it was loaded")


def check_argv(process: Process) -> None:
    """Raise RefusedError unless the whole command line is known."""
    argv = process.argv
    if not argv or not argv[0]:
        raise RefusedError("its command line is not in the trace")
    size = sum(len(argument.encode("utf-8", "replace")) + 1 for argument in argv)
    if len(argv) >= ARGV_COUNT or size >= ARGV_BYTES:
        raise RefusedError("its command line is too long to be recorded whole")


def pid_by_name(process: Process) -> str:
    """Return a shell expression for the pid of the newest process of this name.

    Raises RefusedError where the name is not known.
    """
    if not process.comm:
        raise RefusedError("the server's name is not in the trace")
    # pgrep takes a regular expression: what might be an operator matches any character.
    name = "".join(char if char.isalnum() or char in "_-" else "." for char in process.comm)
    return f'"$(pgrep -n -x {shell(name)})"'


def verify_steps(situation: Situation, pid: str, *, needs_root: bool) -> tuple[Step, ...]:
    """Return how to see that it worked, once the server has answered a request."""
    steps = [
        Step(
            f"numastat -p {pid}",
            "Memory of the server on each node, in MB; run it after the first answer.",
            needs_root,
        )
    ]
    maps = f"/proc/{pid}/numa_maps"
    steps += [
        Step(
            f"grep -F -e {shell('file=' + path)} {maps}",
            "Pages of the model on each node (N0=, N1=, …).",
            needs_root,
        )
        for path in situation.weights.paths
        if path.isascii() and path.isprintable() and not set(path) & set(" \\")
    ]
    steps += [
        Step(
            f"numatrace record -p {pid} -d 10 -o after.arrow",
            "Record again while the server answers requests.",
            needs_root=True,
        ),
        Step("numatrace analyze after.arrow", "It should say: healthy."),
    ]
    return tuple(steps)


def remarks(situation: Situation, plan: Plan) -> list[str]:
    """Return what to know before running the fix."""
    found = []
    if plan.kind == "bind" and not plan.evict and situation.weights.mapped:
        elsewhere = format_share(EVICT_SHARE)
        found.append(
            f"Less than {elsewhere} of the weights is off node {plan.node}, so the model's page"
            " cache need not be dropped."
        )
    if plan.kind == "interleave":
        even = 1 - 1 / len(plan.nodes)
        found.append(
            f"Spread over {len(plan.nodes)} nodes, about {format_share(even)} of the reads stay"
            " remote, but no node's memory is the bottleneck."
        )
        part = need_bytes(situation) / len(plan.nodes)
        full = tuple(node for node in plan.nodes if room_bytes(situation, node) < part)
        if full:
            found.append(f"Too small for an even part: {format_nodes(full)}; the others take more.")
    others = [
        process.tgid
        for process in situation.processes
        if process.tgid != situation.server.tgid and set(plan.evict) & set(process.argv)
    ]
    if others:
        pids = ", ".join(map(str, others))
        found.append(f"Stop pid {pids} as well: while it maps the model, its pages stay.")
    return found
