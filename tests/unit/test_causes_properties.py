"""Whatever a trace holds, causes are judged without a crash, once each, and in order."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numatrace.model.process import Cgroup, Deployment, Process
from tests.unit.test_analyze_world import GIB, MIB, SECOND, World
from tests.unit.test_causes_scenarios import grow, moves

IDS = [f"C{number}" for number in range(1, 10)]
NAMES = st.text(max_size=12) | st.sampled_from(["numactl", "ollama", "$(reboot)", "\x1b[2J"])
COUNTERS = ("pswpin", "pswpout", "numa_hint_faults", "numa_pages_migrated", "pgsteal_direct",
            "workingset_refault_file")  # fmt: skip


@st.composite
def topologies(draw: st.DrawFn) -> dict[int, tuple[int, ...]]:
    numbers = draw(st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True))
    counts = [draw(st.integers(0, 3)) for _ in numbers]
    counts[0] = max(1, counts[0])
    begin = 0
    nodes = {}
    for number, count in zip(sorted(numbers), counts, strict=True):
        nodes[number] = tuple(range(begin, begin + count))
        begin += count
    return nodes


@st.composite
def worlds(draw: st.DrawFn) -> World:
    nodes = draw(topologies())
    cpus = tuple(cpu for each in nodes.values() for cpu in each)
    with_cpus = [node for node, each in nodes.items() if each]
    some_nodes = st.lists(st.sampled_from(list(nodes)), unique=True).map(sorted)
    some_cpus = st.lists(st.sampled_from(cpus), min_size=1, unique=True).map(
        lambda found: tuple(sorted(found))
    )
    bytes_ = st.dictionaries(
        st.sampled_from(list(nodes)), st.sampled_from([MIB, 3 * MIB, 64 * MIB, 5 * GIB])
    )
    times = st.dictionaries(
        st.sampled_from(with_cpus), st.sampled_from([SECOND // 100, SECOND, 8 * SECOND]), min_size=1
    )
    client = Process(7, 1, draw(NAMES)[:15], tuple(draw(st.lists(NAMES, max_size=3))),
                     policy=draw(st.sampled_from(["default", "bind:0", "interleave:0-1", "?"])),
                     cpus_allowed=draw(some_cpus), relation="client")  # fmt: skip
    world = World(
        nodes=nodes,
        total={node: draw(st.sampled_from([0, GIB, 64 * GIB])) for node in nodes},
        free={node: draw(st.sampled_from([0, 30 * MIB, GIB])) for node in nodes},
        policy=draw(st.sampled_from(["", "default", "bind:0", "prefer:1", "interleave:0-9", ":"])),
        cpus_allowed=draw(st.none() | some_cpus),
        cgroup=Cgroup({"": "/x"}, draw(st.just(()) | some_cpus), tuple(draw(some_nodes)),
                      draw(st.none() | st.sampled_from([0.01, 1.0, 2.5]))),
        deployment=Deployment(container_kind=draw(st.sampled_from(["", "docker", "lxc"]))),
        environment=draw(st.dictionaries(st.sampled_from(["OLLAMA_NUM_THREADS", "LLAMA_ARG_NUMA"]),
                                         st.text(max_size=5))),
        others=(client,),
        weights=draw(bytes_),
        private=draw(bytes_),
        times=draw(st.lists(times, max_size=5)),
        numa_balancing=draw(st.sampled_from(["0", "1", "2", "x"])),
        extra=[moves(draw(st.sampled_from([0, 5, 500])))],
    )  # fmt: skip
    return grow(world, **{name: draw(st.sampled_from([0, 10**4, 10**9])) for name in COUNTERS})


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_any_trace_is_judged(world: World) -> None:
    report = world.report()
    found = [finding.cause for finding in report.findings]
    assert (report.verdict.kind == "fix") == bool(found)
    named = found + [ruled.cause for ruled in report.ruled_out]
    if report.verdict.kind in ("fix", "healthy", "not-worth-fixing") and len(world.nodes) > 1:
        assert sorted(named) == IDS
    assert "C6" not in found[1:]
    # C9 may come before the causes that it explains: what it costs is theirs.
    lost = [f.lost_ns.value for f in report.findings if f.cause not in ("C6", "C9") and f.lost_ns]
    assert lost == sorted(lost, reverse=True)
    total = sum(sum(thread.oncpu_ns.values()) for thread in report.threads)
    for finding in report.findings:
        figure = finding.lost_ns
        if figure is not None:
            assert figure.low is None or 0 <= figure.low <= figure.value * 1.000001
            assert figure.value <= total * 1.000001
    if "C6" in found:
        assert len(world.times) > cpus_left(world)


def cpus_left(world: World) -> float:
    """CPUs that affinity, cpuset and quota leave the server; what leaves none does not count."""
    left = {cpu for each in world.nodes.values() for cpu in each}
    for given_cpus in (world.cpus_allowed or (), world.cgroup.cpus):
        left = left & set(given_cpus) or left
    return min(len(left), world.cgroup.quota_cpus or len(left))
