"""Steps and remarks that the fixes of all deployments share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from numatrace.analyze.fixes.quoting import RefusedError, shell
from numatrace.analyze.plans.room import need_bytes, room_bytes
from numatrace.model.cpulist import format_cpulist
from numatrace.model.findings import Step
from numatrace.model.process import ARGV_BYTES, ARGV_COUNT
from numatrace.model.units import format_nodes, format_share

if TYPE_CHECKING:
    from numatrace.analyze.plans.plan import Plan
    from numatrace.analyze.situation import Situation
    from numatrace.model.process import Process

DELETED = " (deleted)"
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


def nodelist(plan: Plan) -> str:
    """Return the plan's nodes as numactl and systemd take them."""
    return ",".join(str(node) for node in plan.nodes)


def require(plan: Plan, kinds: frozenset[str], place: str) -> None:
    """Raise RefusedError for a kind of plan that a deployment cannot carry out exactly."""
    if plan.kind not in kinds:
        raise RefusedError(f"that cannot be done exactly for a server run by {place}")


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
    if argv[0].startswith("-") or "=" in argv[0]:
        # An option of whatever starts it, or a variable.
        raise RefusedError("its command line does not begin with the name of a program")
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
    if name.startswith("-"):
        name = f".{name[1:]}"  # not an option
    return f'"$(pgrep -n -x {shell(name)})"'


def still_there(process: Process) -> str:
    """Return a command that holds while the pid is the recorded process, with `&&` behind it.

    Process ids are used again. Empty for a name that grep cannot look for as one line.
    """
    if not process.comm or not process.comm.isprintable():
        return ""
    return f"grep -q -x -F -e {shell(process.comm)} /proc/{process.tgid}/comm && "


def stop(pid: str) -> str:
    """Return a command that ends a process and waits until it is gone."""
    return f"kill {pid} && tail --pid={pid} -f /dev/null"


def variables(found: dict[str, str]) -> str:
    """Return assignments to put in front of a command; "" for none."""
    return "".join(f"{name}={shell(value)} " for name, value in found.items())


def cpuset_cpus(situation: Situation) -> str:
    """Return the CPUs that the cpuset of the server's root process has in force, as a list."""
    online = {cpu for node in situation.topology.nodes for cpu in node.cpus}
    return format_cpulist(set(situation.root.cgroup.cpus) & online or online)


def cpuset_nodes(situation: Situation) -> str:
    """Return the memory nodes that it has in force, as a list."""
    nodes = set(situation.topology.nodes_with_memory)
    return format_cpulist(set(situation.root.cgroup.mems) & nodes or nodes)


def verify_steps(
    situation: Situation, pid: str, *, needs_root: bool, restarted: bool = True
) -> tuple[Step, ...]:
    """Return how to see that it worked, once the server has answered a request."""
    when = "; run it after the first answer" if restarted else ""
    steps = [
        Step(f"numastat -p {pid}", f"Memory of the server on each node, in MB{when}.", needs_root)
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
        Step("numatrace analyze after.arrow", "What it says now."),
        Step(
            "numatrace compare trace.arrow after.arrow",
            "What has changed since the recording of this report (trace.arrow, unless it was"
            " given another name).",
        ),
    ]
    return tuple(steps)


def remarks(situation: Situation, plan: Plan) -> list[str]:
    """Return what to know before running the fix."""
    found = []
    if plan.kind == "bind" and not plan.evict and situation.weights.mapped_bytes:
        found.append(
            f"Hardly any of the weights is off node {plan.nodes[0]}, so the model's page cache need"
            " not be dropped."
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
