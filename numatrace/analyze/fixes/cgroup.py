"""The fix for a cpuset of cgroup v2: its CPUs and its memory nodes, written for exactly that path.

Writing cpuset.mems moves the memory that the cgroup's processes have mapped, the page cache of
mapped files included (kernel 5.15, ee9707e8593d: cgroup/cpuset: Enable memory migration for
cpuset v2). So a server need not be started again for a new place, but for other threads.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from numatrace.analyze.fixes import by_hand, common, ollama
from numatrace.analyze.fixes.quoting import RefusedError, shell, shell_command
from numatrace.analyze.fixes.settings import changes
from numatrace.model.cpulist import format_cpulist
from numatrace.model.findings import Fix, Step

if TYPE_CHECKING:
    from numatrace.analyze.fixes.settings import Changes
    from numatrace.analyze.plans.plan import Plan
    from numatrace.analyze.situation import Situation

DEPLOYMENT = "cgroup"
KINDS = frozenset({"bind", "interleave", "distribute", "threads", "cpuset"})
MOUNT = "/sys/fs/cgroup"
PARENT_PARTS = re.compile(r"(^|/)\.\.?(/|$)")


def render(situation: Situation, plan: Plan, passed: tuple[str, ...]) -> Fix:
    """Return the plan as writes to the cgroup. Raises RefusedError where none can be exact."""
    common.require(plan, KINDS, "hand in a cgroup")
    common.check_evictable(plan)
    found = changes(situation, plan)
    restart = _needs_restart(situation, plan, found)
    client = ollama.client_here(situation)
    pid = common.pid_by_name(situation.server) if restart else str(situation.server.tgid)
    started = _start(situation, plan, found) if restart else ()
    return Fix(
        id=f"{plan.kind}/cgroup",
        deployment=DEPLOYMENT,
        title=plan.title,
        steps=(
            *ollama.parameter_steps(situation, found.parameters, client),
            *((by_hand.stop_step(situation, same_user=False),) if restart else ()),
            *(write_steps(situation, plan) if plan.kind == "cpuset" else ()),
            *(common.evict_steps(plan, needs_root=False) if restart else ()),
            *started,
        ),
        verify=common.verify_steps(situation, pid, needs_root=True, restarted=restart),
        undo=_undo(situation, plan, found, restart=restart),
        notes=(*found.notes, *_notes(situation, plan, restart=restart)),
        lint=passed,
        plan=plan.id,
    )


def folder(situation: Situation) -> str:
    """Return the folder of the server's own cgroup; raises RefusedError for the root or none."""
    path = situation.root.cgroup.paths.get("", "")
    if not path.startswith("/") or path.strip("/") == "" or PARENT_PARTS.search(path):
        raise RefusedError("it has no cgroup of its own, or none that can be seen from here")
    return MOUNT + path.rstrip("/")


def write_steps(situation: Situation, plan: Plan) -> tuple[Step, ...]:
    """Return the steps that set the cgroup's CPUs and memory nodes."""
    cpus, nodes = format_cpulist(plan.cpus), format_cpulist(plan.nodes)
    return _writes(folder(situation), cpus, nodes)


def undo_writes(situation: Situation) -> tuple[Step, ...]:
    """Return the steps that give the cgroup the CPUs and nodes that were in force."""
    return _writes(folder(situation), common.cpuset_cpus(situation), common.cpuset_nodes(situation))


def _writes(place: str, cpus: str, nodes: str) -> tuple[Step, ...]:
    return tuple(
        Step(f"echo {value} | tee {shell(f'{place}/{name}')}", why, needs_root=True)
        for name, value, why in (
            ("cpuset.cpus", cpus, f"Let the cgroup run on CPUs {cpus}."),
            ("cpuset.mems", nodes, f"Let it use memory of node {nodes}; what it has moves there."),
        )
    )


def _needs_restart(situation: Situation, plan: Plan, found: Changes) -> bool:
    changed = tuple(found.argv) != situation.root.argv or bool(found.environment)
    return changed or bool(found.parameters) or plan.kind != "cpuset"


def _start(situation: Situation, plan: Plan, found: Changes) -> tuple[Step, ...]:
    """Return the step that starts the server within the cgroup.

    A shell joins it and becomes the server, as the user that it had.
    """
    common.check_argv(situation.root)
    words = [*by_hand.policy_words(situation, plan), *found.argv]
    return (_start_step(situation, words, found.environment, plan),)


def _start_step(
    situation: Situation, words: list[str], variables: dict[str, str], plan: Plan | None
) -> Step:
    root = situation.root
    join = f'echo $$ > {shell(folder(situation) + "/cgroup.procs")} && exec "$@"'
    user = (
        f'setpriv --reuid={root.uid} --regid="$(id -g {root.uid})" --init-groups '
        if root.uid
        else ""
    )
    env = f"env {common.variables(variables)}" if variables else ""
    command = f"sh -c {shell(join)} sh {user}{env}{shell_command(words)}"
    why = by_hand.why_start(plan) if plan is not None else "Start it as it was."
    return Step(by_hand.in_folder(root, command), why, needs_root=True, stays=True)


def _undo(situation: Situation, plan: Plan, found: Changes, *, restart: bool) -> tuple[Step, ...]:
    writes = undo_writes(situation) if plan.kind == "cpuset" else ()
    if not restart:
        return writes
    client = ollama.client_here(situation)
    stop = f"pid={common.pid_by_name(situation.root)} && {common.stop('$pid')}"
    return (
        *ollama.parameter_undo(situation, found.parameters, client),
        Step(stop, "Stop the new server, the newest of that name.", needs_root=True),
        *writes,
        _start_step(situation, [*by_hand.launcher(situation), *situation.root.argv], {}, None),
    )


def _notes(situation: Situation, plan: Plan, *, restart: bool) -> list[str]:
    notes = []
    if plan.kind == "cpuset":
        others = "Every process of this cgroup is moved, and nobody outside of it."
        made = "Whoever made the cgroup may set it again: change it there, too, to keep it."
        notes += [others, made]
    if not restart:
        notes.append(
            "The memory moves while the server runs on (kernels before 5.15 leave it where it is);"
            " it takes about as long as reading it once."
        )
        return notes
    return [*notes, *by_hand.start_notes(situation.root), *common.remarks(situation, plan)]
