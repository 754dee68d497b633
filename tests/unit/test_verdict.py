"""The answer: every kind of verdict, when it is given, and that it gives its figures."""

from __future__ import annotations

import pytest

from tests.unit.test_analyze_world import MIB, SECOND, World
from tests.unit.test_causes_scenarios import ON_0, STAY, grow

SPREAD = {0: 32 * MIB, 1: 32 * MIB}


@pytest.mark.parametrize(
    ("world", "kind"),
    [
        (World(times=STAY), "fix"),
        (World(times=ON_0, cpus_allowed=(0, 1)), "healthy"),
        (World(weights=SPREAD, times=STAY), "healthy"),
        (World(times=STAY, distances={0: {0: 10, 1: 10}, 1: {0: 10, 1: 10}}), "not-worth-fixing"),
        (World(nodes={0: (0, 1)}, times=ON_0), "one-node"),
        (World(times=[]), "withheld"),
    ],
)
def test_every_kind_is_given_with_its_figures(world: World, kind: str) -> None:
    report = world.report()
    assert report.verdict.kind == kind
    assert report.verdict.reasons
    assert report.verdict.sentence.endswith(".")
    if kind not in ("withheld",):
        assert any(reason.figures for reason in report.verdict.reasons)
    assert bool(report.findings) == (kind == "fix")
    assert bool(report.ruled_out) == (kind != "withheld")


def test_only_a_fix_recommends_a_plan() -> None:
    for world, chosen in ((World(times=STAY), 1), (World(weights=SPREAD, times=STAY), 0)):
        plans = world.report().plans
        assert sum(plan.chosen for plan in plans) == chosen
        assert all(plan.chosen or plan.why_not for plan in plans)


def test_spread_weights_are_offered_one_instance_per_node_at_most() -> None:
    report = World(weights=SPREAD, times=STAY, policy="interleave:0-1").report()
    assert report.verdict.kind == "healthy"
    assert any(plan.id.startswith("per-node") for plan in report.plans)


def test_the_second_of_two_causes_points_to_the_fix_of_the_first() -> None:
    world = World(times=[{0: 4 * SECOND}] * 4, cpus_allowed=(0, 1), weights={1: 64 * MIB},
                  policy="bind:0")  # fmt: skip
    report = world.report()
    assert [finding.cause for finding in report.findings] == ["C6", "C7"]
    ids = [fix.id for finding in report.findings for fix in finding.fixes]
    assert len(set(ids)) == len(ids)


def test_one_look_at_memory_says_nothing_about_growth() -> None:
    world = World(times=ON_0, cpus_allowed=(0, 1), free={0: 0}, vmstat={"pswpin": 10**6})
    assert world.report().verdict.kind == "healthy"
    assert grow(world, pswpin=10**6).report().verdict.kind == "fix"
