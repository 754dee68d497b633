"""Plans: which are weighed, which is recommended, and why the others are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from numatrace.analyze.plans.candidates import candidates
from numatrace.analyze.plans.choose import Choice, choose, to_views
from numatrace.analyze.plans.predict import predict
from numatrace.model.machine import Links
from numatrace.model.process import Cgroup
from numatrace.model.topology import Performance
from tests.unit.plan_machine import GIB, MODEL, SECOND, TWO, Machine, finding

if TYPE_CHECKING:
    from numatrace.analyze.plans.plan import Plan

ON_0 = [{0: 8 * SECOND}] * 16
ON_1 = [{1: 8 * SECOND}] * 16
FOUR = {node: tuple(range(16 * node, 16 * node + 16)) for node in range(4)}
ON_FOUR = [dict.fromkeys(range(4), SECOND)] * 64


def best(machine: Machine, cause: str = "C1") -> Choice:
    chosen = choose(machine.situation(), finding(cause))[0]
    assert not chosen.why_not, chosen.why_not
    return chosen


def ids(machine: Machine) -> set[str]:
    return {plan.id for plan in candidates(machine.situation())}


def plan(machine: Machine, wanted: str) -> Plan:
    return next(each for each in candidates(machine.situation()) if each.id == wanted)


def share(machine: Machine, wanted: str) -> float:
    figure = predict(machine.situation(), plan(machine, wanted)).remote_share
    assert figure is not None
    return figure.value


def speed(machine: Machine, wanted: str) -> tuple[float, float, float]:
    figure = predict(machine.situation(), plan(machine, wanted)).speedup
    assert figure is not None
    assert figure.low is not None
    assert figure.high is not None
    return figure.low, figure.value, figure.high


# --- which are weighed


def test_all_kinds_are_weighed() -> None:
    crowded = Machine(threads_used=64, cgroup=Cgroup(cpus=tuple(range(16))), deployment="cgroup")
    assert {name.partition(":")[0] for name in ids(crowded)} == {
        "bind", "interleave", "distribute", "per-node", "threads", "cpuset", "balancing", "live"
    }  # fmt: skip
    assert ids(Machine()) == {
        "bind:0", "bind:1", "interleave:0-1", "distribute:0-1", "per-node:0-1", "live:0",
        "balancing:1",
    }  # fmt: skip


def test_only_programs_of_llama_cpp_are_distributed() -> None:
    assert "distribute:0-1" not in ids(Machine(argv=("ollama", "runner", "--model", MODEL)))


def test_repacked_weights_are_distributed_without_repacking() -> None:
    repacked = Machine(mapped={0: GIB}, private_weights={0: 7 * GIB})
    assert plan(repacked, "distribute:0-1").repack is False
    assert plan(Machine(), "distribute:0-1").repack is None


def test_near_nodes_are_weighed_together_where_distances_differ() -> None:
    pairs = {a: {b: 10 if a == b else 12 if a // 2 == b // 2 else 32 for b in FOUR} for a in FOUR}
    machine = Machine(nodes=FOUR, distances=pairs, times=ON_FOUR)
    near = plan(machine, "interleave:0-1")
    assert set(near.cpus) == {*FOUR[0], *FOUR[1]}
    assert "interleave:0-3" in ids(machine)
    assert "interleave:0-1" not in ids(Machine(nodes=FOUR, times=ON_FOUR))


# --- which is recommended


def test_binding_to_the_node_that_holds_the_weights_comes_first() -> None:
    chosen = best(Machine(mapped={1: 8 * GIB}))
    assert (chosen.plan.id, chosen.plan.evict) == ("bind:1", ())
    assert chosen.plan.threads == 16


def test_the_page_cache_is_dropped_where_weights_lie_elsewhere() -> None:
    machine = Machine(mapped={0: 6 * GIB, 1: 2 * GIB})
    assert best(machine).plan.evict == (MODEL,)
    private = Machine(mapped={}, private_weights={0: 6 * GIB, 1: 2 * GIB}, paths=())
    assert best(private).plan.evict == ()


def test_what_fits_on_no_node_is_spread() -> None:
    chosen = best(Machine(mapped={0: 50 * GIB}, free={0: 0, 1: 40 * GIB}), "C3")
    assert chosen.plan.id == "interleave:0-1"


def test_on_four_nodes_one_would_be_too_slow() -> None:
    """All four read one node's memory: spread over four it has four times the bandwidth."""
    machine = Machine(nodes=FOUR, times=ON_FOUR)
    assert best(machine).plan.id == "interleave:0-3"
    bound = next(each for each in choose(machine.situation(), finding("C1"))
                 if each.plan.id == "bind:0")  # fmt: skip
    assert bound.why_not.startswith("slower: ")


def test_a_node_without_cpus_is_never_bound_to() -> None:
    machine = Machine(nodes={**TWO, 2: ()}, mapped={2: 8 * GIB})
    assert best(machine).plan.id == "bind:0"
    assert not any("2" in name for name in ids(machine) if name.startswith(("bind", "cpuset")))


def test_numbers_with_a_hole_are_kept_and_not_distributed() -> None:
    machine = Machine(nodes={0: TWO[0], 2: TWO[1]}, mapped={2: 8 * GIB},
                      times=[{0: SECOND, 2: SECOND}] * 32)  # fmt: skip
    assert best(machine).plan.id == "bind:2"
    refused = {each.plan.id: each for each in choose(machine.situation(), finding("C1"))}
    assert "without a gap" in refused["distribute:0,2"].why_not


def test_the_gpus_node_comes_first_and_nothing_is_interleaved() -> None:
    machine = Machine(gpu=True, gpu_nodes=(1,))
    assert best(machine).plan.id == "bind:1"
    choices = choose(machine.situation(), finding("C1"))
    views = {view.id: view for view in to_views(choices, "bind:1")}
    assert "GPU" in views["interleave:0-1"].why_not
    assert "GPU is attached to node 1" in views["bind:0"].why_not
    full = Machine(gpu=True, gpu_nodes=(1,), free={1: 0})
    assert best(full).plan.id == "bind:0"


def test_a_node_that_was_bound_to_on_purpose_is_kept() -> None:
    """S7: bound to node 0 with an old page cache on node 1."""
    machine = Machine(mapped={1: 8 * GIB}, times=ON_0, allowed=TWO[0], policy="bind:0")
    chosen = best(machine, "C7")
    assert (chosen.plan.id, chosen.plan.evict) == ("bind:0", (MODEL,))
    assert chosen.prediction.node_bytes == {0: 8 * GIB}


def test_threads_on_the_wrong_node_go_to_the_weights() -> None:
    assert best(Machine(times=ON_1, allowed=TWO[1]), "C2").plan.id == "bind:0"


def test_too_many_threads_are_made_fewer_and_nothing_else() -> None:
    machine = Machine(times=[{0: SECOND}] * 32, cgroup=Cgroup(cpus=tuple(range(8))))
    chosen = best(machine, "C6")
    assert (chosen.plan.id, chosen.plan.nodes) == ("threads:8", ())
    assert chosen.prediction.node_bytes == {0: 8 * GIB}
    figure = chosen.prediction.speedup
    assert figure is not None
    assert figure.high is not None
    assert figure.high > 10


def test_too_many_threads_in_the_wrong_place_are_moved_as_well() -> None:
    machine = Machine(times=[{1: SECOND}] * 32, allowed=TWO[1])
    assert best(machine, "C6").plan.id == "bind:0"


def test_a_quota_limits_threads_like_cpus() -> None:
    machine = Machine(times=ON_0, cgroup=Cgroup(quota_cpus=4.5))
    assert best(machine, "C6").plan.threads == 4


def test_a_cgroup_that_holds_cpus_and_memory_apart_is_put_right() -> None:
    machine = Machine(
        mapped={1: 8 * GIB}, times=ON_0, deployment="cgroup", mems=(1,),
        cgroup=Cgroup(cpus=TWO[0], mems=(1,)),
    )  # fmt: skip
    chosen = best(machine, "C5")
    assert (chosen.plan.id, chosen.plan.cpus) == ("cpuset:1", TWO[1])
    machine.deployment = "docker"
    assert best(machine, "C5").plan.id == "cpuset:1"
    machine.deployment = "hand"
    assert all(each.why_not for each in choose(machine.situation(), finding("C5")))


def test_threads_that_hop_are_pinned() -> None:
    spread = Machine(mapped={0: 4 * GIB, 1: 4 * GIB})
    assert best(spread, "C4").plan.kind in ("bind", "distribute")
    large = Machine(mapped={0: 20 * GIB, 1: 20 * GIB}, free={0: 9 * GIB, 1: 9 * GIB})
    assert best(large, "C4").plan.id == "distribute:0-1"


def test_balancing_that_only_costs_is_switched_off() -> None:
    spread = Machine(mapped={0: 4 * GIB, 1: 4 * GIB}, balancing=1)
    assert best(spread, "C4").plan.id == "balancing:0"


def test_what_one_thread_filled_is_spread() -> None:
    repacked = Machine(mapped={0: GIB}, private_weights={0: 7 * GIB})
    assert best(repacked, "C8").plan.id == "interleave:0-1"
    assert best(Machine(mapped={}, private_weights={0: 8 * GIB}, paths=()), "C8").plan.id == (
        "interleave:0-1"
    )


def test_without_a_finding_nothing_is_recommended() -> None:
    """S11: at most an instance per node, with what it would bring."""
    choices = choose(Machine(mapped={0: 4 * GIB, 1: 4 * GIB}).situation(), None)
    assert choices
    assert all(each.why_not for each in choices)
    views = {view.id: view for view in to_views(choices, "")}
    assert not any(view.chosen for view in views.values())
    gain = views["per-node:0-1"].speedup
    assert gain is not None
    assert gain.value > 1.2


def test_others_say_why_not_and_what_stands_in() -> None:
    choices = choose(Machine().situation(), finding("C1"))
    assert all(each.why_not for each in choices[1:])
    assert [each.plan.id for each in choices if each.answers] == [
        "bind:0", "bind:1", "interleave:0-1", "distribute:0-1"
    ]  # fmt: skip
    views = to_views(choices, choices[0].plan.id)
    assert [view.chosen for view in views] == [True] + [False] * (len(views) - 1)


# --- what they would bring


def test_shares_and_bytes_of_each_kind() -> None:
    machine = Machine(mapped={0: 6 * GIB, 1: 2 * GIB})
    assert share(machine, "bind:0") == 0
    assert share(machine, "interleave:0-1") == pytest.approx(0.5)
    assert share(machine, "per-node:0-1") == 0
    assert share(machine, "distribute:0-1") < 0.05
    assert share(machine, "balancing:1") == pytest.approx(0.5)
    assert predict(machine.situation(), plan(machine, "interleave:0-1")).node_bytes == {
        0: 4 * GIB, 1: 4 * GIB
    }  # fmt: skip
    assert predict(machine.situation(), plan(machine, "per-node:0-1")).node_bytes == {
        0: 8 * GIB, 1: 8 * GIB
    }  # fmt: skip
    assert predict(machine.situation(), plan(machine, "live:0")).node_bytes == {0: 8 * GIB}


def test_page_cache_that_is_not_dropped_stays() -> None:
    machine = Machine(mapped={0: 98 * GIB // 10, 1: 2 * GIB // 10})
    bound = plan(machine, "bind:0")
    assert bound.evict == ()
    assert share(machine, "bind:0") == pytest.approx(0.02)


def test_threads_on_a_node_that_is_not_spread_over_read_from_afar() -> None:
    """Node 1 has no room, so the weights go to two of three nodes; its threads read remotely."""
    nodes = {node: FOUR[node] for node in range(3)}
    machine = Machine(nodes=nodes, total={1: GIB}, mapped={0: 8 * GIB},
                      times=[dict.fromkeys(nodes, SECOND)] * 48)  # fmt: skip
    assert share(machine, "interleave:0,2") == pytest.approx(2 / 3)


def test_threads_alone_read_from_where_the_weights_stay() -> None:
    half = (*TWO[0][:4], *TWO[1][:4])
    machine = Machine(mapped={0: 6 * GIB, 1: 2 * GIB}, allowed=half)
    assert share(machine, "threads:8") == pytest.approx(0.5)
    lopsided = Machine(mapped={0: 6 * GIB, 1: 2 * GIB}, allowed=(*TWO[0][:6], *TWO[1][:2]))
    assert share(lopsided, "threads:8") == pytest.approx(1 - 0.75 * 0.75 - 0.25 * 0.25)


def test_a_full_node_takes_what_it_can() -> None:
    machine = Machine(
        nodes={**TWO, 2: ()}, mapped={2: 60 * GIB}, total={0: 16 * GIB, 1: 16 * GIB},
        free={0: 16 * GIB, 1: 16 * GIB, 2: 0},
    )  # fmt: skip
    bytes_ = predict(machine.situation(), plan(machine, "interleave:0-2")).node_bytes
    assert sum(bytes_.values()) == 60 * GIB
    assert bytes_[0] == bytes_[1] == pytest.approx(15.68 * GIB, rel=0.01)


def test_what_is_read_locally_already_gains_nothing() -> None:
    """Threads that keep to their rows: measured, though the placement would say a half."""
    machine = Machine(mapped={0: 4 * GIB, 1: 4 * GIB}, measured=0.01)
    low, _, high = speed(machine, "distribute:0-1")
    assert low < 1 < high < 1.1


def test_predictions_without_threads_or_weights_are_unknown() -> None:
    for machine in (Machine(times=[]), Machine(mapped={})):
        found = predict(machine.situation(), plan(machine, "bind:0"))
        assert found.speedup is None


def test_measured_links_narrow_the_range_and_are_named() -> None:
    measured = Links(
        latency_ns={0: {0: 80, 1: 140}, 1: {0: 140, 1: 80}},
        bandwidth_bytes_s={0: {0: 90e9, 1: 34e9}, 1: {0: 34e9, 1: 90e9}},
    )
    even = {0: 4 * GIB, 1: 4 * GIB}
    guessed, known = Machine(mapped=even), Machine(mapped=even, links=measured)
    (low, _, high), (low_2, _, high_2) = (
        speed(each, "distribute:0-1") for each in (guessed, known)
    )
    assert high_2 - low_2 < high - low
    said = predict(known.situation(), plan(known, "interleave:0-1")).assumptions
    assert sum("--measure-links" in text for text in said) == 2
    assert any("1.6 to 1.9 times as long" in text for text in said)
    assert any("2.4 to 2.9 times the bandwidth" in text for text in said)
    assert not any("assumption" in text for text in said)


def test_distances_are_said_to_be_no_latencies() -> None:
    far = {0: {0: 10, 1: 21}, 1: {0: 21, 1: 10}}
    machine = Machine(distances=far)
    said = predict(machine.situation(), plan(machine, "bind:0")).assumptions
    assert any("not a latency" in text and "--measure-links" in text for text in said)


def test_memory_without_cpus_is_slow() -> None:
    """Of a CXL node HMAT may say how slow; otherwise it is taken to be."""
    nodes = {**TWO, 2: ()}
    machine = Machine(nodes=nodes, mapped={2: 8 * GIB})
    _, plain, _ = speed(machine, "bind:0")
    hmat = (
        Performance(0, (0, 1), 90, 90, 200_000, 200_000),
        Performance(1, (0, 1), 90, 90, 200_000, 200_000),
        Performance(2, (0, 1), 250, 250, 150_000, 150_000),
    )
    _, fast, _ = speed(Machine(nodes=nodes, mapped={2: 8 * GIB}, performance=hmat), "bind:0")
    assert plain > fast > 1
