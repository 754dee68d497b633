"""The fix for a server that was started by hand: stop it, start it under numactl."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.commandline import (
    NUMA,
    NUMA_VARIABLE,
    REPINNING,
    THREADS_VARIABLE,
    option,
    with_threads,
    without_repinning,
)
from numatrace.analyze.fixes import common
from numatrace.analyze.fixes.quoting import RefusedError, shell, shell_command
from numatrace.analyze.plans.plan import root_process
from numatrace.analyze.situation import policy_nodes
from numatrace.model.cpulist import format_cpulist
from numatrace.model.report import Fix, Step

if TYPE_CHECKING:
    from numatrace.analyze.plans.plan import Plan
    from numatrace.analyze.situation import Situation
    from numatrace.model.process import Process

DEPLOYMENT = "by hand"

NUMACTL_OPTIONS = {"bind": "--membind", "interleave": "--interleave", "prefer": "--preferred"}
"""numactl's option for each memory policy, as numa_maps names it."""


def render(situation: Situation, plan: Plan, passed: tuple[str, ...]) -> Fix:
    """Return the plan as commands. Raises RefusedError where none can be exact."""
    root = root_process(situation)
    common.check_argv(root)
    common.check_evictable(plan)
    _check_cpuset(situation, plan, root)
    argv, notes = _argv(situation, plan, root)
    start = f"{_environment(situation, plan, argv)}numactl {_policy(plan)} {shell_command(argv)}"
    new_pid = common.pid_by_name(situation.server)
    old = "" if root.tgid == situation.server.tgid else " (ollama serve, which starts the server)"
    return Fix(
        id=f"{plan.kind}/by-hand",
        deployment=DEPLOYMENT,
        title=common.title(plan),
        steps=(
            Step(_stop(str(root.tgid)), f"Stop the old server{old} and wait until it is gone."),
            *common.evict_steps(plan, needs_root=False),
            Step(_in_folder(root, start), _why_start(plan)),
        ),
        verify=common.verify_steps(situation, new_pid, needs_root=False),
        undo=(
            Step(f"pid={common.pid_by_name(root)} && {_stop('$pid')}", "Stop the new server."),
            Step(
                _in_folder(root, f"{_launcher(situation, root)}{shell_command(root.argv)}"),
                "Start it as it was.",
            ),
        ),
        notes=(*notes, *common.remarks(situation, plan)),
        lint=passed,
    )


def _check_cpuset(situation: Situation, plan: Plan, root: Process) -> None:
    """A cpuset outlives a restart from the same place, and numactl cannot widen it."""
    cpus = set(root.cgroup.cpus)
    if cpus and not set(plan.cpus) <= cpus:
        allowed = format_cpulist(cpus)
        raise RefusedError(f"its cgroup's cpuset allows CPUs {allowed} only: widen that first")
    if situation.mems and not set(plan.nodes) <= set(situation.mems):
        allowed = format_cpulist(situation.mems)
        raise RefusedError(f"its cpuset allows memory of nodes {allowed} only: widen that first")


def _argv(situation: Situation, plan: Plan, root: Process) -> tuple[list[str], list[str]]:
    argv, notes = list(root.argv), []
    if plan.kind == "bind" and option(argv, NUMA) in REPINNING:
        argv = without_repinning(argv)
        notes.append("--numa became numactl: distribute and isolate undo numactl's CPU binding.")
    if plan.threads is not None and root.tgid == situation.server.tgid:
        argv, said = with_threads(argv, plan.threads)
        if not said:
            notes.append(
                f"If this program does not read {THREADS_VARIABLE}, set its compute threads to"
                f" {plan.threads} in its own way: more threads than CPUs are many times slower."
            )
    notes.append("numactl and numastat are in the package numactl.")
    notes.append(
        f"Run this as the user with id {root.uid}, with the environment variables that the server"
        " had; the trace does not hold them all."
    )
    return argv, notes


def _environment(situation: Situation, plan: Plan, argv: list[str]) -> str:
    """Return variables to set in front of the command; "" for none."""
    root, said = root_process(situation), False
    if plan.threads is not None and root.tgid == situation.server.tgid:
        said = with_threads(root.argv, plan.threads)[1]
    found = "" if plan.threads is None or said else f"{THREADS_VARIABLE}={plan.threads} "
    repins = root.environment.get(NUMA_VARIABLE) in REPINNING
    if plan.kind == "bind" and repins and option(argv, NUMA) is None:
        found += f"{NUMA_VARIABLE}=numactl "
    return found


def _policy(plan: Plan) -> str:
    nodes = common.nodelist(plan)
    if plan.kind == "interleave":
        return f"--interleave={nodes}"
    if plan.whole_nodes:
        return f"--cpunodebind={nodes} --membind={nodes}"
    return f"--physcpubind={format_cpulist(plan.cpus)} --membind={nodes}"


def _launcher(situation: Situation, root: Process) -> str:
    """Return the numactl call that gives a process the policy and the CPUs that it had.

    A policy is not part of the command line: numactl replaces itself with the server.
    """
    flag = NUMACTL_OPTIONS.get(root.policy.partition(":")[0].partition("=")[0])
    nodes = format_cpulist(policy_nodes(root.policy))
    words = [f"{flag}={nodes}"] if flag and nodes else []
    online = {cpu for node in situation.topology.nodes for cpu in node.cpus}
    allowed = set(root.cpus_allowed)
    if allowed and allowed < online and not root.cgroup.cpus:
        words.append(f"--physcpubind={format_cpulist(allowed)}")
    return f"numactl {' '.join(words)} " if words else ""


def _why_start(plan: Plan) -> str:
    threads = "" if plan.threads is None else f", {plan.threads} compute threads"
    if plan.kind == "interleave":
        return f"Start it again: memory in turns from nodes {common.nodelist(plan)}{threads}."
    return f"Start it again: CPUs and memory of node {plan.node} only{threads}."


def _stop(pid: str) -> str:
    """Return a command that ends a process and waits until it is gone."""
    return f"kill {pid} && tail --pid={pid} -f /dev/null"


def _in_folder(root: Process, command: str) -> str:
    if not root.cwd or root.cwd == "/":
        return command
    return f"cd {shell(root.cwd)} && {command}"
