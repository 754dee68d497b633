"""The page `numatrace guide doctor`: what each line is for, by a machine that has nothing."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from numatrace.record.capabilities import CHECKS, REQUIRED
from numatrace.record.checks import system, tools
from numatrace.record.checks.capability import Capability, Host
from numatrace.record.checks.engines import ELSEWHERE, START
from numatrace.record.machine.distribution import ANYWHERE, COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "numatrace"
DISTRIBUTIONS = {
    "debian": "Debian",
    "ubuntu": "Ubuntu",
    "fedora": "Fedora, RHEL and its like",
    "suse": "openSUSE, SLES",
    "arch": "Arch",
    "alpine": "Alpine",
}
SETTINGS = {
    "proc/self/uid_map": "0 0 4294967295\n",
    "proc/sys/kernel/perf_event_paranoid": "2\n",
    "proc/sys/kernel/unprivileged_bpf_disabled": "2\n",
    "proc/sys/kernel/perf_event_max_sample_rate": "100\n",
    "proc/cpuinfo": "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nstepping\t: 8\n"
    "flags\t\t: cqm_mbm_total cqm_mbm_local\n",
    ".dockerenv": "",
}
"""Of the machine on which everything is missing that a folder can show."""

HEAD = """# What doctor looks at

<!-- Generated from numatrace/record/checks by scripts/gen-reference: do not edit. -->

`numatrace doctor` says for each line whether it is there, and where it is not, why, what is lost
without it, and the one command or step that provides it on this distribution. With root it also
fires at each probe with something whose outcome is known. Exit status 0: recording works here; 1:
it does not. `--json` has the same for programs: `recording_works`, `verdict`, `distribution`, and
`checks` with `id`, `title`, `state` (`yes`, `no`, `degraded`), `value`, `lost`, `why`, `todo`, and
`todo_is_command`, whether `todo` can be typed as it is.

Analysis needs none of this: copy the trace to any machine.

## Lines

Bold lines are those without which nothing is recorded. The rest say what a recording then lacks."""

CONTAINERS = """## In a container

Recording needs the capabilities CAP_BPF and CAP_PERFMON, the machine's own process numbers, and no
filter that keeps BPF and perf events back. `kernel.perf_event_paranoid` and
`kernel.unprivileged_bpf_disabled` do not limit a process with these capabilities, so there is no
need to loosen either; where the kernel is locked down to `confidentiality`, nothing helps but to
boot with `lockdown=integrity`.
"""


def needs_page() -> str:
    """Return the page, from what every check says where it finds nothing."""
    required = {check.__name__ for check in REQUIRED}
    lines = [
        *HEAD.split("\n"),
        "",
        "| line | lost without it | what provides it |",
        "|---|---|---|",
    ]
    for name, found in _missing():
        title = f"**{found.title}**" if name in required else found.title
        todo = f"`{found.todo}`" if found.todo_is_command else found.todo
        lines.append(f"| {title} | {_cell(found.lost)} | {_cell(todo)} |")
    lines += ["", "## Packages", "", *_packages(), "", *CONTAINERS.rstrip().split("\n"), ""]
    lines += ["| container | what to do |", "|---|---|"]
    lines += [f"| {kind} | {step} |" for kind, step in START.items()]
    lines += [f"| any other | {ELSEWHERE} |"]
    return "\n".join(lines) + "\n"


def _missing() -> Iterator[tuple[str, Capability]]:
    """Yield each check's name and what it says of a Debian machine that has nothing."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, text in (SETTINGS | {"etc/os-release": "ID=debian\n"}).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        for node in (0, 1):
            (root / f"sys/devices/system/node/node{node}").mkdir(parents=True)
        host = Host(root=root, argv=(f"/usr/bin/{PROGRAM}", "doctor"), euid=1000, search_path="")
        with (
            mock.patch.object(tools, "own_page_nodes", side_effect=OSError(errno.ENOSYS, "")),
            mock.patch.object(system.platform, "machine", return_value="riscv64"),
        ):
            for check in CHECKS:
                found = check(host)
                if found.state != "yes":
                    yield check.__name__, found


def _packages() -> Iterator[str]:
    """Yield a table of what is installed by which command."""
    yield f"| distribution | {' | '.join(ANYWHERE)} |"
    yield f"|---|{'---|' * len(ANYWHERE)}"
    for family, name in DISTRIBUTIONS.items():
        commands = (f"`{COMMANDS[family][tool]}`" for tool in ANYWHERE)
        yield f"| {name} | {' | '.join(commands)} |"
    yield f"| any other | {' | '.join(ANYWHERE.values())} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
