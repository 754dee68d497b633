"""The fix for a process that runs already, without starting it again; and what that cannot do.

Another process's memory policy cannot be changed, nor can its thread count: memory can only be
moved as it lies, by migrate_pages(2) or by a cpuset, and threads be kept on CPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from numatrace.analyze.commandline import NUMA, NUMA_VARIABLE, REPINNING, option
from numatrace.analyze.fixes import cgroup, common, engine, systemd
from numatrace.analyze.fixes.quoting import RefusedError
from numatrace.model.cpulist import format_cpulist
from numatrace.model.findings import Fix, Step
from numatrace.model.units import format_count

if TYPE_CHECKING:
    from numatrace.analyze.plans.plan import Plan
    from numatrace.analyze.situation import Situation
    from numatrace.model.process import Process

NAMES = {"hand": "by hand"}
"""Of the deployments, where a report calls one otherwise than the trace does."""
KINDS = frozenset({"bind", "cpuset", "live"})
Place = Callable[["Situation", "Plan"], tuple[Step, ...]]


def render(situation: Situation, plan: Plan, passed: tuple[str, ...]) -> Fix:
    """Return the plan for the running process. Raises RefusedError where it cannot be exact."""
    common.require(plan, KINDS, "a server that is to go on running")
    _check(situation, plan)
    confine, release = PLACES.get(situation.deployment, BY_CGROUP)
    pid = str(situation.server.tgid)
    return Fix(
        id=f"live/{situation.deployment}",
        deployment=NAMES.get(situation.deployment, situation.deployment),
        title=plan.title if plan.kind == "live" else f"{plan.title}, while it runs on",
        steps=(*confine(situation, plan), *_move(situation, plan)),
        verify=common.verify_steps(situation, pid, needs_root=True, restarted=False),
        undo=release(situation, plan),
        notes=tuple(_notes(situation)),
        lint=passed,
        plan=plan.id,
    )


def _check(situation: Situation, plan: Plan) -> None:
    server = situation.server
    asked = option(server.argv, NUMA) or server.environment.get(NUMA_VARIABLE)
    if asked in REPINNING:
        raise RefusedError(f"--numa {asked} pins the threads anew for every step of its work")
    if situation.threads_used > len(plan.cpus):
        threads = format_count(situation.threads_used, "thread")
        cpus = format_count(len(plan.cpus), "CPU")
        raise RefusedError(
            f"its {threads} would share {cpus}, and only a start with another count changes that"
        )
    if not plan.nodes or not plan.cpus:
        raise RefusedError("the plan names no nodes or no CPUs")


def _move(situation: Situation, plan: Plan) -> tuple[Step, ...]:
    """Return the step that moves what lies elsewhere: mapped files and private memory alike."""
    server = situation.server
    held = {*situation.weights.node_bytes, *situation.private_bytes} - set(plan.nodes)
    if not held:
        return ()
    where, to = format_cpulist(held), format_cpulist(plan.nodes)
    return (
        Step(
            f"{common.still_there(server)}migratepages {server.tgid} {where} {to}",
            f"Move its memory from node {where} to {to}, the model's page cache included; it"
            " takes about as long as reading it once. (Package numactl.)",
            needs_root=True,
        ),
    )


def _by_taskset(situation: Situation, plan: Plan) -> tuple[Step, ...]:
    cpus = format_cpulist(plan.cpus)
    why = f"Keep all of its threads on CPUs {cpus}; new ones inherit that."
    return _taskset(situation.server, cpus, why)


def _undo_taskset(situation: Situation, _plan: Plan) -> tuple[Step, ...]:
    online = {cpu for node in situation.topology.nodes for cpu in node.cpus}
    cpus = format_cpulist(set(situation.server.cpus_allowed) & online or online)
    return _taskset(situation.server, cpus, "Let its threads run where they might before.")


def _taskset(server: Process, cpus: str, why: str) -> tuple[Step, ...]:
    command = f"{common.still_there(server)}taskset -a -c -p {cpus} {server.tgid}"
    return (Step(command, why, needs_root=True),)


def _by_systemd(situation: Situation, plan: Plan) -> tuple[Step, ...]:
    unit, system = systemd.unit_of(situation)
    if not system:
        return _by_taskset(situation, plan)
    cpus, nodes = format_cpulist(plan.cpus), format_cpulist(plan.nodes)
    return (
        Step(
            f"systemctl set-property --runtime {unit} AllowedCPUs={cpus}"
            f" AllowedMemoryNodes={nodes}",
            f"Confine the unit to CPUs {cpus} and node {nodes} until it is restarted; its memory"
            " moves there.",
            needs_root=True,
        ),
    )


def _undo_systemd(situation: Situation, plan: Plan) -> tuple[Step, ...]:
    unit, system = systemd.unit_of(situation)
    if not system:
        return _undo_taskset(situation, plan)
    command = f"systemctl set-property --runtime {unit} AllowedCPUs= AllowedMemoryNodes="
    return (Step(command, "Let the unit go where it might before.", needs_root=True),)


def _by_engine(name: engine.Engine) -> tuple[Place, Place]:
    def confine(situation: Situation, plan: Plan) -> tuple[Step, ...]:
        options = engine.cpuset_options(plan)
        command = f"{name} update {options} {engine.name_of(situation)}"
        return (Step(command, "Change the container's CPUs and nodes; its memory moves there."),)

    return confine, lambda situation, _plan: engine.undo_update(situation, name)


BY_CGROUP: tuple[Place, Place] = (
    cgroup.write_steps,
    lambda situation, _plan: cgroup.undo_writes(situation),
)
PLACES: dict[str, tuple[Place, Place]] = {
    "hand": (_by_taskset, _undo_taskset),
    "systemd": (_by_systemd, _undo_systemd),
    "docker": _by_engine("docker"),
    "podman": _by_engine("podman"),
}
"""How the CPUs and nodes of a running server are changed and given back, by how it is run; by its
cgroup for all others."""


def _notes(situation: Situation) -> list[str]:
    notes = [
        "A model that is loaded anew lies where its loader puts it: this lasts until then. It"
        " cannot change the thread count, and it cannot spread memory evenly.",
        "Where each page was cannot be restored: the undo frees the server again, and loading the"
        " model anew places it anew.",
    ]
    if situation.weights.mapped_bytes:
        notes.append("Pages that other processes map as well move with it.")
    return notes
