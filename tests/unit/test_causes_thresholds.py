"""Each cause's thresholds from both sides, and several causes at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from numatrace.analyze.causes import c4_scheduler
from numatrace.analyze.causes.base import WORTH_SHARE
from numatrace.model.process import Cgroup, Deployment
from tests.unit.test_analyze_world import GIB, MIB, SECOND, World
from tests.unit.test_causes_scenarios import (
    BOTH,
    ON_0,
    STAY,
    client,
    copies,
    grow,
    judged,
    moves,
)

if TYPE_CHECKING:
    from numatrace.model.findings import RuledOut
    from numatrace.model.report import Report

CPUS_0 = (0, 1)


def found(world: World) -> list[str]:
    return judged(world)[1]


def ruled(report: Report, cause: str) -> RuledOut:
    return next(each for each in report.ruled_out if each.cause == cause)


@pytest.mark.parametrize(("share", "cause"), [(74, []), (76, ["C1"])])
def test_three_quarters_on_one_half_of_the_nodes_is_an_imbalance(
    share: int, cause: list[str]
) -> None:
    two = World(weights={0: share * MIB, 1: (100 - share) * MIB}, times=STAY)
    assert found(two) == cause
    even = {0: share * MIB, 1: share * MIB, 2: (100 - share) * MIB, 3: (100 - share) * MIB}
    four = World(nodes={node: (node,) for node in range(4)}, weights=even,
                 times=[{node: 8 * SECOND} for node in range(4)])  # fmt: skip
    assert found(four) == cause


@pytest.mark.parametrize(("share", "cause"), [(9, []), (11, ["C1"])])
def test_a_tenth_on_a_node_without_cpus_is_named(share: int, cause: list[str]) -> None:
    nodes = {0: (0, 1), 1: (2, 3), 2: ()}
    half = (100 - share) * MIB // 2
    weights = {0: half, 1: half, 2: share * MIB}
    assert found(World(nodes=nodes, weights=weights, times=STAY)) == cause


@pytest.mark.parametrize(("share", "cause"), [(19, []), (22, ["C2"])])
def test_a_fifth_off_the_threads_node_is_affinity(share: int, cause: list[str]) -> None:
    world = World(weights={0: (100 - share) * MIB, 1: share * MIB}, times=ON_0, cpus_allowed=CPUS_0)
    assert found(world) == cause


@pytest.mark.parametrize(("free", "cause"), [(90, ["C2"]), (20, ["C3"])])
def test_a_node_with_too_little_room_is_c3_and_one_with_enough_is_not(
    free: int, cause: list[str]
) -> None:
    """100 MiB of weights, 40 of them here already: 60 more are needed, beside the reserve."""
    world = World(weights={0: 40 * MIB, 1: 60 * MIB}, times=ON_0, cpus_allowed=CPUS_0,
                  total={0: GIB}, free={0: free * MIB})  # fmt: skip
    assert found(world) == cause


@pytest.mark.parametrize(("share", "cause"), [(4, []), (20, ["C3"])])
def test_a_few_pages_elsewhere_are_no_spill(share: int, cause: list[str]) -> None:
    world = World(weights={0: (100 - share) * MIB, 1: share * MIB}, times=ON_0,
                  cpus_allowed=CPUS_0, total={0: 100 * MIB}, free={0: 0})  # fmt: skip
    assert found(world) == cause


@pytest.mark.parametrize(
    ("swapped", "free", "cause"),
    [(60 << 20, 10 * MIB, []), (70 << 20, 10 * MIB, ["C3"]), (70 << 20, GIB, [])],
)
def test_swapping_on_a_full_node_is_c3(swapped: int, free: int, cause: list[str]) -> None:
    world = World(times=ON_0, cpus_allowed=CPUS_0, policy="bind:0", total={0: 8 * GIB},
                  free={0: free})  # fmt: skip
    grow(world, pswpin=swapped // 8192, pswpout=swapped // 8192)
    assert found(world) == cause
    if cause:
        assert "swapped" in world.report().findings[0].sentence


@pytest.mark.parametrize(("absent", "cause"), [(2, []), (20, ["C3"])])
def test_files_read_again_count_where_some_of_the_model_is_gone(
    absent: int, cause: list[str]
) -> None:
    world = World(weights={0: 64 * MIB, -1: absent * MIB}, times=ON_0, cpus_allowed=CPUS_0,
                  policy="bind:0", free={0: 0})  # fmt: skip
    grow(world, workingset_refault_file=30_000)
    assert found(world) == cause


@pytest.mark.parametrize(("count", "cause"), [(7, ["C1"]), (9, ["C4"])])
def test_one_move_in_four_seconds_is_hopping(count: int, cause: list[str]) -> None:
    """In 32 seconds of CPU time, of threads that one node has the CPUs for."""
    times = [{0: 8 * SECOND, 1: 8 * SECOND}] * 2
    assert found(World(times=times, extra=[moves(count)])) == cause


@pytest.mark.parametrize(("count", "cause"), [(47, ["C1"]), (49, ["C4"])])
def test_threads_that_need_several_nodes_are_pushed_about_more(
    count: int, cause: list[str]
) -> None:
    """In 32 seconds of CPU time, of as many threads as there are CPUs."""
    assert found(World(times=BOTH, extra=[moves(count, 4)])) == cause


@pytest.mark.parametrize(("count", "cause"), [(4, ["C1"]), (5, ["C4"])])
def test_a_handful_of_moves_says_little_however_short_it_took(count: int, cause: list[str]) -> None:
    assert found(World(times=[{0: SECOND, 1: SECOND}] * 2, extra=[moves(count)])) == cause


@pytest.mark.parametrize(("away", "cause"), [(8, []), (12, ["C4"])])
def test_threads_that_come_back_at_once_do_not_hop(away: int, cause: list[str]) -> None:
    times = [{0: (100 - away) * SECOND // 10, 1: away * SECOND // 10},
             {0: away * SECOND // 10, 1: (100 - away) * SECOND // 10}]  # fmt: skip
    world = World(weights={0: 32 * MIB, 1: 32 * MIB}, times=times, extra=[moves(200)])
    assert found(world) == cause


def test_threads_tied_to_a_node_cannot_hop() -> None:
    world = World(times=BOTH[:2], cpus_allowed=CPUS_0, policy="bind:0", extra=[moves(200)])
    assert "C4" not in found(world)


def test_a_policy_that_put_the_weights_there_leaves_c1_beside_hopping_threads() -> None:
    assert found(World(times=BOTH, policy="bind:0", extra=[moves(200, 4)])) == ["C1"]


@pytest.mark.parametrize(("faults", "cause"), [(500_000, []), (1_100_000, ["C4"])])
@pytest.mark.parametrize("setting", ["0", "1"])
def test_balancing_counts_by_what_it_costs(faults: int, cause: list[str], setting: str) -> None:
    """3 % of 32 s are 0.96 s, or 960,000 hint faults of a microsecond."""
    world = World(weights={0: 32 * MIB, 1: 32 * MIB}, times=STAY, numa_balancing=setting)
    grow(world, numa_hint_faults=faults, numa_pages_migrated=0)
    assert found(world) == (cause if setting == "1" else [])


@pytest.mark.parametrize(("mems", "cause"), [((0, 1), ["C1"]), ((0,), ["C5"])])
def test_a_cpuset_with_less_memory_than_cpus_is_isolation(
    mems: tuple[int, ...], cause: list[str]
) -> None:
    assert found(World(times=STAY, cgroup=Cgroup(cpus=(0, 1, 2, 3), mems=mems))) == cause


@pytest.mark.parametrize(("kind", "cause"), [("docker", ["C5"]), ("", ["C2"])])
def test_cpus_without_memory_are_an_oversight_in_a_container_only(
    kind: str, cause: list[str]
) -> None:
    world = World(weights={1: 64 * MIB}, times=ON_0, cpus_allowed=CPUS_0,
                  cgroup=Cgroup(cpus=CPUS_0, mems=(0, 1)),
                  deployment=Deployment(container_kind=kind))  # fmt: skip
    assert found(world) == cause


@pytest.mark.parametrize(("threads", "cause"), [(2, []), (3, ["C6"])])
def test_one_thread_too_many_is_c6(threads: int, cause: list[str]) -> None:
    world = World(times=[{0: 4 * SECOND}] * threads, cpus_allowed=CPUS_0)
    assert found(world) == cause


@pytest.mark.parametrize(("quota", "cause"), [(2.0, []), (1.9, ["C6"])])
def test_a_quota_counts_as_so_many_cpus(quota: float, cause: list[str]) -> None:
    world = World(times=[{0: 4 * SECOND}] * 2, cpus_allowed=CPUS_0,
                  cgroup=Cgroup(quota_cpus=quota))  # fmt: skip
    assert found(world) == cause


def test_a_cpuset_counts_though_the_affinity_is_wider() -> None:
    world = World(times=[{0: 4 * SECOND}] * 3, cgroup=Cgroup(cpus=CPUS_0, mems=(0,)))
    assert found(world) == ["C6"]


def test_a_thread_that_hardly_runs_is_not_one_too_many() -> None:
    times = [*[{0: 8 * SECOND}] * 2, {0: SECOND // 2}]
    assert found(World(times=times, cpus_allowed=CPUS_0)) == []


def test_too_many_threads_are_found_on_one_node_as_well() -> None:
    report = World(nodes={0: (0, 1)}, times=[{0: 4 * SECOND}] * 4).report()
    assert (report.verdict.kind, [each.cause for each in report.findings]) == ("fix", ["C6"])


def test_what_too_many_threads_mask_is_said_not_to_be_judged() -> None:
    report = World(times=[*STAY, *STAY]).report()
    assert [finding.cause for finding in report.findings] == ["C6"]
    masked = ruled(report, "C1")
    assert not masked.judged
    assert "until C6" in masked.why


def test_confined_threads_are_judged_though_there_are_too_many() -> None:
    world = World(weights={1: 64 * MIB}, times=[*ON_0, *ON_0], cpus_allowed=CPUS_0,
                  policy="bind:0")  # fmt: skip
    assert found(world) == ["C6", "C7"]


@pytest.mark.parametrize(("share", "cause"), [(19, []), (22, ["C7"])])
def test_a_fifth_against_the_policy_is_stale(share: int, cause: list[str]) -> None:
    world = World(weights={0: (100 - share) * MIB, 1: share * MIB}, times=ON_0,
                  cpus_allowed=CPUS_0, policy="bind:0")  # fmt: skip
    assert found(world) == cause


def test_private_weights_are_no_page_cache() -> None:
    world = World(weights={}, times=ON_0, cpus_allowed=CPUS_0, policy="bind:0",
                  **copies({1: 64 * MIB}))  # fmt: skip
    assert found(world) == ["C2"]


def test_half_of_the_weights_in_private_memory_makes_it_first_touch() -> None:
    for private, cause in ((60, ["C1"]), (140, ["C8"])):
        world = World(weights={0: 100 * MIB}, times=STAY, **copies({0: private * MIB}))
        # Only one tensor was copied: the other is read where it is mapped.
        world.extra = [(kind, rows[:1]) for kind, rows in world.extra]
        assert found(world) == cause


@pytest.mark.parametrize(("away", "kind"), [(31, "not-worth-fixing"), (35, "fix")])
def test_what_costs_less_than_the_noise_is_not_worth_fixing(away: int, kind: str) -> None:
    """Remote memory that takes 1.1 times as long: a third of the reads costs 3 %."""
    near = {0: {0: 10, 1: 11}, 1: {0: 11, 1: 10}}
    times = [{0: (100 - away) * SECOND // 10, 1: away * SECOND // 10}]
    report = World(times=times, distances=near).report()
    assert report.verdict.kind == kind
    assert bool(report.findings) == (kind == "fix")
    if kind != "fix":
        assert "C1" in report.verdict.sentence
        assert "2.8 %" in report.verdict.sentence or "3 %" in report.verdict.sentence
        assert ruled(report, "C1").judged
        assert any("costs about" in each.text for each in report.verdict.reasons)


def test_time_lost_decides_over_the_order_and_is_said() -> None:
    report = World(times=BOTH, policy="bind:0").report()
    lost = report.findings[0].lost_ns
    assert lost is not None
    # 32 s, half of the reads remote, λ = 2 where the firmware says nothing: a quarter.
    assert lost.value == pytest.approx(8 * SECOND)
    assert lost.low is not None
    assert lost.high is not None
    assert 0 < lost.low < lost.value <= lost.high
    assert any("25 %" in each.text for each in report.findings[0].evidence)


def test_a_setting_of_the_client_is_no_finding_where_nothing_is_wrong() -> None:
    report = World(times=ON_0, cpus_allowed=CPUS_0, others=(client(),)).report()
    assert report.verdict.kind == "healthy"
    assert "without effect" in ruled(report, "C9").why
    assert any("pid 77" in line for line in report.corrections)


def test_a_server_with_a_policy_of_its_own_does_not_lack_the_clients() -> None:
    world = World(times=STAY, policy="bind:0", others=(client(),))
    assert found(world) == ["C1"]


@pytest.mark.parametrize(("name", "cause"), [("ollama", ["C9", "C1"]), ("curl", ["C1"])])
def test_a_client_tied_to_cpus_counts_where_it_was_surely_meant_for_the_server(
    name: str, cause: list[str]
) -> None:
    tied = client("default", f"{name} run llama", cpus_allowed=CPUS_0)
    assert found(World(times=STAY, others=(tied,))) == cause


def test_a_variable_that_nothing_reads_counts_with_too_many_threads_only() -> None:
    environment = {"OLLAMA_NUM_THREADS": "2"}
    crowded = World(times=[{0: 4 * SECOND}] * 4, cpus_allowed=CPUS_0, environment=environment)
    assert found(crowded) == ["C6", "C9"]
    crowded.times = [{0: 4 * SECOND}] * 2
    assert found(crowded) == []


@pytest.mark.parametrize(("value", "cause"), [("distribute", ["C1"]), ("mirror", ["C1", "C9"])])
def test_values_of_numa_that_do_not_exist(value: str, cause: list[str]) -> None:
    argv = ("llama-server", "-m", "/models/tiny.gguf", "--numa", value)
    assert found(World(times=STAY, argv=argv)) == cause


def test_the_thresholds_are_what_the_tests_above_take_them_for() -> None:
    assert (c4_scheduler.MOVES_PER_S, c4_scheduler.CROWDED_MOVES_PER_S) == (0.25, 1.5)
    assert (c4_scheduler.LEAST_MOVES, WORTH_SHARE) == (5, 0.03)
