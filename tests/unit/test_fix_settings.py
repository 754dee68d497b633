"""Where a thread count, a NUMA mode, repacking and mapping go, by program and version."""

from __future__ import annotations

from dataclasses import replace

import pytest

from numatrace.analyze.commandline import threads_are_fixed
from numatrace.analyze.fixes import by_hand
from numatrace.analyze.fixes.quoting import RefusedError
from numatrace.analyze.fixes.settings import (
    build,
    by_variables,
    changes,
    family,
    ollama_version,
)
from numatrace.analyze.plans.plan import Plan
from numatrace.model.process import Deployment, Process
from tests.unit.fix_world import BLOB, as_process, situation_of
from tests.unit.test_analyze_world import MODEL, World

SERVE = ("/usr/bin/ollama", "serve")
SERVER_030 = ("/usr/lib/ollama/llama-server", "--model", BLOB, "--port", "4")
RUNNER = ("/usr/bin/ollama", "runner", "--ollama-engine", "--model", BLOB, "--port", "4")
OLD_RUNNER = ("/tmp/ollama/ollama_llama_server", "--model", BLOB, "--threads", "8", "--port", "4")
BIND = Plan("bind", (0,), (0, 1), True, 2)
DISTRIBUTE = Plan("distribute", (0, 1), (0, 1, 2, 3), True, 4)


def ollama(argv: tuple[str, ...], version: str = "", **environment: str):
    serve = Process(900, 1, "ollama", SERVE, cwd="/", environment=environment, version=version)
    return situation_of(World(argv=argv, comm="x", ppid=900, others=(serve,)))


def plain(*options: str, version: str = "", **environment: str):
    now = situation_of(World(argv=("llama-server", "-m", MODEL, *options)))
    return as_process(now, version=version, environment=environment)


def test_the_family_is_told_from_the_processes() -> None:
    assert family(plain()) == "llama.cpp"
    assert family(ollama(SERVER_030)) == "ollama"
    assert family(ollama(RUNNER)) == family(ollama(OLD_RUNNER)) == "ollama-runner"
    assert family(situation_of(World(argv=("/opt/serve", "x"), comm="serve"))) == "other"


@pytest.mark.parametrize(
    ("text", "number", "version"),
    [
        ("b10488", 10_488, None),
        ("10875", 10_875, None),
        ("0.24.0", None, (0, 24, 0)),
        ("0.33.0-rc2", None, (0, 33, 0)),
        ("", None, None),
        ("b1.2", None, None),
        ("b" + "9" * 40, None, None),
    ],
)
def test_versions(text: str, number: int | None, version: tuple[int, ...] | None) -> None:
    process = Process(1, 0, "x", version=text)
    assert (build(process), ollama_version(process)) == (number, version)


def test_threads_of_llama_cpp_are_an_option() -> None:
    assert changes(plain(), BIND).argv[-2:] == ["-t", "2"]
    assert changes(plain("--threads=64"), BIND).argv[-1] == "--threads=2"


def test_threads_since_ollama_030_are_a_variable_of_serve() -> None:
    found = changes(ollama(SERVER_030, "0.32.9"), BIND)
    assert found.environment == {"LLAMA_ARG_THREADS": "2"}
    assert found.argv == list(SERVE)
    assert found.parameters == {}


@pytest.mark.parametrize(
    ("argv", "version"),
    [
        (RUNNER, "0.24.0"),
        (OLD_RUNNER, "0.3.13"),
        (OLD_RUNNER, ""),
        ((*SERVER_030, "-t", "8"), "0.32.9"),  # the model's own num_thread wins over the variable
    ],
)
def test_threads_elsewhere_in_ollama_are_a_parameter_of_the_model(
    argv: tuple[str, ...], version: str
) -> None:
    now = ollama(argv, version)
    found = changes(now, BIND)
    assert found.parameters == {"num_thread": "2"}
    assert found.environment == {}
    assert any("num_thread" in note for note in found.notes)
    assert not threads_are_fixed(now.server, now.root)


def test_a_model_that_ollama_does_not_keep_has_no_parameter() -> None:
    now = ollama(tuple(word if word != BLOB else MODEL for word in RUNNER))
    assert threads_are_fixed(now.server, now.root)
    with pytest.raises(RefusedError):
        changes(now, BIND)


def test_numa_distribute_is_an_option_a_variable_or_not_there() -> None:
    assert changes(plain(), DISTRIBUTE).argv[-2:] == ["--numa", "distribute"]
    assert changes(plain("--numa", "numactl"), DISTRIBUTE).argv.count("--numa") == 1
    found = changes(ollama(SERVER_030), DISTRIBUTE)
    assert found.environment["LLAMA_ARG_NUMA"] == "distribute"
    with pytest.raises(RefusedError, match=r"0\.3\.14 until"):
        changes(ollama(RUNNER, "0.24.0"), DISTRIBUTE)
    with pytest.raises(RefusedError, match="by itself"):
        changes(ollama(OLD_RUNNER, "0.3.13"), DISTRIBUTE)


def test_a_binding_is_not_undone_by_numa() -> None:
    assert changes(plain("--numa", "isolate"), BIND).argv[3:5] == ["--numa", "numactl"]
    found = changes(ollama(SERVER_030, LLAMA_ARG_NUMA="distribute"), BIND)
    assert found.environment["LLAMA_ARG_NUMA"] == "numactl"
    found = changes(plain(LLAMA_ARG_NUMA="distribute"), BIND)
    assert found.environment == {"LLAMA_ARG_NUMA": "numactl"}
    assert any(
        "numactl in its PATH" in note for note in changes(ollama(OLD_RUNNER, "0.3.9"), BIND).notes
    )


def test_repacking_is_switched_off_where_there_is_any() -> None:
    plan = replace(DISTRIBUTE, repack=False)
    assert changes(plain("--repack"), plan).argv.count("--no-repack") == 1
    assert "--repack" not in changes(plain("--repack"), plan).argv
    assert changes(ollama(SERVER_030), plan).environment["LLAMA_ARG_NO_REPACK"] == "1"
    with pytest.raises(RefusedError, match="repack"):
        changes(ollama(RUNNER), replace(BIND, repack=False))


@pytest.mark.parametrize(
    ("now", "said", "variables"),
    [
        (lambda: plain(version="b10488"), ["--no-mmap"], {}),
        (lambda: plain("--mmap", version="b10875"), ["--load-mode", "none"], {}),
        (lambda: plain("-lm", "mmap", "-c", "1"), ["none", "-c", "1"], {}),
        (plain, [MODEL], {"LLAMA_ARG_NO_MMAP": "1", "LLAMA_ARG_LOAD_MODE": "none"}),
        (
            lambda: ollama(SERVER_030),
            ["serve"],
            {"LLAMA_ARG_NO_MMAP": "1", "LLAMA_ARG_LOAD_MODE": "none"},
        ),
        (lambda: ollama(RUNNER), ["serve"], {}),
    ],
)
def test_a_copy_of_its_own_by_build(now, said: list[str], variables: dict[str, str]) -> None:
    plan = Plan("per-node", (0, 1), (0, 1, 2, 3), True, None)
    found = changes(now(), plan, own_copy=True)
    assert found.argv[-len(said) :] == said
    assert found.environment == variables
    assert "--mmap" not in found.argv


def test_added_options_may_be_variables_instead() -> None:
    now = plain("-c", "512")
    plan = replace(DISTRIBUTE, repack=False)
    assert by_variables(now, changes(now, plan)) == {
        "LLAMA_ARG_THREADS": "4",
        "LLAMA_ARG_NUMA": "distribute",
        "LLAMA_ARG_NO_REPACK": "1",
    }
    now = plain("-t", "64")
    assert by_variables(now, changes(now, plan)) is None


def test_every_instance_has_a_port_and_a_node_of_its_own() -> None:
    plan = Plan("per-node", (0, 2), (0, 1, 4, 5), True, 2)
    found = by_hand.render(plain("--port", "9000", version="b10488"), plan, ())
    starts = [step.command for step in found.steps if step.stays]
    assert [start.split("numactl ")[1].split()[:2] for start in starts] == [
        ["--cpunodebind=0", "--membind=0"],
        ["--cpunodebind=2", "--membind=2"],
    ]
    assert ["--port 9000" in starts[0], "--port 9001" in starts[1]] == [True, True]
    assert all("--no-mmap" in start for start in starts)
    found = by_hand.render(ollama(SERVER_030, OLLAMA_HOST="0.0.0.0:7000"), plan, ())
    starts = [step.command for step in found.steps if step.stays]
    assert "OLLAMA_HOST=0.0.0.0:7000 " in starts[0]
    assert "OLLAMA_HOST=0.0.0.0:7001 " in starts[1]
    with pytest.raises(RefusedError, match="port"):
        by_hand.render(plain("--port", "0"), plan, ())


def test_the_model_is_changed_before_its_server_is_stopped() -> None:
    found = by_hand.render(ollama(RUNNER, "0.24.0"), BIND, ())
    words = [step.command.split()[0] for step in found.steps]
    create = next(place for place, step in enumerate(found.steps) if " create " in step.command)
    assert create < words.index("grep")
    assert BLOB.rpartition("/")[2] in found.steps[0].command
    assert " cp " in found.steps[1].command
    assert " rm " in found.undo[1].command


def test_a_container_deployment_is_left_to_its_own_module() -> None:
    now = situation_of(World(deployment=Deployment("", "", "docker", "ab" * 32)))
    assert now.deployment == "docker"
