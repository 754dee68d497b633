"""Every labelled situation gets its cause and no other."""

from __future__ import annotations

import pytest

from tests.unit.test_analyze_world import GIB, MIB, SECOND, World

BOTH = [{0: 4 * SECOND, 1: 4 * SECOND} for _ in range(4)]
NODE_0 = [{0: 8 * SECOND} for _ in range(2)]
NODE_1 = [{1: 8 * SECOND} for _ in range(2)]


def causes(world: World) -> tuple[str, list[str]]:
    report = world.report()
    return report.verdict.kind, [finding.cause for finding in report.findings]


def test_all_weights_on_one_node_and_threads_on_both_is_c1() -> None:
    report = World(weights={0: 64 * MIB}, times=BOTH, policy="bind:0").report()
    assert report.verdict.kind == "fix"
    assert [finding.cause for finding in report.findings] == ["C1"]
    finding = report.findings[0]
    assert finding.confidence == "high"
    assert "100 % of the weights is on node 0" in finding.sentence
    assert "50 % of their time on node 1" in finding.sentence
    shares = {share.remote_share.value for share in report.shares}
    assert shares == {0.5}
    assert all(share.remote_share.source == "model" for share in report.shares)


@pytest.mark.parametrize("away", [0, 1])
def test_threads_bound_to_the_other_node_is_c2(away: int) -> None:
    here = 1 - away
    world = World(
        weights={here: 64 * MIB},
        times=[{away: 8 * SECOND}] * 2,
        cpus_allowed=World().nodes[away],
    )
    assert causes(world) == ("fix", ["C2"])
    assert world.report().findings[0].confidence == "high"


@pytest.mark.parametrize("node", [0, 1])
def test_bound_to_one_node_is_healthy(node: int) -> None:
    world = World(
        weights={node: 64 * MIB}, times=[{node: 8 * SECOND}] * 2, policy=f"bind:{node}",
        cpus_allowed=World().nodes[node],
    )  # fmt: skip
    assert causes(world) == ("healthy", [])
    assert f"node {node}" in world.report().verdict.sentence


def test_spread_evenly_is_healthy_and_says_what_it_costs() -> None:
    report = World(weights={0: 32 * MIB, 1: 32 * MIB}, times=BOTH).report()
    assert (report.verdict.kind, report.findings) == ("healthy", ())
    assert "50 %" in report.verdict.sentence
    assert "price of spreading" in report.verdict.sentence


@pytest.mark.parametrize("share", range(0, 101, 5))
def test_between_even_and_all_on_one_node_there_is_always_an_answer(share: int) -> None:
    world = World(weights={0: share * MIB, 1: (100 - share) * MIB}, times=BOTH)
    kind, found = causes(world)
    imbalanced = max(share, 100 - share) > 75
    assert (kind, found) == (("fix", ["C1"]) if imbalanced else ("healthy", []))


def test_one_node_says_so_and_still_shows_threads_by_regions() -> None:
    report = World(nodes={0: (0, 1)}, times=[{0: 8 * SECOND}] * 2).report()
    assert report.verdict.kind == "one-node"
    assert "nothing is remote" in report.verdict.sentence
    assert {share.remote_share.value for share in report.shares} == {0.0}
    assert len(report.shares) == 2


def test_an_idle_server_gets_no_verdict() -> None:
    report = World(times=[{0: SECOND // 50, 1: SECOND // 50}]).report()
    assert report.verdict.kind == "withheld"
    assert "idle" in report.verdict.sentence
    assert any("answers requests" in reason.text for reason in report.verdict.reasons)


def test_losses_above_five_per_cent_withhold_the_verdict_and_are_counted() -> None:
    fault = {"t_ns": SECOND, "tgid": 1000, "tid": 1000, "addr": 4096, "weight": 900}
    world = World(extra=[("fault", [fault])], losses={"fault": 100})
    report = world.report()
    assert report.verdict.kind == "withheld"
    assert "100 of 1,000" in report.verdict.sentence
    assert any("--ring-pages" in reason.text for reason in report.verdict.reasons)
    world.losses = {"fault": 40}
    assert world.report().verdict.kind == "fix"


def test_four_nodes_with_the_weights_on_the_farthest() -> None:
    nodes = {0: (0,), 1: (1,), 2: (2,), 3: (3,)}
    everywhere = [{node: 8 * SECOND} for node in range(4)]
    world = World(nodes=nodes, weights={3: 64 * MIB}, times=everywhere)
    assert causes(world) == ("fix", ["C1"])
    bound = World(nodes=nodes, weights={3: 64 * MIB}, times=[{0: 8 * SECOND}], cpus_allowed=(0,))
    assert causes(bound) == ("fix", ["C2"])


@pytest.mark.parametrize("allowed", [None, (0, 1)])
def test_weights_on_a_node_without_cpus_is_c1_naming_it(allowed: tuple[int, ...] | None) -> None:
    world = World(
        nodes={0: (0, 1), 1: (2, 3), 2: ()}, weights={2: 64 * MIB, 0: MIB},
        times=BOTH if allowed is None else NODE_0, cpus_allowed=allowed,
    )  # fmt: skip
    report = world.report()
    assert [finding.cause for finding in report.findings] == ["C1"]
    assert "on node 2, which has no CPUs" in report.findings[0].sentence


def test_node_numbers_with_a_hole_are_kept() -> None:
    world = World(nodes={0: (0, 1), 2: (2, 3)}, weights={2: 64 * MIB}, times=[{0: 8 * SECOND}] * 2,
                  cpus_allowed=(0, 1))  # fmt: skip
    report = world.report()
    assert [finding.cause for finding in report.findings] == ["C2"]
    assert "node 2" in report.findings[0].sentence
    assert "node 1" not in str(report.to_json()["findings"])


def test_private_weights_are_judged_and_said_to_be_unknown() -> None:
    report = World(weights={}, private={0: 64 * MIB}).report()
    assert [finding.cause for finding in report.findings] == ["C8"]
    assert report.findings[0].confidence == "medium"
    assert any("tensors unknown" in each.text for each in report.findings[0].evidence)
    policy = World(weights={}, private={0: 64 * MIB}, policy="bind:0").report()
    assert [finding.cause for finding in policy.findings] == ["C1"]
    assert "tensors unknown" in policy.findings[0].sentence


def test_a_page_cache_that_a_policy_did_not_move_is_not_called_affinity() -> None:
    world = World(weights={1: 64 * MIB}, times=NODE_0, cpus_allowed=(0, 1), policy="bind:0")
    assert causes(world) == ("fix", ["C7"])


def test_a_node_that_was_too_small_is_not_called_affinity() -> None:
    world = World(
        weights={0: 400 * MIB, 1: 600 * MIB}, times=NODE_0, cpus_allowed=(0, 1),
        total={0: GIB // 2}, free={0: 0},
    )  # fmt: skip
    assert causes(world) == ("fix", ["C3"])


def test_nothing_present_or_nothing_recorded_is_withheld() -> None:
    assert causes(World(weights={-1: 64 * MIB})) == ("withheld", [])
    assert causes(World(weights={}, times=[])) == ("withheld", [])
    assert causes(World(times=[])) == ("withheld", [])


def test_a_thread_that_only_waits_does_not_count_as_compute() -> None:
    world = World(weights={0: 64 * MIB}, times=[*NODE_0, *[{1: SECOND // 10}] * 40])
    report = world.report()
    assert report.verdict.kind == "healthy"
    assert sum(thread.role == "compute" for thread in report.threads) == 2


def test_the_same_trace_gives_the_same_report() -> None:
    world = World(weights={0: 60 * MIB, 1: 4 * MIB}, private={0: 20 * MIB})
    assert world.report().to_json() == world.report().to_json()
