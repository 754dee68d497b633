"""Fixes in place: a running process, a cgroup's cpuset, the kernel's setting, a systemd drop-in."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numatrace.analyze.fixes import cgroup, live, sysctl, systemd, with_fixes
from numatrace.analyze.fixes.quoting import RefusedError
from numatrace.analyze.plans.choose import choose
from numatrace.analyze.plans.plan import Plan
from numatrace.model.process import Cgroup, Deployment, Process
from tests.unit.fix_world import as_process, commands, every_command, situation_of
from tests.unit.test_analyze_world import MIB, MODEL, SERVER, World

if TYPE_CHECKING:
    from pathlib import Path

    from numatrace.analyze.situation import Situation

TWO_THREADS = [{0: 8 * 10**9}, {1: 8 * 10**9}]
LIVE = Plan("live", (1,), (2, 3), True, None)
CPUSET = Plan("cpuset", (1,), (2, 3), True, None)
BIND = Plan("bind", (1,), (2, 3), True, 2)
SYSTEM_UNIT = Deployment("llama.service", "system")
CONTAINER = Deployment(container_kind="docker", container_name="llm")
GROUP = Cgroup(paths={"": "/my group/a'b"}, cpus=(0, 1), mems=(1,))
STILL = f"grep -q -x -F -e llama-server /proc/{SERVER}/comm && "


def running(**more: object) -> Situation:
    return situation_of(World(times=TWO_THREADS, private={0: MIB}, **more))  # type: ignore[arg-type]


# --- a process that runs on


def test_a_process_started_by_hand_is_moved_and_kept_there() -> None:
    found = live.render(running(), LIVE, ())
    assert commands(found) == [
        f"{STILL}taskset -a -c -p 2-3 {SERVER}",
        f"{STILL}migratepages {SERVER} 0 1",
    ]
    assert [step.command for step in found.undo] == [f"{STILL}taskset -a -c -p 0-3 {SERVER}"]
    assert all(step.needs_root for step in (*found.steps, *found.undo))
    notes = " ".join(found.notes)
    assert "loaded anew" in notes
    assert "thread count" in notes
    assert "evenly" in notes


@pytest.mark.parametrize(
    ("deployment", "first", "undo"),
    [
        (
            SYSTEM_UNIT,
            "systemctl set-property --runtime llama.service AllowedCPUs=2-3 AllowedMemoryNodes=1",
            "systemctl set-property --runtime llama.service AllowedCPUs= AllowedMemoryNodes=",
        ),
        (Deployment("llama.service", "user"), f"{STILL}taskset -a -c -p 2-3 {SERVER}",
         f"{STILL}taskset -a -c -p 0-3 {SERVER}"),
        (CONTAINER, "docker update --cpuset-cpus=2-3 --cpuset-mems=1 llm",
         "docker update --cpuset-cpus=0-3 --cpuset-mems=0-1 llm"),
        (replace(CONTAINER, container_kind="podman"),
         "podman update --cpuset-cpus=2-3 --cpuset-mems=1 llm",
         "podman update --cpuset-cpus=0-3 --cpuset-mems=0-1 llm"),
    ],
)  # fmt: skip
def test_it_is_confined_by_what_runs_it(deployment: Deployment, first: str, undo: str) -> None:
    found = live.render(running(deployment=deployment), LIVE, ())
    assert commands(found) == [first, f"{STILL}migratepages {SERVER} 0 1"]
    assert [step.command for step in found.undo] == [undo]


def test_more_threads_than_cpus_are_a_refusal() -> None:
    with pytest.raises(RefusedError, match="4 threads would share 2 CPUs"):
        live.render(situation_of(World()), LIVE, ())


def test_threads_that_ggml_pins_anew_are_a_refusal() -> None:
    argv = ("llama-server", "-m", MODEL, "--numa", "distribute")
    with pytest.raises(RefusedError, match="--numa distribute"):
        live.render(running(argv=argv), LIVE, ())
    with pytest.raises(RefusedError, match="--numa isolate"):
        live.render(running(environment={"LLAMA_ARG_NUMA": "isolate"}), LIVE, ())


def test_nothing_is_moved_that_is_there_already() -> None:
    now = situation_of(World(times=TWO_THREADS, weights={1: 64 * MIB}))
    assert not any("migratepages" in command for command in commands(live.render(now, LIVE, ())))


def test_interleaving_a_running_process_is_refused() -> None:
    with pytest.raises(RefusedError):
        live.render(running(), Plan("interleave", (0, 1), (0, 1, 2, 3), True, None), ())


def test_the_fix_without_a_restart_is_the_second() -> None:
    report = World(times=[{1: 8 * 10**9}] * 2, cpus_allowed=(2, 3)).report()
    fixes = report.findings[0].fixes
    assert [fix.id for fix in fixes] == ["bind/by-hand", "live/hand"]
    assert {fix.plan for fix in fixes} <= {plan.id for plan in report.plans}
    assert fixes[0].plan == next(plan.id for plan in report.plans if plan.chosen)


def test_a_container_of_another_kind_gets_the_fix_without_a_restart_only() -> None:
    where = Deployment(container_kind="lxc", container_id="c1")
    group = Cgroup(paths={"": "/lxc.payload.c1"})
    world = World(times=[{1: 8 * 10**9}] * 2, cpus_allowed=(2, 3), deployment=where, cgroup=group)
    found = world.report().findings[0]
    assert [fix.id for fix in found.fixes] == ["live/lxc"]
    assert "/sys/fs/cgroup/lxc.payload.c1/cpuset.cpus" in commands(found.fixes[0])[0]
    assert any("lxc" in note for note in found.notes)


# --- a cgroup


def test_a_cpuset_is_written_for_exactly_that_cgroup() -> None:
    found = cgroup.render(running(cgroup=GROUP), CPUSET, ())
    place = "'/sys/fs/cgroup/my group/a'\"'\"'b/cpuset."
    assert commands(found) == [f"echo 2-3 | tee {place}cpus'", f"echo 1 | tee {place}mems'"]
    assert [step.command for step in found.undo] == [
        f"echo 0-1 | tee {place}cpus'",
        f"echo 1 | tee {place}mems'",
    ]


def test_another_thread_count_is_a_start_within_the_cgroup() -> None:
    group = replace(GROUP, paths={"": "/g"})
    now = as_process(situation_of(World(cgroup=group)), uid=1000)
    found = cgroup.render(now, replace(CPUSET, threads=2), ())
    assert [command.split()[0] for command in commands(found)] == ["grep", "echo", "echo", "cd"]
    last = found.steps[-1]
    assert last.stays
    assert last.needs_root
    assert last.command == (
        "cd /srv && sh -c 'echo $$ > /sys/fs/cgroup/g/cgroup.procs && exec \"$@\"' sh"
        ' setpriv --reuid=1000 --regid="$(id -g 1000)" --init-groups'
        f" llama-server -m {MODEL} -t 2"
    )
    bound = cgroup.render(now, BIND, ())  # within what the cpuset allows, by the lint
    assert " numactl --cpunodebind=1 --membind=1 llama-server " in commands(bound)[-1]
    assert not any("cpuset" in command for command in every_command(bound))
    only = cgroup.render(now, Plan("threads", (), (0, 1), True, 2), ())
    assert not any("cpuset" in command for command in every_command(only))


@pytest.mark.parametrize("path", ["", "/", "relative", "/a/../../etc", "/.."])
def test_a_path_that_is_no_cgroup_of_its_own_is_refused(path: str) -> None:
    now = running(cgroup=Cgroup(paths={"": path}, cpus=(0, 1)))
    with pytest.raises(RefusedError):
        cgroup.render(now, CPUSET, ())


# --- the kernel's setting


def test_balancing_is_set_now_and_for_good() -> None:
    now = situation_of(World(numa_balancing="1"))
    found = sysctl.render(now, Plan("balancing", (), (), False, None, balancing=0), ())
    assert commands(found) == [
        "sysctl -w kernel.numa_balancing=0",
        "echo kernel.numa_balancing=0 | tee /etc/sysctl.d/90-numatrace.conf",
    ]
    assert [step.command for step in found.undo] == [
        "rm /etc/sysctl.d/90-numatrace.conf",
        "sysctl -w kernel.numa_balancing=1",
    ]


@pytest.mark.parametrize("now", ["0", "x"])
def test_balancing_that_is_so_already_or_not_there_is_refused(now: str) -> None:
    with pytest.raises(RefusedError):
        sysctl.render(
            situation_of(World(numa_balancing=now)),
            Plan("balancing", (), (), False, None, balancing=0),
            (),
        )


# --- systemd's own opinion

UNIT = (
    "[Unit]\nDescription=x\n[Service]\nExecStart=/bin/sleep 9\n[Install]\nWantedBy=default.target\n"
)


def drop_in(now: Situation, plan: Plan) -> str:
    lines = commands(systemd.render(now, plan, ()))[1].split("\n")
    return "\n".join(lines[1:-1]) + "\n"


def plans() -> list[Plan]:
    return [
        BIND, CPUSET,
        Plan("interleave", (0, 1), (0, 1, 2, 3), True, 4),
        Plan("distribute", (0, 1), (0, 1, 2, 3), True, 4, repack=False),
        Plan("threads", (), (0, 1), True, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("plan", plans(), ids=lambda plan: plan.kind)
@pytest.mark.parametrize("options", [(), ("-t", "64", "--alias", 'a b "c" $HOME 100% ; \\ é')])
def test_the_drop_in_is_an_ini_file_with_known_keys(plan: Plan, options: tuple[str, ...]) -> None:
    now = situation_of(World(deployment=SYSTEM_UNIT, argv=("/bin/llama-server", *options)))
    parser = configparser.RawConfigParser(strict=False, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(drop_in(now, plan))
    assert parser.sections() == ["Service"]
    assert set(parser["Service"]) <= {
        "AllowedCPUs", "AllowedMemoryNodes", "CPUAffinity", "NUMAPolicy", "NUMAMask",
        "Environment", "ExecStart",
    }  # fmt: skip


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)
@pytest.mark.parametrize("plan", plans(), ids=lambda plan: plan.kind)
def test_systemd_has_nothing_to_say_of_the_drop_in(plan: Plan, tmp_path: Path) -> None:
    argv = ("/bin/sleep", "-t", "64", "--threads=1", 'a b "c" $HOME 100% ; \\ é')
    now = situation_of(World(deployment=SYSTEM_UNIT, argv=argv))
    (tmp_path / "llama.service").write_text(UNIT)
    folder = tmp_path / "llama.service.d"
    folder.mkdir()
    (folder / "numatrace.conf").write_text(drop_in(now, plan))
    assert "llama.service" not in verified(tmp_path)
    assert "numatrace.conf" not in verified(tmp_path)
    (folder / "numatrace.conf").write_text("[Service]\nNUMAPolicy=nonsense\n")
    assert "numatrace.conf" in verified(tmp_path)  # it does look at the drop-in


def verified(folder: Path) -> str:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", folder / "llama.service"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.stdout + done.stderr


# --- whatever there is, nothing escapes but a refusal

NAMES = st.text(max_size=30) | st.sampled_from(
    ["$(reboot)", "a\nb", "';x", "\u202e", "a b", "\x1b[2J"]
)
HOW = st.sampled_from(["docker", "podman", "lxc", "kubepods", "containerd", ""])


@given(
    st.builds(
        Deployment, NAMES, st.sampled_from(["", "system", "user"]), HOW, NAMES, NAMES, NAMES, NAMES,
        NAMES, NAMES,
    ),
    NAMES, NAMES, NAMES, st.sampled_from(["", "b10488", "0.24.0", "\n"]),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_hostile_names_are_quoted_or_refused(
    deployment: Deployment, path: str, cwd: str, comm: str, version: str
) -> None:
    now = NOW
    process = replace(
        now.server, deployment=deployment, cwd=cwd, comm=comm, version=version,
        cgroup=Cgroup(paths={"": "/" + path}), argv=("/bin/llama-server", path),
    )  # fmt: skip
    now = replace(now, server=process, root=process)
    said: list[str] = []
    for how in ("hand", "systemd", "docker", "podman", "kubernetes", "lxc", "cgroup"):
        found = with_fixes(replace(now, deployment=how), FINDING)  # type: ignore[arg-type]
        said += [command for fix in found.fixes for command in every_command(fix)]
    for command in said:
        assert all(line.isprintable() for line in command.split("\n")), command
        assert "\n" not in command or "<<" in command
    text = "\n".join(said)
    parsed = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (parsed.returncode, parsed.stderr) == (0, ""), text


NOW = running()
FINDING = World().report().findings[0]


def test_the_property_above_sees_fixes() -> None:
    assert choose(NOW, FINDING)[0].answers
    assert with_fixes(NOW, FINDING).fixes
    assert isinstance(NOW.server, Process)
