"""Fixes: the right nodes, CPUs and threads, quoted so that a shell gives back exactly the words."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numatrace.analyze.commandline import with_threads, without_repinning
from numatrace.analyze.fixes import by_hand
from numatrace.analyze.fixes.quoting import RefusedError, shell, systemd_exec
from numatrace.analyze.plans.plan import Plan
from numatrace.model.process import Cgroup, Deployment, Process
from tests.unit.fix_world import situation_of
from tests.unit.test_analyze_world import GIB, MIB, MODEL, SECOND, SERVER, World

if TYPE_CHECKING:
    from numatrace.model.findings import Finding, Fix

ON_1 = [{1: 8 * SECOND}] * 2
SYSTEM_UNIT = Deployment("llama.service", "system")
OLLAMA = Process(
    900, 1, "ollama", ("/usr/bin/ollama", "serve"), cpus_allowed=(0, 1, 2, 3), cwd="/",
    deployment=Deployment("ollama.service", "system"),
)  # fmt: skip
RUNNER_ARGV = ("/usr/lib/ollama/llama-server", "--model", MODEL, "--port", "4")


def finding(world: World) -> Finding:
    return world.report().findings[0]


def fix(world: World) -> Fix:
    found = finding(world)
    assert found.fixes, found.notes
    assert all(each.plan.startswith("live:") for each in found.fixes[1:])
    return found.fixes[0]


def commands(found: Fix) -> list[str]:
    return [step.command for step in found.steps]


def start_words(found: Fix) -> list[str]:
    """The words of the command that starts the server, without `cd … &&`."""
    words = shlex.split(commands(found)[-1])
    return words[words.index("&&") + 1 :] if "&&" in words else words


# --- where to


def test_s1_binds_to_the_node_that_holds_the_weights_and_evicts_nothing() -> None:
    found = fix(World(weights={1: 64 * MIB}, cores=((0,), (1,), (2,), (3,))))
    assert found.id == "bind/by-hand"
    assert commands(found)[0] == (
        f"grep -q -x -F -e llama-server /proc/{SERVER}/comm && "
        f"kill {SERVER} && tail --pid={SERVER} -f /dev/null"
    )
    assert start_words(found) == [
        "numactl", "--cpunodebind=1", "--membind=1", "llama-server", "-m", MODEL, "-t", "2"
    ]  # fmt: skip
    assert commands(found)[-1].startswith("cd /srv && ")
    assert not any("dd " in command for command in commands(found))


def test_the_page_cache_is_dropped_first_where_a_part_of_the_weights_lies_elsewhere() -> None:
    found = fix(World(weights={0: 60 * MIB, 1: 4 * MIB}))
    assert commands(found)[1] == f"dd if={MODEL} iflag=nocache count=0"
    assert len(found.steps) == 3


def test_private_weights_need_no_page_cache_step() -> None:
    found = fix(World(weights={}, private={0: 60 * MIB, 1: 4 * MIB}))
    assert not any("dd " in command for command in commands(found))
    assert start_words(found)[0] == "numactl"


def test_s2_takes_the_threads_to_the_weights() -> None:
    found = fix(World(weights={0: 64 * MIB}, times=ON_1, cpus_allowed=(2, 3)))
    assert start_words(found)[1:3] == ["--cpunodebind=0", "--membind=0"]


def test_a_holder_without_room_is_left_for_a_node_that_has_it() -> None:
    world = World(weights={0: GIB}, private={1: GIB}, total={0: GIB}, free={0: 0})
    found = fix(world)
    assert start_words(found)[1:3] == ["--cpunodebind=1", "--membind=1"]
    assert any("dd if=" in command for command in commands(found))


def test_what_fits_on_no_node_is_spread_over_all() -> None:
    world = World(
        weights={0: 3 * GIB}, total=dict.fromkeys((0, 1), 4 * GIB), free={0: 0, 1: 2 * GIB}
    )
    found = fix(world)
    assert found.id == "interleave/by-hand"
    assert start_words(found)[:2] == ["numactl", "--interleave=0,1"]
    assert start_words(found)[-2:] == ["-t", "4"]
    assert f"dd if={MODEL} iflag=nocache count=0" in commands(found)


def test_what_fits_nowhere_gets_no_fix_and_says_why() -> None:
    report = World(weights={0: GIB}, private={0: 3 * GIB, 1: 4 * GIB},
                   total=dict.fromkeys((0, 1), 4 * GIB), free={0: 0, 1: 0}).report()  # fmt: skip
    assert all(found.fixes == () for found in report.findings)
    assert any("No fix passed" in note for note in report.findings[0].notes)
    assert {plan.id for plan in report.plans if "needed" in plan.why_not} >= {
        "bind:0", "bind:1", "interleave:0-1",
    }  # fmt: skip


def test_a_node_without_cpus_is_never_bound_to() -> None:
    found = fix(World(nodes={0: (0, 1), 1: (2, 3), 2: ()}, weights={2: 64 * MIB}))
    assert start_words(found)[1:3] == ["--cpunodebind=0", "--membind=0"]


def test_a_node_without_cpus_is_spread_over_only_where_the_others_are_too_small() -> None:
    small = dict.fromkeys((0, 1), GIB)
    nodes = {0: (0, 1), 1: (2, 3), 2: ()}
    world = World(nodes=nodes, weights={2: 3 * GIB}, total=small, free=small)
    assert any("--interleave=0,1,2" in word for word in start_words(fix(world)))
    world.total = world.free = dict.fromkeys((0, 1), 2 * GIB)
    assert any(word == "--interleave=0,1" for word in start_words(fix(world)))


def test_threads_are_physical_cores() -> None:
    siblings = ((0, 4), (1, 5), (2, 6), (3, 7))
    world = World(nodes={0: (0, 1, 4, 5), 1: (2, 3, 6, 7)}, cores=siblings)
    assert start_words(fix(world))[-2:] == ["-t", "2"]
    world.cores = ()
    assert start_words(fix(world))[-2:] == ["-t", "4"]


def test_a_narrower_choice_of_cpus_is_kept() -> None:
    world = World(nodes={0: (0, 1, 2, 3), 1: (4, 5, 6, 7)}, cpus_allowed=(0, 1, 4, 5))
    words = start_words(fix(world))
    assert words[1:3] == ["--physcpubind=0-1", "--membind=0"]
    assert words[-2:] == ["-t", "2"]


def test_a_cgroup_quota_limits_the_threads() -> None:
    world = World(nodes={0: (0, 1, 2, 3), 1: (4, 5, 6, 7)}, cgroup=Cgroup(quota_cpus=2.5))
    assert start_words(fix(world))[-2:] == ["-t", "2"]


def test_a_cpuset_that_the_fix_cannot_widen_is_a_refusal() -> None:
    now = situation_of(World(cgroup=Cgroup(cpus=(0, 1), mems=(0,)), cpus_allowed=(0, 1)))
    with pytest.raises(RefusedError, match="cpuset allows CPUs 0-1 only"):
        by_hand.render(now, Plan("bind", (1,), (2, 3), True, 2), ())
    with pytest.raises(RefusedError, match="memory of nodes 0 only"):
        by_hand.render(now, Plan("bind", (1,), (0, 1), False, 2), ())


# --- by hand: the command line


@pytest.mark.parametrize(
    ("argv", "threads", "expected"),
    [
        (["llama-server", "-m", "x"], 2, ["llama-server", "-m", "x", "-t", "2"]),
        (["llama-server", "-t", "64", "-m", "x"], 2, ["llama-server", "-t", "2", "-m", "x"]),
        (["/b/llama-cli", "--threads=64"], 2, ["/b/llama-cli", "--threads=2"]),
        (
            ["llama-server", "-t", "8", "-tb", "16"], 4,
            ["llama-server", "-t", "4", "-tb", "4"],
        ),
        (["llama-server", "-t", "8", "-tb", "2"], 4, ["llama-server", "-t", "4", "-tb", "2"]),
        (["python3", "serve.py", "-t", "9"], 2, ["python3", "serve.py", "-t", "9"]),
        (["python3", "a/llama-server", "-t", "9"], 2, ["python3", "a/llama-server", "-t", "2"]),
        (["koboldcpp", "--threads", "9"], 2, ["koboldcpp", "--threads", "2"]),
    ],
)  # fmt: skip
def test_threads_on_a_command_line(argv: list[str], threads: int, expected: list[str]) -> None:
    changed, said = with_threads(argv, threads)
    assert changed == expected
    assert said == (argv[1:2] != ["serve.py"])


def test_an_own_thread_count_that_fits_is_kept() -> None:
    argv = ("llama-server", "-m", MODEL, "-t", "1")
    assert start_words(fix(World(argv=argv)))[3:] == list(argv)


def test_numa_modes_that_undo_the_binding_are_changed_and_said() -> None:
    assert without_repinning(["x", "--numa", "isolate"]) == ["x", "--numa", "numactl"]
    found = fix(World(argv=("llama-server", "-m", MODEL, "--numa", "distribute")))
    assert "--numa numactl" in commands(found)[-1]
    assert any("--numa" in note for note in found.notes)


def test_an_unknown_program_is_told_by_its_environment() -> None:
    found = fix(World(argv=("/opt/serve", "--model", MODEL), comm="serve"))
    assert commands(found)[-1].startswith("cd /srv && LLAMA_ARG_THREADS=2 numactl ")
    assert any("LLAMA_ARG_THREADS" in note for note in found.notes)


def test_undo_starts_the_server_as_it_was() -> None:
    argv = ("llama-server", "-m", MODEL, "-t", "64")
    undo = fix(World(argv=argv)).undo
    assert undo[-1].command == f"cd /srv && {shlex.join(argv)}"


@pytest.mark.parametrize(
    ("policy", "cpus", "launcher"),
    [
        ("bind:0", None, "numactl --membind=0 "),
        ("interleave:0-1", None, "numactl --interleave=0-1 "),
        ("prefer:1", (0, 1, 2), "numactl --preferred=1 --physcpubind=0-2 "),
        ("bind=static:0", None, "numactl --membind=0 "),
        ("default", None, ""),
        ("bind:0-99999999", None, ""),
        ("local", None, ""),
    ],
)
def test_undo_restores_policy_and_cpus(
    policy: str, cpus: tuple[int, ...] | None, launcher: str
) -> None:
    """They are not in the command line: numactl replaces itself with the server."""
    world = World(argv=("llama-server", "-m", MODEL), policy=policy, cpus_allowed=cpus)
    assert fix(world).undo[-1].command == f"cd /srv && {launcher}llama-server -m {MODEL}"


@pytest.mark.parametrize(
    "argv",
    [
        ("llama-server", "-m", MODEL, "a b", "$(touch /tmp/x)", "`id`", "'", '"', ";", "*"),
        ("llama-server", "-m", MODEL, "line\nbreak", "\x1b[31m", "\u202egnp.exe", "tab\t'"),
    ],
)
def test_bash_gives_the_very_words_back(argv: tuple[str, ...]) -> None:
    command = commands(fix(World(argv=argv)))[-1]
    replaced = command.replace("cd /srv && numactl", "printf '%s\\0'", 1)
    done = subprocess.run(["bash", "-c", replaced], capture_output=True, check=True)
    words = done.stdout.decode().split("\0")[:-1]
    assert words[:2] == ["--cpunodebind=0", "--membind=0"]
    assert words[2:] == [*argv, "-t", "2"]
    assert "\x1b" not in command
    assert "\u202e" not in command


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_any_text_is_quoted_exactly_or_refused(words: list[str]) -> None:
    try:
        quoted = " ".join(shell(word) for word in words)
    except RefusedError:
        assert any("\0" in word or "\ufffd" in word for word in words)
        return
    assert quoted.isprintable()
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {quoted}"], capture_output=True, check=True
    )
    assert done.stdout.decode().split("\0")[:-1] == words


def test_a_command_line_that_is_not_known_whole_is_refused() -> None:
    for argv in ((), ("llama-server", "\ufffd"), ("llama-server", "x" * 70_000)):
        world = World(argv=argv[:2] if len(argv) < 2 or len(argv[1]) < 65_536 else
                      ("llama-server", "x" * 65_530))  # fmt: skip
        found = finding(world)
        assert found.fixes == ()
        assert any("Refused" in note for note in found.notes)


@pytest.mark.parametrize("word", ["-bash", "--help", "A=b", "LD_PRELOAD=/x"])
def test_a_command_line_that_begins_with_no_program_is_refused(word: str) -> None:
    found = finding(World(argv=(word, "-m", MODEL)))
    assert not any("numactl" in command for fix in found.fixes for command in commands(fix))
    assert any("name of a program" in note for note in found.notes)


def test_a_folder_that_is_no_path_is_refused() -> None:
    for cwd in ("-", "~", "x/y"):
        assert any("folder" in note for note in finding(World(cwd=cwd)).notes)


def test_a_name_that_is_an_option_is_not_one_of_pgreps() -> None:
    assert '"$(pgrep -n -x .f)"' in fix(World(comm="-f")).verify[0].command


# --- systemd and ollama


def test_a_unit_gets_a_drop_in_a_reload_and_a_restart() -> None:
    found = fix(World(deployment=SYSTEM_UNIT, weights={1: 64 * MIB}))
    assert found.id == "bind/systemd"
    assert commands(found)[0] == "mkdir -p /etc/systemd/system/llama.service.d"
    assert commands(found)[1].splitlines()[1:-1] == [
        "[Service]",
        "AllowedCPUs=2-3",
        "AllowedMemoryNodes=1",
        "CPUAffinity=",
        "CPUAffinity=2-3",
        "NUMAPolicy=bind",
        "NUMAMask=1",
        "Environment=LLAMA_ARG_THREADS=2",
    ]
    assert commands(found)[2:] == ["systemctl daemon-reload", "systemctl restart llama.service"]
    assert all(step.needs_root for step in found.steps)
    assert [step.command for step in found.undo] == [
        "rm /etc/systemd/system/llama.service.d/numatrace.conf",
        "systemctl daemon-reload",
        "systemctl restart llama.service",
    ]


def test_a_unit_is_stopped_while_its_page_cache_is_dropped() -> None:
    found = fix(World(deployment=SYSTEM_UNIT, weights={0: 60 * MIB, 1: 4 * MIB}))
    assert [command.split()[0] for command in commands(found)] == [
        "mkdir", "tee", "systemctl", "systemctl", "dd", "systemctl",
    ]  # fmt: skip
    assert commands(found)[3] == "systemctl stop llama.service"
    assert commands(found)[5] == "systemctl start llama.service"


def test_a_users_unit_is_left_to_the_users_manager() -> None:
    found = fix(World(deployment=Deployment("llama.service", "user")))
    assert not any(step.needs_root for step in found.steps)
    assert "AllowedCPUs" not in commands(found)[1]
    assert commands(found)[2] == "systemctl --user daemon-reload"


def test_a_thread_option_in_a_unit_is_overridden_in_its_command() -> None:
    argv = ("/usr/bin/llama-server", "-m", "/m/100% $HOME.gguf", "-t", "64")
    found = fix(World(deployment=SYSTEM_UNIT, argv=argv))
    lines = commands(found)[1].splitlines()
    assert lines[-3:-1] == [
        "ExecStart=",
        'ExecStart=/usr/bin/llama-server -m "/m/100%% $$HOME.gguf" -t 2',
    ]
    refused = finding(World(deployment=SYSTEM_UNIT, argv=argv, ppid=77))
    assert refused.fixes == ()
    assert any("script" in note for note in refused.notes)


def test_systemd_quoting() -> None:
    assert systemd_exec(["/bin/x", "a b", 'q"\\', "%i", "$A"]) == (
        '/bin/x "a b" "q\\"\\\\" %%i "$$A"'
    )
    with pytest.raises(RefusedError):
        systemd_exec(["/bin/x", "a\nExecStartPre=/bin/evil"])


def test_a_login_unit_is_not_restarted() -> None:
    for unit in ("ssh.service", "user@1000.service", "getty@tty1.service", "session-1.scope"):
        assert fix(World(deployment=Deployment(unit, "system"))).deployment == "by hand"


@pytest.mark.parametrize("unit", ["a b.service", "x;reboot.service", "-rf.service", "a\n.service"])
def test_a_hostile_unit_name_is_refused(unit: str) -> None:
    assert finding(World(deployment=Deployment(unit, "system"))).fixes == ()


def test_ollamas_server_is_set_by_the_unit_of_ollama_serve() -> None:
    world = World(argv=RUNNER_ARGV, ppid=900, others=(OLLAMA,), deployment=OLLAMA.deployment)
    found = fix(world)
    assert found.id == "bind/systemd"
    assert "Environment=LLAMA_ARG_THREADS=2" in commands(found)[1].splitlines()
    assert "ExecStart" not in commands(found)[1]
    assert commands(found)[-1] == "systemctl restart ollama.service"


def test_ollama_by_hand_puts_the_policy_on_ollama_serve() -> None:
    by_hand = replace(OLLAMA, deployment=Deployment())
    found = fix(World(argv=RUNNER_ARGV, ppid=900, others=(by_hand,)))
    assert "/proc/900/comm && kill 900 &&" in commands(found)[0]
    assert commands(found)[-1] == (
        "LLAMA_ARG_THREADS=2 numactl --cpunodebind=0 --membind=0 /usr/bin/ollama serve"
    )


def test_an_older_ollama_whose_threads_cannot_be_set_is_not_bound() -> None:
    """Bound to two CPUs with four threads, its spinning threads would stop one another."""
    by_hand = replace(OLLAMA, deployment=Deployment())
    argv = ("/usr/bin/ollama", "runner", "--model", MODEL)
    found = finding(World(argv=argv, comm="ollama", ppid=900, others=(by_hand,)))
    assert found.fixes[0].id == "interleave/by-hand"
    assert "-t" not in start_words(found.fixes[0])


# --- every fix, whatever the machine


CGROUP = "a cgroup that somebody made"


def worlds() -> st.SearchStrategy[World]:
    node = st.integers(0, 7)
    size = st.integers(0, 6).map(lambda steps: steps * 256 * MIB)
    return st.builds(
        _world,
        st.lists(node, min_size=2, max_size=4, unique=True),
        st.lists(st.integers(0, 3), min_size=4, max_size=4),
        st.lists(size, min_size=12, max_size=12),
        st.sampled_from([(), ("-t", "64"), ("--threads=3",), ("\x1b]0;x\a", "a;b")]),
        st.sampled_from(
            [
                Deployment(),
                SYSTEM_UNIT,
                Deployment("u.service", "user"),
                Deployment(container_kind="docker", container_name="llm"),
                Deployment(container_kind="podman", container_name="llm"),
                Deployment(
                    container_kind="docker",
                    container_name="llm",
                    compose_project="p",
                    compose_service="s",
                ),
                Deployment(unit=CGROUP),
            ]
        ),
        st.booleans(),
    )


def _world(
    numbers: list[int],
    counts: list[int],
    sizes: list[int],
    extra: tuple[str, ...],
    deployment: Deployment,
    mapped: bool,
) -> World:
    nodes = {n: tuple(8 * n + cpu for cpu in range(counts[i])) for i, n in enumerate(numbers)}
    nodes[numbers[0]] = nodes[numbers[0]] or (8 * numbers[0],)
    lying = {n: sizes[i] for i, n in enumerate(numbers) if sizes[i]}
    times = [{n: (i + 1) * SECOND} for i, n in enumerate(numbers) if nodes[n]]
    return World(
        nodes=nodes,
        argv=("/bin/llama-server", "-m", MODEL, *extra),
        deployment=Deployment() if deployment.unit == CGROUP else deployment,
        cgroup=Cgroup(paths={"": "/mine"}) if deployment.unit == CGROUP else Cgroup(),
        total={n: sizes[4 + i] for i, n in enumerate(numbers)},
        free={n: min(sizes[8 + i], sizes[4 + i]) for i, n in enumerate(numbers)},
        weights=lying if mapped else {},
        private={} if mapped else lying,
        times=times,
    )


@given(worlds())
@settings(max_examples=100, deadline=None)
def test_every_fix_names_only_what_the_machine_has(world: World) -> None:
    report = world.report()
    assert (report.verdict.kind == "fix") == bool(report.findings)
    for each in (fix for found in report.findings for fix in found.fixes):
        if each.plan.startswith("live:"):
            continue  # see test_fix_live.py
        text = "\n".join(commands(each))
        options = "--membind|--interleave|NUMAMask|--cpuset-mems"
        nodes = _numbers(rf"(?:{options})=([0-9,-]+)", text)
        nodes |= _numbers(r"echo ([0-9,-]+) \| tee \S+cpuset.mems", text)
        options = "--physcpubind|AllowedCPUs|CPUAffinity|--cpuset-cpus"
        cpus = _numbers(rf"(?:{options})=([0-9,-]+)", text)
        cpus |= _numbers(r"echo ([0-9,-]+) \| tee \S+cpuset.cpus", text)
        cpus |= {cpu for node in _numbers(r"--cpunodebind=([0-9,]+)", text) for cpu in
                 world.nodes[node]}  # fmt: skip
        cpus = cpus or {cpu for all_cpus in world.nodes.values() for cpu in all_cpus}
        count = r'(?:-t |"-t", "|--threads=|THREADS=|THREADS: ")([0-9]+)'
        threads = _numbers(count, text) or _numbers(count, " ".join(world.argv))
        assert nodes or each.plan.startswith(("distribute", "threads"))
        assert all(world.total.get(node) for node in nodes)
        assert cpus <= {cpu for all_cpus in world.nodes.values() for cpu in all_cpus}
        assert threads
        assert max(threads) <= len(cpus)
        assert _need(world) <= sum(_most(world, node) for node in nodes)
        assert each.lint
        assert each.verify
        assert each.undo


def _numbers(pattern: str, text: str) -> set[int]:
    found: set[int] = set()
    for group in re.findall(pattern, text):
        for part in group.split(","):
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    return found


def _need(world: World) -> int:
    return sum(world.weights.values()) + sum(world.private.values())


def _most(world: World, node: int) -> int:
    """What a node could give at the very most: free memory, and what the server has there."""
    own = world.weights.get(node, 0) + world.private.get(node, 0)
    return min(world.total[node], world.free[node] + own)
