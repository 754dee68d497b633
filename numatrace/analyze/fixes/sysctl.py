"""The fix for NUMA balancing: the kernel's setting, now and after the next boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numatrace.analyze.fixes import common
from numatrace.analyze.fixes.quoting import RefusedError
from numatrace.model.findings import Fix, Step

if TYPE_CHECKING:
    from numatrace.analyze.plans.plan import Plan
    from numatrace.analyze.situation import Situation

DEPLOYMENT = "this machine"
SETTING = "kernel.numa_balancing"
FILE = "/etc/sysctl.d/90-numatrace.conf"


def render(situation: Situation, plan: Plan, passed: tuple[str, ...]) -> Fix:
    """Return the plan as a setting of the kernel. Raises RefusedError for another kind of plan."""
    if plan.kind != "balancing" or plan.balancing is None:
        raise RefusedError("it is no setting of the kernel")
    before = situation.numa_balancing
    if before is None:
        raise RefusedError(f"this kernel has no {SETTING}")
    if before == plan.balancing:
        raise RefusedError(f"{SETTING} is {before} already")
    setting = f"{SETTING}={plan.balancing}"
    pid = str(situation.server.tgid)
    return Fix(
        id=f"balancing/{plan.balancing}",
        deployment=DEPLOYMENT,
        title=plan.title,
        steps=(
            Step(f"sysctl -w {setting}", "Set it now; nothing need be restarted.", True),
            Step(f"echo {setting} | tee {FILE}", "Set it after every boot, too.", True),
        ),
        verify=(
            Step(f"sysctl {SETTING}", f"It should say: {plan.balancing}."),
            *common.verify_steps(situation, pid, needs_root=True, restarted=False)[-3:],
        ),
        undo=(
            Step(f"rm {FILE}", "Forget it at the next boot.", True),
            Step(f"sysctl -w {SETTING}={before}", "Set it as it was.", True),
        ),
        notes=(
            "It counts for every process of the machine: others that have no memory policy may"
            " have gained from it.",
        ),
        lint=passed,
        plan=plan.id,
    )
