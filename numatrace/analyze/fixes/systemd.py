"""The fix for a systemd unit: a drop-in file, and a restart."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from numatrace.analyze.commandline import (
    NUMA_VARIABLE,
    REPINNING,
    THREADS_VARIABLE,
    with_threads,
)
from numatrace.analyze.fixes import common
from numatrace.analyze.fixes.quoting import RefusedError, systemd_exec
from numatrace.analyze.plans.plan import root_process
from numatrace.model.cpulist import format_cpulist
from numatrace.model.report import Fix, Step

if TYPE_CHECKING:
    from numatrace.analyze.plans.plan import Plan
    from numatrace.analyze.situation import Situation
    from numatrace.model.process import Process

DEPLOYMENT = "systemd"
UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.@-]{0,250}\.service")
"""Names of units that a command may hold as they are; systemd's rarer escapes are refused."""
DROP_IN = "numatrace.conf"
FOLDERS = {"system": "/etc/systemd/system", "user": '"$HOME"/.config/systemd/user'}


def render(situation: Situation, plan: Plan, passed: tuple[str, ...]) -> Fix:
    """Return the plan as a drop-in and commands. Raises RefusedError where none can be exact."""
    root = root_process(situation)
    unit, manager = root.deployment.unit, root.deployment.manager
    if not UNIT.fullmatch(unit) or manager not in FOLDERS:
        raise RefusedError("the name of its unit cannot be written into a command")
    common.check_evictable(plan)
    system = manager == "system"
    control = "systemctl" if system else "systemctl --user"
    folder = f"{FOLDERS[manager]}/{unit}.d"
    pid = common.pid_by_name(situation.server)
    drop_in = "\n".join(_drop_in(situation, plan, root, system=system))
    return Fix(
        id=f"{plan.kind}/systemd",
        deployment=DEPLOYMENT,
        title=common.title(plan),
        steps=(
            Step(f"mkdir -p {folder}", "A folder for settings added to the unit.", system),
            Step(
                f"tee {folder}/{DROP_IN} <<'END'\n{drop_in}\nEND",
                "CPUs, memory and threads of the unit; the unit's own file stays as it is.",
                system,
            ),
            Step(f"{control} daemon-reload", "Make systemd read it.", system),
            *_restart(plan, control, unit, system=system),
        ),
        verify=common.verify_steps(situation, pid, needs_root=system),
        undo=(
            Step(f"rm {folder}/{DROP_IN}", "Remove the added settings.", system),
            Step(f"{control} daemon-reload", "Make systemd forget them.", system),
            Step(f"{control} restart {unit}", "Start it as it was.", system),
        ),
        notes=tuple(common.remarks(situation, plan)),
        lint=passed,
    )


def _restart(plan: Plan, control: str, unit: str, *, system: bool) -> tuple[Step, ...]:
    if not plan.evict:
        return (Step(f"{control} restart {unit}", "Restart the server with them.", system),)
    return (
        Step(f"{control} stop {unit}", "Stop it: pages in use cannot be dropped.", system),
        *common.evict_steps(plan, needs_root=system),
        Step(f"{control} start {unit}", "Start the server with the new settings.", system),
    )


def _drop_in(situation: Situation, plan: Plan, root: Process, *, system: bool) -> list[str]:
    """Return the lines of the drop-in (systemd.exec(5), systemd.resource-control(5)).

    AllowedCPUs= and AllowedMemoryNodes= need the cpuset controller, which user managers are not
    given by default. An empty CPUAffinity= takes back what the unit's own file says.
    """
    cpus, nodes = format_cpulist(plan.cpus), format_cpulist(plan.nodes)
    lines = ["[Service]"]
    if system:
        lines += [f"AllowedCPUs={cpus}", f"AllowedMemoryNodes={nodes}"]
    lines += ["CPUAffinity=", f"CPUAffinity={cpus}"]
    lines += [f"NUMAPolicy={plan.kind}", f"NUMAMask={nodes}"]
    return lines + _thread_lines(situation, plan, root)


def _thread_lines(situation: Situation, plan: Plan, root: Process) -> list[str]:
    if plan.threads is None:
        return []
    lines = [f"Environment={THREADS_VARIABLE}={plan.threads}"]
    if plan.kind == "bind" and root.environment.get(NUMA_VARIABLE) in REPINNING:
        lines.append(f"Environment={NUMA_VARIABLE}=numactl")
    changed, _ = with_threads(root.argv, plan.threads)
    # An option wins over its variable, so where it is there the unit's command has to change.
    if root.tgid == situation.server.tgid and tuple(changed[: len(root.argv)]) != root.argv:
        lines += _exec_lines(root, changed)
    return lines


def _exec_lines(root: Process, argv: list[str]) -> list[str]:
    common.check_argv(root)
    if root.ppid != 1:
        raise RefusedError(
            "its thread count is on a command line that a script of the unit makes up: change it"
            " there, then record again"
        )
    if not argv[0].startswith("/"):
        raise RefusedError("the path of its program is not on its command line")
    return ["ExecStart=", f"ExecStart={systemd_exec(argv)}"]
