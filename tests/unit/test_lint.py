"""The lint: every check fails what it is there for, and passes its neighbour."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numatrace.analyze.plans.candidates import candidates
from numatrace.analyze.plans.choose import choose, to_views
from numatrace.analyze.plans.lint import lint
from numatrace.analyze.plans.plan import Plan
from numatrace.analyze.plans.predict import predict
from numatrace.analyze.plans.room import need_bytes, room_bytes
from numatrace.model.process import Cgroup
from numatrace.model.topology import LOCAL_DISTANCE
from tests.unit.plan_machine import GIB, MODEL, SECOND, TWO, Machine, finding

BIND = Plan("bind", (0,), TWO[0], True, 16)
SPREAD = Plan("interleave", (0, 1), (*TWO[0], *TWO[1]), True, 32)
CAUSES = ("C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9")


def failed(machine: Machine, plan: Plan) -> str:
    return "; ".join(lint(machine.situation(), plan).failed)


def test_good_plans_pass_and_say_their_numbers() -> None:
    for plan in (BIND, SPREAD, replace(SPREAD, kind="distribute")):
        assert failed(Machine(), plan) == ""
    passed = lint(Machine().situation(), BIND).passed
    assert "16 compute threads for 16 CPUs" in passed
    assert any("8.0 GiB needed; node 0" in text for text in passed)
    assert all(passed)


@pytest.mark.parametrize(
    ("machine", "plan", "why"),
    [
        (Machine(), replace(BIND, nodes=(7,)), "no memory on node 7"),
        (Machine(), replace(BIND, nodes=()), "no node to keep memory on"),
        (Machine(), replace(BIND, cpus=(0, 99)), "CPUs 0,99 are not all there"),
        (Machine(), replace(BIND, cpus=()), "(none)"),
        (Machine(), replace(BIND, cpus=TWO[1]), "these CPUs are on node 1"),
        (Machine(nodes={**TWO, 2: ()}), replace(BIND, nodes=(2,)), "node 2: no CPUs there"),
        (Machine(), replace(BIND, threads=17), "17 compute threads for 16 CPUs: too many"),
        (Machine(), replace(BIND, threads=None), "32 compute threads for 16 CPUs: and how"),
        (Machine(), replace(BIND, kind="live", threads=None), "their number stays as it is"),
        (Machine(), replace(SPREAD, threads=33), "too many"),
        (Machine(free={0: 0}, mapped={1: 8 * GIB}), BIND, "8.0 GiB needed; node 0: only 0 B"),
        (Machine(absent=60 * GIB), BIND, "68 GiB needed"),
        (Machine(private={1: 60 * GIB}), BIND, "68 GiB needed"),
        (Machine(private={0: 30 * GIB, 1: 30 * GIB}, free={0: 0, 1: 0}),
         replace(SPREAD, kind="per-node", threads=16), "on each of nodes 0 and 1"),
        (Machine(mapped={0: 200 * GIB}), SPREAD, "200 GiB needed; nodes 0 and 1"),
        (Machine(gpu=True), SPREAD, "uses a GPU"),
        (Machine(gpu=True, gpu_nodes=(1,)), BIND, "attached to node 1"),
        (Machine(), replace(SPREAD, nodes=(0,)), "nothing to spread over"),
        (Machine(nodes={0: TWO[0], 2: TWO[1]}),
         replace(SPREAD, kind="distribute", nodes=(0, 2)), "without a gap"),
        (Machine(nodes={**TWO, 2: ()}), replace(SPREAD, kind="distribute"), "all have CPUs"),
        (Machine(argv=("ollama", "runner")), replace(SPREAD, kind="distribute"), "--numa"),
        (Machine(mapped={}, private_weights={0: GIB}, paths=()),
         replace(SPREAD, kind="distribute"), "one thread fills"),
        (Machine(cgroup=Cgroup(cpus=(0, 1))), BIND, "allows CPUs 0-1 only"),
        (Machine(mems=(1,)), BIND, "allows memory of node 1 only"),
        (Machine(cgroup=Cgroup(cpus=TWO[1]), deployment="cgroup"), BIND, "allows CPUs 16-31 only"),
        (Machine(balancing=1), Plan("balancing", (), (), False, None, balancing=1), "already"),
        (Machine(balancing=None), Plan("balancing", (), (), False, None, balancing=0), "no NUMA"),
    ],
)  # fmt: skip
def test_what_must_not_be_shown_fails(machine: Machine, plan: Plan, why: str) -> None:
    assert why in failed(machine, plan)


@pytest.mark.parametrize(
    ("machine", "plan"),
    [
        (Machine(), replace(SPREAD, threads=None)),
        (Machine(cgroup=Cgroup(cpus=(0, 1)), deployment="docker"), BIND),
        (Machine(cgroup=Cgroup(cpus=TWO[1]), deployment="cgroup"), replace(BIND, kind="cpuset")),
        (Machine(gpu=True, gpu_nodes=(1,), free={1: 0}), BIND),
        (Machine(gpu=True), BIND),
        (Machine(balancing=2), Plan("balancing", (), (), False, None, balancing=0)),
        (Machine(times=[{0: SECOND}] * 16), replace(BIND, kind="live", threads=None)),
        (Machine(mapped={0: 60 * GIB}, free={0: 4 * GIB}), BIND),
        (Machine(), Plan("threads", (), TWO[0], False, 16)),
    ],
)
def test_what_is_no_harm_passes(machine: Machine, plan: Plan) -> None:
    assert failed(machine, plan) == ""


# --- no machine, however odd, leads to a crash or to a plan that fails

NUMBERS = st.lists(st.integers(0, 1023), min_size=1, max_size=9, unique=True)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    numbers = sorted(draw(NUMBERS))
    nodes: dict[int, tuple[int, ...]] = {}
    next_cpu = draw(st.integers(0, 8))
    for number in numbers:
        count = draw(st.integers(0, 5))
        nodes[number] = tuple(range(next_cpu, next_cpu + count))
        next_cpu += count + draw(st.integers(0, 2))
    some = st.sampled_from([*numbers, 1023])
    sizes = st.integers(0, draw(st.sampled_from([1 << 12, GIB, 1 << 44])))
    on_nodes = st.dictionaries(st.sampled_from(numbers), sizes, max_size=len(numbers))
    cpus = st.lists(st.integers(0, next_cpu + 2), unique=True, max_size=8).map(
        lambda found: tuple(sorted(found))
    )
    distance = st.integers(LOCAL_DISTANCE, 254)
    online = [cpu for found in nodes.values() for cpu in found]
    return Machine(
        nodes=nodes,
        total=draw(st.one_of(st.just({}), on_nodes)),
        free=draw(st.one_of(st.just({}), on_nodes)),
        distances=draw(st.dictionaries(some, st.dictionaries(some, distance), max_size=4)),
        cores=draw(st.sampled_from([(), tuple(zip(online[::2], online[1::2], strict=False))])),
        mapped=draw(on_nodes),
        private_weights=draw(on_nodes),
        private=draw(on_nodes),
        absent=draw(sizes),
        paths=draw(st.sampled_from([(), (MODEL,), ("/a\n$(b)",)])),
        times=draw(st.lists(st.dictionaries(some, st.integers(0, 1 << 40)), max_size=12)),
        threads_used=draw(st.one_of(st.none(), st.integers(0, 5000))),
        argv=draw(st.sampled_from([
            ("llama-server", "-t", "64"), ("llama-server",), (), ("ollama", "runner"), ("x", "-t"),
        ])),
        allowed=draw(st.one_of(st.none(), cpus)),
        cgroup=Cgroup(
            cpus=draw(st.one_of(st.just(()), cpus)),
            quota_cpus=draw(st.one_of(st.none(), st.floats(0, 1e9))),
        ),
        mems=draw(st.one_of(st.just(()), st.lists(some, max_size=3, unique=True).map(tuple))),
        deployment=draw(st.sampled_from(["hand", "systemd", "docker", "cgroup", "lxc"])),
        policy=draw(st.sampled_from(["default", "bind:0", "interleave:0-1", "bind:9999999999"])),
        balancing=draw(st.sampled_from([None, 0, 1, 2])),
        gpu=draw(st.booleans()),
        gpu_nodes=tuple(draw(st.lists(some, max_size=2, unique=True))),
        measured=draw(st.one_of(st.none(), st.floats(0, 1))),
    )  # fmt: skip


@given(machines(), st.sampled_from([*CAUSES, None]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_machine_leads_to_a_crash_or_to_a_plan_that_fails(
    machine: Machine, cause: str | None
) -> None:
    now = machine.situation()
    choices = choose(now, finding(cause) if cause else None)
    assert {each.plan for each in choices} == set(candidates(now))
    recommended = [each for each in choices if not each.why_not]
    assert recommended in ([], [choices[0]] if choices else [])
    for each in recommended:
        assert cause is not None
        assert each.answers
        assert lint(now, each.plan).failed == []
        plan = each.plan
        assert set(plan.cpus) <= set(now.topology.cpu_to_node)
        assert set(plan.nodes) <= set(now.topology.nodes_with_memory)
        assert plan.threads is None or 1 <= plan.threads <= len(plan.cpus)
        assert not (machine.gpu and plan.kind == "interleave")
        if plan.kind in ("bind", "cpuset"):
            assert need_bytes(now) <= room_bytes(now, plan.node)
            assert {now.topology.cpu_to_node[cpu] for cpu in plan.cpus} == {plan.node}
    assert len(to_views(choices, "")) == len(choices)


@given(machines())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_predictions_stay_within_their_bounds(machine: Machine) -> None:
    now = machine.situation()
    most = max(1.05, 0.9 * len(now.topology.nodes))
    for plan in candidates(now):
        found = predict(now, plan)
        assert all(size >= 0 for size in found.node_bytes.values())
        weights = now.weights.present_bytes + now.weights.absent_bytes
        copies = len(plan.nodes) if plan.kind == "per-node" else 1
        if plan.kind not in ("threads", "balancing"):
            assert sum(found.node_bytes.values()) == weights * copies
        if found.remote_share is not None:
            low, high = found.remote_share.low, found.remote_share.high
            assert low is not None
            assert high is not None
            assert 0 <= low <= found.remote_share.value <= high <= 1
        if found.speedup is not None:
            low, high = found.speedup.low, found.speedup.high
            assert low is not None
            assert high is not None
            assert 0 < low <= found.speedup.value * (1 + 1e-9) <= high * (1 + 2e-9)
            if not any("wait for one another" in text for text in found.assumptions):
                assert high <= most + 1e-9
