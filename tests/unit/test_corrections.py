"""What circulating advice gets wrong is said where the trace makes it matter, and nowhere else."""

from __future__ import annotations

from numatrace.model.process import Cgroup, Deployment, Process
from tests.unit.test_analyze_world import MIB, MODEL, World
from tests.unit.test_causes_scenarios import BOTH, ON_0, STAY, client, copies, ollama

CPUS_0 = (0, 1)


def lines(world: World) -> str:
    return "\n".join(world.report().corrections)


def test_a_healthy_server_needs_none() -> None:
    assert lines(World(times=ON_0, cpus_allowed=CPUS_0, policy="bind:0")) == ""


def test_a_wrapped_client_is_said_to_do_nothing_and_the_server_is_named() -> None:
    text = lines(World(times=STAY, others=(client(),)))
    assert "numactl --interleave=all" in text
    assert "pid 77" in text
    assert "the server, pid 1000" in text


def test_balancing_and_mapped_weights() -> None:
    mapped = World(times=BOTH, policy="bind:0", numa_balancing="1")
    assert "cannot" not in lines(mapped)
    assert "does not move these weights" in lines(mapped)
    assert "read-only file mappings" in lines(mapped)
    off = World(times=BOTH, policy="bind:0")
    assert "numa_balancing" not in lines(off)


def test_balancing_and_private_weights() -> None:
    free = World(weights={}, times=STAY, numa_balancing="1", **copies({0: 64 * MIB}))
    assert "numa_balancing" not in lines(free)
    free.policy = "bind:0"
    assert "explicit policy" in lines(free)


def test_page_cache_that_survives_a_restart() -> None:
    stale = World(weights={1: 64 * MIB}, times=ON_0, cpus_allowed=CPUS_0, policy="bind:0")
    assert "outlives the server" in lines(stale)
    stale = World(weights={}, times=STAY, **copies({0: 64 * MIB}))
    assert "outlives the server" not in lines(stale)
    assert "Dropping the page cache alone does not help" in lines(stale)


def test_docker_has_no_memory_nodes() -> None:
    docker = Deployment(container_kind="docker", container_id="a" * 64)
    world = World(times=STAY, cgroup=Cgroup(cpus=(0, 1, 2, 3), mems=(0,)), deployment=docker)
    assert "--cpuset-mems" in lines(world)
    world.deployment = Deployment()
    assert "--cpuset-mems" not in lines(world)


def test_ollama_takes_its_settings_from_serve() -> None:
    runner = f"/usr/bin/ollama runner --model {MODEL}"
    world = World(times=STAY, comm="ollama", **ollama(runner))
    assert "`ollama run` does nothing" in lines(world)
    assert "pid 500" in lines(world)
    assert "ollama" not in lines(World(times=STAY))


def test_options_and_variables_that_do_not_exist() -> None:
    world = World(times=STAY, environment={"OLLAMA_NUM_THREADS": "8", "LLAMA_ARG_NUMA": "isolate"})
    assert "OLLAMA_NUM_THREADS=8 is set: Ollama has no such variable." in lines(world)
    assert "LLAMA_ARG_NUMA" not in lines(world)  # llama-server itself reads that
    old = f"/usr/bin/ollama runner --model {MODEL}"
    world = World(times=STAY, comm="ollama", environment={"LLAMA_ARG_NUMA": "isolate"},
                  **ollama(old))  # fmt: skip
    assert "LLAMA_ARG_NUMA=isolate is set: Ollama before 0.30" in lines(world)


def test_the_numa_option_of_the_api_was_removed() -> None:
    asks = Process(78, 1, "curl", ("curl", "-d", '{"options":{"numa": true}}'), relation="client")
    options = ollama(f"/usr/lib/ollama/llama-server --model {MODEL}")
    options["others"] = (*options["others"], asks)
    assert "ignored it since 0.3.4" in lines(World(times=STAY, **options))
    assert "0.3.4" not in lines(World(times=STAY, others=(asks,)))
