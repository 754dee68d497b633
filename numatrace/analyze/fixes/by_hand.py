"""The fix for a server that was started by hand: stop it, start it again as the plan says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.commandline import PORT, option, replaced
from numatrace.analyze.fixes import common, ollama
from numatrace.analyze.fixes.quoting import RefusedError, shell, shell_command
from numatrace.analyze.fixes.settings import changes, family
from numatrace.analyze.situation import policy_nodes
from numatrace.model.cpulist import format_cpulist
from numatrace.model.findings import Fix, Step

if TYPE_CHECKING:
    from numatrace.analyze.fixes.settings import Changes
    from numatrace.analyze.plans.plan import Plan
    from numatrace.analyze.situation import Situation
    from numatrace.model.process import Process

DEPLOYMENT = "by hand"
KINDS = frozenset({"bind", "interleave", "distribute", "threads", "per-node"})
NUMACTL_OPTIONS = {"bind": "--membind", "interleave": "--interleave", "prefer": "--preferred"}
"""numactl's option for each memory policy, as numa_maps names it."""
PORT_LIMIT = 65_535


def render(situation: Situation, plan: Plan, passed: tuple[str, ...]) -> Fix:
    """Return the plan as commands. Raises RefusedError where none can be exact."""
    common.require(plan, KINDS, "hand")
    root = situation.root
    common.check_argv(root)
    common.check_evictable(plan)
    check_cpuset(situation, plan)
    found = changes(situation, plan, own_copy=plan.kind == "per-node")
    client = ollama.client_here(situation)
    return Fix(
        id=f"{plan.kind}/by-hand",
        deployment=DEPLOYMENT,
        title=plan.title,
        steps=(
            *ollama.parameter_steps(situation, found.parameters, client),
            stop_step(situation),
            *common.evict_steps(plan, needs_root=False),
            *start_steps(situation, plan, found),
        ),
        verify=common.verify_steps(
            situation, common.pid_by_name(situation.server), needs_root=False
        ),
        undo=(*_undo_model(situation, found, client), *undo_steps(situation, plan)),
        notes=(*found.notes, *start_notes(root), *common.remarks(situation, plan)),
        lint=passed,
        plan=plan.id,
    )


def stop_step(situation: Situation, *, same_user: bool = True) -> Step:
    """Return the step that ends the recorded process, if its pid is still that one's.

    `same_user` has it refuse for another user than the server's, root too: what is started next
    would belong to the wrong one.
    """
    root = situation.root
    as_user = f'test "$(id -u)" -eq {root.uid} && ' if root.uid and same_user else ""
    old = "" if root.tgid == situation.server.tgid else " (ollama serve, which starts the server)"
    return Step(
        as_user + common.still_there(root) + common.stop(str(root.tgid)),
        f"Stop the old server{old} and wait until it is gone.",
    )


def start_steps(situation: Situation, plan: Plan, found: Changes) -> tuple[Step, ...]:
    """Return the step that starts the server under the plan, or one for every node."""
    if plan.kind == "per-node":
        return tuple(
            _instance(situation, found, place, node) for place, node in enumerate(plan.nodes)
        )
    words = [*policy_words(situation, plan), *found.argv]
    command = common.variables(found.environment) + shell_command(words)
    return (Step(in_folder(situation.root, command), why_start(plan), stays=True),)


def undo_steps(situation: Situation, plan: Plan) -> tuple[Step, ...]:
    """Return the steps that start the server as it was started."""
    root = situation.root
    stop = f"pid={common.pid_by_name(root)} && {common.stop('$pid')}"
    started = len(plan.nodes) if plan.kind == "per-node" else 1
    command = shell_command([*launcher(situation), *root.argv])
    return (
        *(Step(stop, "Stop the new server, the newest of that name."),) * started,
        Step(in_folder(root, command), "Start it as it was.", stays=True),
    )


def start_notes(root: Process) -> list[str]:
    """Return what has to be there for the commands."""
    return [
        "numactl and numastat are in the package numactl.",
        f"Run this as the user with id {root.uid}, with the environment variables that the server"
        " had; the trace does not hold them all.",
    ]


def policy_words(situation: Situation, plan: Plan) -> list[str]:
    """Return the numactl call to put before the server; empty where it is to have no policy."""
    nodes = common.nodelist(plan)
    if plan.kind == "interleave":
        return ["numactl", f"--interleave={nodes}"]
    if plan.kind == "threads":
        return launcher(situation)
    if plan.kind in ("distribute", "cpuset"):
        return []
    if plan.whole_nodes:
        return ["numactl", f"--cpunodebind={nodes}", f"--membind={nodes}"]
    return ["numactl", f"--physcpubind={format_cpulist(plan.cpus)}", f"--membind={nodes}"]


def why_start(plan: Plan) -> str:
    """Say what the server is started with."""
    threads = "" if plan.threads is None else f", {plan.threads} compute threads"
    if plan.kind == "interleave":
        return f"Start it again: memory in turns from nodes {common.nodelist(plan)}{threads}."
    if plan.kind == "distribute":
        return f"Start it again: llama.cpp ties its threads to all nodes{threads}."
    if plan.kind in ("threads", "cpuset"):
        return f"Start it again{threads}."
    return f"Start it again: CPUs and memory of node {common.nodelist(plan)} only{threads}."


def in_folder(root: Process, command: str) -> str:
    """Return the command, run in the folder in which the process was.

    Raises RefusedError for what is no path from the root: `cd -` goes elsewhere.
    """
    if not root.cwd or root.cwd == "/":
        return command
    if not root.cwd.startswith("/"):
        raise RefusedError("the folder that it ran in is not known")
    return f"cd {shell(root.cwd)} && {command}"


def check_cpuset(situation: Situation, plan: Plan) -> None:
    """A cpuset outlives a restart from the same place, and numactl cannot widen it."""
    cpus = set(situation.root.cgroup.cpus)
    if plan.kind == "threads":
        return
    if cpus and plan.cpus and not set(plan.cpus) <= cpus:
        allowed = format_cpulist(cpus)
        raise RefusedError(f"its cgroup's cpuset allows CPUs {allowed} only: widen that first")
    if situation.mems and not set(plan.nodes) <= set(situation.mems):
        allowed = format_cpulist(situation.mems)
        raise RefusedError(f"its cpuset allows memory of nodes {allowed} only: widen that first")


def _instance(situation: Situation, found: Changes, place: int, node: int) -> Step:
    """Return the step that starts the instance of one node: its own port, its own memory."""
    environment = dict(found.environment)
    argv = list(found.argv)
    if family(situation) == "llama.cpp":
        port = _port(option(argv, PORT) or situation.root.environment.get("LLAMA_ARG_PORT"), 8080)
        if option(argv, PORT) is not None:
            argv = replaced(argv, PORT, lambda _: str(port + place))
        elif place:
            argv += ["--port", str(port + place)]
    elif family(situation) in ("ollama", "ollama-runner"):
        host = situation.root.environment.get("OLLAMA_HOST", "127.0.0.1:11434")
        address, colon, text = host.rpartition(":")
        port = _port(text if colon else "11434", 11434)
        environment["OLLAMA_HOST"] = f"{address if colon else host}:{port + place}"
    else:
        raise RefusedError("how this program is told its port is not known")
    words = ["numactl", f"--cpunodebind={node}", f"--membind={node}", *argv]
    command = common.variables(environment) + shell_command(words)
    why = f"Start the instance of node {node}, with a copy of the weights of its own, on port"
    return Step(in_folder(situation.root, command), f"{why} {port + place}.", stays=True)


def _port(text: str | None, default: int) -> int:
    known = text is not None and text.isascii() and text.isdecimal() and len(text) < 6
    port = int(text or 0) if known else default
    if not 0 < port < PORT_LIMIT - 64:
        raise RefusedError("it takes whatever port is free: several need ports of their own")
    return port


def launcher(situation: Situation) -> list[str]:
    """Return the numactl call that gives a process the policy and the CPUs that it had.

    A policy is not part of the command line: numactl replaces itself with the server.
    """
    root = situation.root
    flag = NUMACTL_OPTIONS.get(root.policy.partition(":")[0].partition("=")[0])
    nodes = format_cpulist(policy_nodes(root.policy))
    words = [f"{flag}={nodes}"] if flag and nodes else []
    online = {cpu for node in situation.topology.nodes for cpu in node.cpus}
    allowed = set(root.cpus_allowed)
    if allowed and allowed < (set(root.cgroup.cpus) & online or online):
        words.append(f"--physcpubind={format_cpulist(allowed)}")
    return ["numactl", *words] if words else []


def _undo_model(situation: Situation, found: Changes, client: str) -> tuple[Step, ...]:
    return ollama.parameter_undo(situation, found.parameters, client)
