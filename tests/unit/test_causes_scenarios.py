"""Every labelled situation, as a trace: the stated first cause, and none that is not there."""

from __future__ import annotations

import json

import pytest

from numatrace.model.process import Cgroup, Deployment, Process
from tests.unit.test_analyze_world import (
    GIB,
    MIB,
    MODEL,
    PRIVATE_AT,
    SECOND,
    SERVER,
    World,
    map_row,
    tensor_rows,
)

Rows = tuple[str, list[dict[str, object]]]
BOTH = [{0: 4 * SECOND, 1: 4 * SECOND} for _ in range(4)]
STAY = [{0: 8 * SECOND}, {0: 8 * SECOND}, {1: 8 * SECOND}, {1: 8 * SECOND}]
ON_0 = [{0: 8 * SECOND}] * 2
ON_1 = [{1: 8 * SECOND}] * 2
HTTP = "numactl --interleave=all curl http://127.0.0.1:8080/completion"
FOUR_NODES = {node: (node,) for node in range(4)}
UNEVEN = {
    0: {0: 10, 1: 12, 2: 20, 3: 32},
    1: {0: 12, 1: 10, 2: 32, 3: 20},
    2: {0: 20, 1: 32, 2: 10, 3: 12},
    3: {0: 32, 1: 20, 2: 12, 3: 10},
}


def moves(count: int, threads: int = 2) -> Rows:
    """So many moves between the nodes, in turn by each of the first threads."""
    return "move", [
        {"t_ns": SECOND + n, "tgid": SERVER, "tid": SERVER + n % threads, "cpu": 0,
         "node": n % 2, "from_node": 1 - n % 2}
        for n in range(count)
    ]  # fmt: skip


def grow(world: World, **vmstat: int) -> World:
    """The world with counters that grow from nothing to this while it is recorded."""
    nodes = {str(node): world.memory(node).to_json() for node in world.nodes}
    value = {"nodes": nodes, "vmstat": vmstat, "numastat": {}}
    world.vmstat = dict.fromkeys(vmstat, 0)
    world.extra = [
        *world.extra,
        ("system", [{"t_ns": 11 * SECOND, "name": "memory", "value": json.dumps(value)}]),
    ]
    return world


def client(policy: str = "interleave:0-1", argv: str = HTTP, **more: object) -> Process:
    words = tuple(argv.split())
    known: dict[str, object] = {"cpus_allowed": (0, 1, 2, 3), "relation": "client", **more}
    return Process(77, 1, "curl", words, policy=policy, **known)


def copies(node_bytes: dict[int, int]) -> dict[str, object]:
    """Private copies of all tensors, as seen when the server made them."""
    size = sum(node_bytes.values())
    rows: list[dict[str, object]] = [
        {"t_ns": 3, "tgid": SERVER, "tid": SERVER, "addr": PRIVATE_AT + int(str(row["offset"])),
         "bytes": row["bytes"], "name": row["name"], "path": MODEL, "detail": "Q4_0"}
        for row in tensor_rows(size)
    ]  # fmt: skip
    return {"private": node_bytes, "extra": [("tensor_at", rows)]}


def gpu() -> Rows:
    return "map", [map_row(0x7100_0000_0000, MIB, "/dev/nvidia0", 9, "rw-s")]


def ollama(runner: str) -> dict[str, object]:
    serve = Process(500, 1, "ollama", ("/usr/bin/ollama", "serve"), relation="starter",
                    deployment=Deployment("ollama.service", "system"))  # fmt: skip
    return {"argv": tuple(runner.split()), "ppid": 500, "others": (serve,)}


SMALL = {"total": {0: GIB // 2}, "free": {0: 0}}
SCENARIOS: dict[str, tuple[World, str, list[str]]] = {
    "S1 one node holds all": (World(times=BOTH, policy="bind:0"), "fix", ["C1"]),
    "S1 and nothing says why": (World(times=STAY), "fix", ["C1"]),
    "S2 threads on the wrong node": (
        World(times=ON_1, policy="bind:0", cpus_allowed=(2, 3)), "fix", ["C2"],
    ),
    "S3 filled up, the rest elsewhere": (
        World(weights={0: 400 * MIB, 1: 600 * MIB}, times=ON_0, cpus_allowed=(0, 1), **SMALL),
        "fix", ["C3"],
    ),
    "S3 nothing fitted any more": (
        World(weights={1: 600 * MIB}, times=ON_0, cpus_allowed=(0, 1), **SMALL),
        "fix", ["C3"],
    ),
    "S3 under a preferred policy": (
        World(weights={0: 100 * MIB, 1: 600 * MIB}, times=ON_0, cpus_allowed=(0, 1),
              policy="prefer:0", **SMALL),
        "fix", ["C3"],
    ),
    "S4 threads hop over spread weights": (
        World(weights={0: 32 * MIB, 1: 32 * MIB}, times=BOTH[:2], policy="interleave:0-1",
              extra=[moves(60)]),
        "fix", ["C4"],
    ),
    "S4 threads hop, weights where they were first read": (
        World(times=BOTH[:2], extra=[moves(60)]), "fix", ["C4"],
    ),
    "S5 no node in common": (
        World(weights={1: 64 * MIB}, times=ON_0, cpus_allowed=(0, 1),
              cgroup=Cgroup({"": "/llm"}, cpus=(0, 1), mems=(1,))),
        "fix", ["C5"],
    ),
    "S5 a container with CPUs of two nodes and memory of one": (
        World(times=BOTH, cgroup=Cgroup(cpus=(0, 1, 2, 3), mems=(0,)),
              deployment=Deployment(container_kind="docker", container_id="a" * 64)),
        "fix", ["C5"],
    ),
    "S5 a container with CPUs only": (
        World(weights={1: 64 * MIB}, times=ON_0, cpus_allowed=(0, 1),
              cgroup=Cgroup(cpus=(0, 1), mems=(0, 1)),
              deployment=Deployment(container_kind="docker", container_id="a" * 64)),
        "fix", ["C5"],
    ),
    "S6 four threads on two CPUs": (
        World(times=[{0: 4 * SECOND}] * 4, cpus_allowed=(0, 1),
              cgroup=Cgroup(cpus=(0, 1), mems=(0,))),
        "fix", ["C6"],
    ),
    "S6 with a quota": (
        World(times=[{0: 4 * SECOND}] * 2, cpus_allowed=(0, 1), cgroup=Cgroup(quota_cpus=1.0)),
        "fix", ["C6"],
    ),
    "S7 page cache on the other node": (
        World(weights={1: 64 * MIB}, times=ON_0, cpus_allowed=(0, 1), policy="bind:0"),
        "fix", ["C7"],
    ),
    "S7 in a cpuset": (
        World(weights={1: 64 * MIB}, times=ON_0, cpus_allowed=(0, 1),
              cgroup=Cgroup({"": "/llm"}, cpus=(0, 1), mems=(0,))),
        "fix", ["C7"],
    ),
    "S7 spread was asked for": (
        World(times=BOTH, policy="interleave:0-1"), "fix", ["C7"],
    ),
    "S8 repacked on the loader's node": (
        World(weights={0: 32 * MIB, 1: 32 * MIB}, times=STAY, **copies({0: 64 * MIB})),
        "fix", ["C8"],
    ),
    "S9 the policy is the client's": (World(times=STAY, others=(client(),)), "fix", ["C9", "C1"]),
    "S9 with a repacked model": (
        World(weights={}, times=STAY, others=(client(),), **copies({0: 64 * MIB})),
        "fix", ["C9", "C8"],
    ),
    "S10 bound": (
        World(times=ON_0, cpus_allowed=(0, 1), policy="bind:0"), "healthy", [],
    ),
    "S10 and the client has a policy": (
        World(times=ON_0, cpus_allowed=(0, 1), policy="bind:0", others=(client("bind:1"),)),
        "healthy", [],
    ),
    "S11 spread, pinned": (
        World(weights={0: 5 * GIB, 1: 5 * GIB}, times=STAY, policy="interleave:0-1",
              free={0: GIB, 1: GIB}),
        "healthy", [],
    ),
    "S11 spread, a few moves a minute": (
        World(weights={0: 32 * MIB, 1: 32 * MIB}, times=BOTH, policy="interleave:0-1",
              extra=[moves(12, 4)]),
        "healthy", [],
    ),
    "S12 one node": (World(nodes={0: (0, 1)}, times=ON_0), "one-node", []),
    "S13 idle": (World(times=[{0: SECOND // 100}]), "withheld", []),
    "S14 balancing is on": (
        World(times=BOTH, policy="bind:0", numa_balancing="1"), "fix", ["C1"],
    ),
    "S15 private weights": (
        World(weights={}, times=BOTH, policy="bind:0", **copies({0: 64 * MIB})),
        "fix", ["C1"],
    ),
    "S16 the farthest of four": (
        World(nodes=FOUR_NODES, distances=UNEVEN, weights={3: 64 * MIB}, times=[{0: 8 * SECOND}],
              cpus_allowed=(0,), policy="bind:3"),
        "fix", ["C2"],
    ),
    "S16 threads everywhere": (
        World(nodes=FOUR_NODES, distances=UNEVEN, weights={3: 64 * MIB},
              times=[{node: 8 * SECOND} for node in range(4)]),
        "fix", ["C1"],
    ),
    "S17 much on a node without CPUs": (
        World(nodes={0: (0, 1), 1: (2, 3), 2: ()}, weights={0: 9 * MIB, 1: 9 * MIB, 2: 46 * MIB},
              times=STAY),
        "fix", ["C1"],
    ),
    "S17 a third of it, interleaved": (
        World(nodes={0: (0, 1), 1: (2, 3), 2: ()}, weights={0: 21 * MIB, 1: 21 * MIB, 2: 22 * MIB},
              times=STAY, policy="interleave:0-2"),
        "fix", ["C1"],
    ),
    "S18 nodes 0 and 2": (
        World(nodes={0: (0, 1), 2: (2, 3)}, weights={2: 64 * MIB}, times=ON_0, policy="bind:2",
              cpus_allowed=(0, 1)),
        "fix", ["C2"],
    ),
    "S19 a GPU is in use": (World(times=BOTH, policy="bind:0", extra=[gpu()]), "fix", ["C1"]),
    "S20 before 0.30": (
        World(times=STAY, comm="ollama", **ollama(f"/usr/bin/ollama runner --model {MODEL}")),
        "fix", ["C1"],
    ),
    "S20 since 0.30": (
        World(times=STAY, **ollama(f"/usr/lib/ollama/llama-server --model {MODEL}")),
        "fix", ["C1"],
    ),
    "S22 losses": (
        World(
            extra=[("fault", [{"t_ns": SECOND, "tgid": SERVER, "tid": SERVER, "addr": 4096,
                               "weight": 900}])],
            losses={"fault": 100},
        ),
        "withheld", [],
    ),
}  # fmt: skip
NUMBERED = {"C1": 1, "C2": 2, "C3": 3, "C4": 4, "C5": 5}


def judged(world: World) -> tuple[str, list[str]]:
    report = world.report()
    return report.verdict.kind, [finding.cause for finding in report.findings]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_situation_gets_its_cause_and_no_other(name: str) -> None:
    world, kind, found = SCENARIOS[name]
    report = world.report()
    assert (report.verdict.kind, [finding.cause for finding in report.findings]) == (kind, found)
    for finding in report.findings:
        document = finding.document
        assert (document.number if document else None) == NUMBERED.get(finding.cause)
        assert document is None or (document.command and len(document.shows) > 1)
        assert finding.refuted_by
        assert all(figure.unit and figure.source for e in finding.evidence for figure in e.figures)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if SCENARIOS[name][1] != "withheld"])
def test_every_cause_is_found_or_ruled_out_with_a_reason(name: str) -> None:
    report = SCENARIOS[name][0].report()
    named = [finding.cause for finding in report.findings]
    named += [ruled.cause for ruled in report.ruled_out]
    assert len(set(named)) == len(named)
    if report.verdict.kind != "one-node":
        assert sorted(named) == [f"C{number}" for number in range(1, 10)]
    assert all(ruled.why.endswith(".") for ruled in report.ruled_out)


def token(number: int) -> list[Rows]:
    """One token: three workers beside the main thread, made for it, each on its own CPU."""
    start = SECOND + number * SECOND // 4
    tids = [SERVER, *(SERVER + 10 * number + worker for worker in (1, 2, 3))]
    common = [{"tgid": SERVER, "tid": tid, "cpu": n, "node": n // 2} for n, tid in enumerate(tids)]
    return [
        ("fork", [{"t_ns": start, "ptgid": SERVER, "ptid": SERVER, **each} for each in common[1:]]),
        ("oncpu", [{"t_ns": start + SECOND // 5, "oncpu_ns": SECOND // 6, **each}
                   for each in common]),
        ("exit", [{"t_ns": start + SECOND // 5 + 1, **each} for each in common[1:]]),
    ]  # fmt: skip


def test_worker_threads_made_anew_for_every_token_are_one_slot_each() -> None:
    """S21: 4 slots, however many threads they were, on 4 CPUs."""
    rows = [row for number in range(20) for row in token(number)]
    report = World(times=[], policy="bind:0", extra=rows).report()
    assert [finding.cause for finding in report.findings] == ["C1"]
    assert sum(thread.role == "compute" for thread in report.threads) == 4


def test_the_server_and_not_its_client_is_what_c9_names() -> None:
    finding = SCENARIOS["S9 the policy is the client's"][0].report().findings[0]
    assert "pid 77" in finding.sentence
    assert f"pid {SERVER}" in finding.sentence
    assert "interleave:0-1" in finding.sentence


def test_what_is_on_a_node_without_cpus_is_named() -> None:
    finding = SCENARIOS["S17 much on a node without CPUs"][0].report().findings[0]
    assert "72 % of the weights is on node 2, which has no CPUs" in finding.sentence
