"""The fix for a systemd unit: a drop-in file, and a restart."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from numatrace.analyze.fixes import common, ollama
from numatrace.analyze.fixes.quoting import RefusedError, systemd_exec, systemd_variable
from numatrace.analyze.fixes.settings import by_variables, changes
from numatrace.model.cpulist import format_cpulist
from numatrace.model.findings import Fix, Step

if TYPE_CHECKING:
    from numatrace.analyze.fixes.settings import Changes
    from numatrace.analyze.plans.plan import Plan
    from numatrace.analyze.situation import Situation

DEPLOYMENT = "systemd"
KINDS = frozenset({"bind", "interleave", "distribute", "threads", "cpuset"})
UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.@-]{0,250}\.service")
"""Names of units that a command may hold as they are; systemd's rarer escapes are refused."""
DROP_IN = "numatrace.conf"
FOLDERS = {"system": "/etc/systemd/system", "user": '"$HOME"/.config/systemd/user'}


def render(situation: Situation, plan: Plan, passed: tuple[str, ...]) -> Fix:
    """Return the plan as a drop-in and commands. Raises RefusedError where none can be exact."""
    if plan.kind == "per-node":
        raise RefusedError("one instance per node needs a second unit, with a port of its own")
    common.require(plan, KINDS, "systemd")
    unit, system = unit_of(situation)
    if plan.kind == "cpuset" and not system:
        raise RefusedError("a user's systemd is not given the cpuset controller")
    common.check_evictable(plan)
    found = changes(situation, plan)
    control = control_of(situation)
    folder = f"{FOLDERS['system' if system else 'user']}/{unit}.d"
    client = ollama.client_here(situation)
    drop_in = "\n".join(drop_in_lines(situation, plan, found, system=system))
    return Fix(
        id=f"{plan.kind}/systemd",
        deployment=DEPLOYMENT,
        title=plan.title,
        steps=(
            *ollama.parameter_steps(situation, found.parameters, client),
            Step(f"mkdir -p {folder}", "A folder for settings added to the unit.", system),
            Step(
                f"tee {folder}/{DROP_IN} <<'END'\n{drop_in}\nEND",
                "Settings added to the unit; the unit's own file stays as it is.",
                system,
            ),
            Step(f"{control} daemon-reload", "Make systemd read it.", system),
            *_restart(plan, control, unit, system=system),
        ),
        verify=common.verify_steps(
            situation, common.pid_by_name(situation.server), needs_root=system
        ),
        undo=(
            *ollama.parameter_undo(situation, found.parameters, client),
            Step(f"rm {folder}/{DROP_IN}", "Remove the added settings.", system),
            Step(f"{control} daemon-reload", "Make systemd forget them.", system),
            Step(f"{control} restart {unit}", "Start it as it was.", system),
        ),
        notes=(*found.notes, *common.remarks(situation, plan)),
        lint=passed,
        plan=plan.id,
    )


def unit_of(situation: Situation) -> tuple[str, bool]:
    """Return the unit, and whether it is the system's; raises RefusedError for an odd name."""
    deployment = situation.root.deployment
    if not UNIT.fullmatch(deployment.unit) or deployment.manager not in FOLDERS:
        raise RefusedError("the name of its unit cannot be written into a command")
    return deployment.unit, deployment.manager == "system"


def control_of(situation: Situation) -> str:
    """Return the systemctl command for the manager of the unit."""
    system = situation.root.deployment.manager == "system"
    return "systemctl" if system else "systemctl --user"


def drop_in_lines(situation: Situation, plan: Plan, found: Changes, *, system: bool) -> list[str]:
    """Return the lines of the drop-in (systemd.exec(5), systemd.resource-control(5)).

    AllowedCPUs= and AllowedMemoryNodes= need the cpuset controller, which user managers are not
    given by default. An empty CPUAffinity= takes back what the unit's own file says.
    """
    cpus, nodes = format_cpulist(plan.cpus), format_cpulist(plan.nodes)
    lines = ["[Service]"]
    if plan.kind != "threads":
        if system:
            lines += [f"AllowedCPUs={cpus}", f"AllowedMemoryNodes={nodes}"]
        lines += ["CPUAffinity=", f"CPUAffinity={cpus}"]
        policy = plan.kind if plan.kind in ("bind", "interleave") else "default"
        lines += [f"NUMAPolicy={policy}", f"NUMAMask={nodes if policy != 'default' else ''}"]
    lines += [
        f"Environment={systemd_variable(name, value)}"
        for name, value in (found.environment | (by_variables(situation, found) or {})).items()
    ]
    return lines + _exec_lines(situation, found)


def _exec_lines(situation: Situation, found: Changes) -> list[str]:
    """An option wins over its variable: where it is there, the unit's command has to change."""
    root = situation.root
    if by_variables(situation, found) is not None:
        return []
    common.check_argv(root)
    if root.ppid != 1:
        raise RefusedError(
            "one of its settings is on a command line that a script of the unit makes up: change"
            " it there, then record again"
        )
    if not found.argv[0].startswith("/"):
        raise RefusedError("the path of its program is not on its command line")
    return ["ExecStart=", f"ExecStart={systemd_exec(found.argv)}"]


def _restart(plan: Plan, control: str, unit: str, *, system: bool) -> tuple[Step, ...]:
    if not plan.evict:
        return (Step(f"{control} restart {unit}", "Restart the server with them.", system),)
    return (
        Step(f"{control} stop {unit}", "Stop it: pages in use cannot be dropped.", system),
        *common.evict_steps(plan, needs_root=system),
        Step(f"{control} start {unit}", "Start the server with the new settings.", system),
    )
