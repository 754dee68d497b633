"""Fixes for containers: docker, compose, podman, Kubernetes; held against the tools' own rules."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from numatrace.analyze.fixes import compose, docker, kubernetes, podman
from numatrace.analyze.fixes.quoting import RefusedError
from numatrace.analyze.plans.plan import Plan
from numatrace.analyze.plans.room import need_bytes
from numatrace.model.process import Deployment, Process
from tests.unit.fix_world import BLOB, Notes, commands, every_command, situation_of
from tests.unit.test_analyze_world import MIB, MODEL, World

if TYPE_CHECKING:
    from pathlib import Path

yaml = pytest.importorskip("yaml", reason="PyYAML is what reads the files here")

ID = "ab" * 32
NAMED = Deployment(container_kind="docker", container_id=ID, container_name="llm")
COMPOSED = replace(NAMED, compose_project="shop", compose_service="llm.1")
POD = Deployment(
    container_kind="kubepods", container_id=ID, pod="01234567-89ab-cdef-0123-456789abcdef"
)
BIND = Plan("bind", (1,), (2, 3), True, 2, (MODEL,))
KEPT = Plan("bind", (1,), (2, 3), True, None)
SPREAD = Plan("interleave", (0, 1), (0, 1, 2, 3), True, 4)
CPUSET = Plan("cpuset", (1,), (2, 3), True, None)
THREADS = Plan("threads", (), (0, 1), True, 2)


def world(deployment: Deployment, *options: str) -> World:
    argv = ("/app/llama-server", "-m", MODEL, *options)
    return World(deployment=deployment, argv=argv)


def ollama_in_docker():
    serve = Process(900, 1, "ollama", ("/bin/ollama", "serve"), deployment=NAMED)
    argv = ("/usr/bin/ollama", "runner", "--model", BLOB, "--port", "4")
    return situation_of(World(argv=argv, ppid=900, others=(serve,), deployment=NAMED))


# --- docker


def test_a_cpuset_is_changed_in_place() -> None:
    found = docker.render(situation_of(world(NAMED)), CPUSET, ())
    assert commands(found) == [
        "docker update --cpuset-cpus=2-3 --cpuset-mems=1 llm",
        "docker restart llm",
    ]
    assert [step.command for step in found.undo] == [
        "docker update --cpuset-cpus=0-3 --cpuset-mems=0-1 llm",
        "docker restart llm",
    ]


def test_the_page_cache_is_dropped_between_stop_and_start() -> None:
    found = docker.render(situation_of(world(NAMED)), replace(KEPT, evict=(MODEL,)), ())
    verbs = [command.split()[1] for command in commands(found)]
    assert verbs == ["stop", "run", "update", "start"]
    assert commands(found)[1].endswith(f" if={MODEL} iflag=nocache count=0")
    assert "--volumes-from llm " in commands(found)[1]


def test_a_container_without_a_name_goes_by_its_id() -> None:
    bare = Deployment(container_kind="docker", container_id=ID)
    assert commands(docker.render(situation_of(world(bare)), CPUSET, ()))[0].endswith(ID)


def test_a_container_without_a_name_is_not_made_again() -> None:
    bare = Deployment(container_kind="docker", container_id=ID)
    with pytest.raises(RefusedError, match="name is not in the trace"):
        docker.render(situation_of(world(bare)), BIND, ())


@pytest.mark.parametrize("name", ["a b", "$(reboot)", "-x", "a;b", "", "a\nb", "ä"])
def test_a_hostile_container_name_is_refused(name: str) -> None:
    odd = Deployment(container_kind="docker", container_name=name)
    with pytest.raises(RefusedError):
        docker.render(situation_of(world(odd)), CPUSET, ())


def test_other_threads_need_another_container() -> None:
    found = docker.render(situation_of(world(NAMED, "-c", "512")), BIND, ())
    text = commands(found)
    assert "AutoRemove" in text[0]
    assert text[0].endswith("docker stop llm && docker rename llm llm-before-numatrace")
    run = text[2]
    assert " --name llm --volumes-from llm-before-numatrace " in run
    assert " --cpuset-cpus=2-3 --cpuset-mems=1 " in run
    assert run.endswith(f"{'{{.Image}}'}' llm-before-numatrace)\" -m {MODEL} -c 512 -t 2")
    assert " --entrypoint /app/llama-server " in run
    assert [step.command.split()[1] for step in found.undo] == ["update", "rm", "rename", "start"]


def test_ollamas_threads_are_set_in_the_container_that_is_there() -> None:
    found = docker.render(ollama_in_docker(), BIND, ())
    text = commands(found)
    assert "docker exec llm ollama list" in text[0]
    assert "docker exec -i llm ollama create" in text[2]
    assert "num_thread 2" in text[2]
    assert not any(" run -d " in command for command in text)


def test_a_memory_policy_needs_a_capability_and_numactl_in_the_image() -> None:
    found = docker.render(situation_of(world(NAMED)), SPREAD, ())
    text = commands(found)
    assert "docker build -t llm-numactl -" in text[0]
    assert " --cap-add SYS_NICE " in text[-2]
    assert " --entrypoint numactl llm-numactl --interleave=0,1 /app/llama-server " in text[-2]
    assert any("LLAMA_ARG_NUMA=distribute" in note for note in found.notes)


def test_a_gpu_container_is_not_made_again() -> None:
    now = replace(situation_of(world(NAMED)), gpu=True)
    with pytest.raises(RefusedError, match="GPU"):
        docker.render(now, BIND, ())
    assert docker.render(now, CPUSET, ()).id == "cpuset/docker"


def test_one_instance_per_node_is_refused() -> None:
    with pytest.raises(RefusedError, match="second container"):
        docker.render(situation_of(world(NAMED)), Plan("per-node", (0, 1), (0, 1), True, 1), ())


@pytest.mark.skipif(shutil.which("docker") is None, reason="docker's client is not installed")
@pytest.mark.parametrize("plan", [BIND, KEPT, SPREAD, CPUSET, THREADS])
def test_dockers_client_knows_every_option(plan: Plan) -> None:
    found = docker.render(situation_of(world(NAMED)), plan, ())
    for command in every_command(found):
        templates = re.findall(r"docker inspect --format '([^']*)'", command)
        inner = [("run", each) for each in templates if "--network" in each]
        outer = re.sub(r"\$\(docker inspect[^)]*\)", "", command)
        calls = re.findall(r"docker (run|update|exec|build|rm) ([^|]*)", outer)
        for verb, options in (*inner, *calls):
            help_text = subprocess.run(
                ["docker", verb, "--help"], capture_output=True, text=True, check=True
            ).stdout
            own = options.partition(" --entrypoint ")[0] + " "
            for option in re.findall(r"(?<!\S)--[a-z][a-z-]+", own):
                assert re.search(rf"{option}\b", help_text), (verb, option)
        template = "".join(templates)
        assert template.count("{{") == template.count("}}")


# --- podman


def test_podman_has_dockers_options() -> None:
    deployment = replace(NAMED, container_kind="podman")
    found = podman.render(situation_of(world(deployment)), BIND, ())
    assert found.id == "bind/podman"
    assert not any("docker" in command for command in every_command(found))
    assert " --cpuset-cpus=2-3 --cpuset-mems=1 " in commands(found)[-1]
    assert any("4.3" in note for note in found.notes)


# --- compose

SERVICE_KEYS = {"cpuset", "environment", "entrypoint", "command"}
"""Of compose-spec's schema; it has no key for memory nodes."""


def composed(plan: Plan, *options: str) -> tuple[dict[str, object], list[str]]:
    found = docker.render(situation_of(world(COMPOSED, *options)), plan, ())
    assert found.deployment == "docker compose"
    text = next(command for command in commands(found) if command.startswith("tee "))
    lines = text.split("\n")
    assert (lines[0][-5:], lines[-1]) == ("'END'", "END")
    return yaml.safe_load("\n".join(lines[1:-1])), commands(found)


def test_a_compose_file_says_what_it_can_and_docker_update_the_rest() -> None:
    document, text = composed(BIND)
    assert document == {
        "services": {"llm.1": {"cpuset": "2-3", "environment": {"LLAMA_ARG_THREADS": "2"}}}
    }
    words = " ".join(text)
    order = [
        " up --no-start ",
        "docker update --cpuset-mems=1 $(docker compose -p shop ps",
        " start ",
    ]
    places = [words.index(each) for each in order]
    assert places == sorted(places)
    added = 'COMPOSE_FILE="$files:$folder/compose.numatrace.yaml" docker compose -p shop '
    assert added in words


def test_composes_own_files_are_found_without_the_added_one(tmp_path: Path) -> None:
    """After the fix the container's label names the added file, too."""
    found = docker.render(situation_of(world(COMPOSED)), BIND, ())
    notes = Notes(tmp_path)
    answer = f"{tmp_path}/a.yaml,{tmp_path}/b c.yaml,{tmp_path}/compose.numatrace.yaml"
    undo = [step.command for step in found.undo]
    assert "config_files" in undo[0]
    text = undo[0].replace('test -d "$folder" && ', "") + f"\nfolder='{tmp_path}'\n" + undo[1]
    text += "\nprintf '%s' \"$files\""
    done = notes.run("bash", "-c", text, ANSWER=answer)
    assert done.stdout.endswith(f"{tmp_path}/a.yaml:{tmp_path}/b c.yaml"), done
    assert notes.calls()[-1][1:6] == ["compose", "-p", "shop", "--project-directory", str(tmp_path)]


def test_an_option_that_is_there_is_changed_in_the_command() -> None:
    argv = ("-t", "64", "--alias", "$HOME: {x}, 'y' \"z\" é 漢")
    document, _ = composed(BIND, *argv)
    service = document["services"]["llm.1"]  # type: ignore[index]
    assert service["entrypoint"] == ["/app/llama-server"]
    # compose itself makes one `$` of two
    assert [word.replace("$$", "$") for word in service["command"]] == [
        "-m", MODEL, "-t", "2", *argv[2:],
    ]  # fmt: skip
    assert set(service) <= SERVICE_KEYS


@pytest.mark.parametrize("plan", [BIND, KEPT, CPUSET, THREADS])
def test_every_compose_file_is_one(plan: Plan) -> None:
    document, _ = composed(plan)
    (service,) = document["services"].values()  # type: ignore[attr-defined]
    assert set(service) <= SERVICE_KEYS
    assert all(isinstance(value, str) for value in service.get("environment", {}).values())


@pytest.mark.parametrize("name", ["on", "1", "null", "a.b"])
def test_a_services_name_stays_a_name(name: str) -> None:
    now = situation_of(world(replace(COMPOSED, compose_service=name)))
    for plan in (BIND, replace(THREADS, threads=None)):
        found = docker.render(now, plan, ())
        text = next(command for command in commands(found) if command.startswith("tee "))
        assert list(yaml.safe_load("\n".join(text.split("\n")[1:-1]))["services"]) == [name]


def test_compose_cannot_interleave_and_says_what_would() -> None:
    with pytest.raises(RefusedError, match="SYS_NICE"):
        compose.render(situation_of(world(COMPOSED)), SPREAD, ())


@pytest.mark.parametrize("name", ["a b", "$x", "a: b", "-a", ""])
def test_a_hostile_service_is_refused(name: str) -> None:
    odd = replace(COMPOSED, compose_service=name)
    with pytest.raises(RefusedError):
        compose.render(situation_of(world(odd)), BIND, ())


# --- Kubernetes


def files(plan: Plan) -> list[dict[str, object]]:
    found = kubernetes.render(situation_of(world(POD)), plan, ())
    texts = [command.split("\n") for command in commands(found) if command.startswith("tee ")]
    bodies = ["\n".join(lines[1:-1]).replace("$container", "main") for lines in texts]
    return [yaml.safe_load(body) for body in bodies]


def mib(text: object) -> int:
    found = re.fullmatch(r"(\d+)Mi", str(text))
    assert found
    return int(found[1])


def test_the_kubelet_is_told_all_that_its_managers_ask_for() -> None:
    kubelet, _ = files(BIND)
    assert kubelet["apiVersion"] == "kubelet.config.k8s.io/v1beta1"
    assert kubelet["kind"] == "KubeletConfiguration"
    assert kubelet["cpuManagerPolicy"] == "static"
    assert kubelet["memoryManagerPolicy"] == "Static"
    assert kubelet["topologyManagerPolicy"] == "single-numa-node"
    assert kubelet["reservedSystemCPUs"] == "0"
    reserved = sum(mib(each["limits"]["memory"]) for each in kubelet["reservedMemory"])  # type: ignore[attr-defined]
    parts = (kubelet["kubeReserved"], kubelet["systemReserved"])
    asked = sum(mib(each["memory"]) for each in parts)  # type: ignore[index]
    assert reserved == asked + mib(kubelet["evictionHard"]["memory.available"])  # type: ignore[index]
    assert [each["numaNode"] for each in kubelet["reservedMemory"]] == [0]  # type: ignore[attr-defined]


def test_the_pod_is_guaranteed_with_whole_cpus_and_enough_memory() -> None:
    *_, pod = files(BIND)
    (container,) = pod["spec"]["template"]["spec"]["containers"]  # type: ignore[index]
    assert container["name"] == "main"
    resources = container["resources"]
    assert resources["requests"] == resources["limits"]
    assert resources["limits"]["cpu"] == "2"
    assert mib(resources["limits"]["memory"]) * MIB >= need_bytes(situation_of(world(POD)))
    assert container["env"] == [{"name": "LLAMA_ARG_THREADS", "value": "2"}]


def test_threads_alone_change_no_kubelet() -> None:
    (pod,) = files(THREADS)
    (container,) = pod["spec"]["template"]["spec"]["containers"]  # type: ignore[index]
    assert "resources" not in container


def test_what_a_pod_cannot_do_is_refused() -> None:
    now = situation_of(world(POD))
    with pytest.raises(RefusedError, match="memory policies"):
        kubernetes.render(now, SPREAD, ())
    with pytest.raises(RefusedError, match="args"):
        kubernetes.render(situation_of(world(POD, "-t", "64")), BIND, ())
    odd = situation_of(world(replace(POD, pod='x"]}{.items')))
    with pytest.raises(RefusedError, match="id"):
        kubernetes.render(odd, BIND, ())
