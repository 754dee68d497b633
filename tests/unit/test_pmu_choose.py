"""The precision ladder: which rung, and the reason in words."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from numatrace.record.pmu.choose import Choice, Chooser
from tests.unit.pmu_fake import calls, evlist, fake_perf

if TYPE_CHECKING:
    from pathlib import Path

DEVICES = "sys/bus/event_source/devices"
INTEL = "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: {}\nstepping\t: {}\n"
AMD = "vendor_id\t: AuthenticAMD\ncpu family\t: {}\nmodel\t\t: {}\nstepping\t: 1\n"
ARM = "CPU implementer\t: 0x41\nCPU part\t: {}\n"
SKYLAKE = INTEL.format(85, 4)
SAPPHIRE = INTEL.format(143, 8)
ZEN4 = AMD.format(25, 17)
ZEN5 = AMD.format(26, 2)
LOAD_LATENCY = ("cpu/format/ldlat", "cpu/events/mem-loads", "cpu/format/offcore_rsp")
IBS = ("ibs_op/format/cnt_ctl", "cpu/format/umask")
GOOD = {
    "__version": "echo perf version 6.12.1",
    "record": "exit 0",
    "evlist": evlist(),
    "stat": "echo '1000;;e;1;100.00;;' >&2",
}
SYNTAX = """echo "event syntax error: 'cpu/mem-loads,ldlat=30/P'" >&2; exit 129"""


def machine(root: Path, cpuinfo: str, *files: str) -> Path:
    """A machine of this CPU, with these files below its event sources."""
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text(cpuinfo)
    for name in files:
        path = root / DEVICES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("config:0-7\n")
    return root


def choose(root: Path, perf: str | None = "", operand: str = "", **options: object) -> Choice:
    return Chooser(root, perf, **options).choose(operand)  # type: ignore[arg-type]


def perf(folder: Path, **changed: str) -> str:
    return fake_perf(folder, **(GOOD | changed))


@pytest.mark.parametrize(
    ("cpuinfo", "files", "reason"),
    [
        (
            INTEL.format(1, 2),
            LOAD_LATENCY,
            "no table for this CPU: GenuineIntel family 6 model 1",
        ),
        (
            ARM.format("0xd46"),
            (),
            "no table for this CPU: Arm implementer 0x41 part 0xd46",
        ),
        ("", (), "no table for this CPU: of an unknown kind"),
        (SKYLAKE, (), f"no PMU: /{DEVICES} has no cpu"),
        (ZEN4, (), f"no PMU: /{DEVICES} has no ibs_op"),
        (ARM.format("0xd0c"), (), f"no PMU: /{DEVICES} has no arm_spe_0"),
        (SKYLAKE, LOAD_LATENCY, "perf is not installed"),
    ],
)
def test_why_not_without_perf(
    tmp_path: Path, cpuinfo: str, files: tuple[str, ...], reason: str
) -> None:
    choice = choose(machine(tmp_path, cpuinfo, *files))
    assert (choice.rung, choice.why) == ("operand", (reason,))
    assert reason in choice.sentence
    assert choice.sample is None
    assert choice.count is None


def test_the_third_rung_has_two_reasons(tmp_path: Path) -> None:
    choice = choose(machine(tmp_path, ZEN4), operand="BPF programs are not allowed")
    assert choice.rung == "residency"
    assert choice.why == (f"no PMU: /{DEVICES} has no ibs_op", "BPF programs are not allowed")


def test_a_counting_pmu_without_the_format_for_samples(tmp_path: Path) -> None:
    """As in many guests: cpu is there, and load latency is not."""
    root = machine(tmp_path, SKYLAKE, "cpu/format/umask")
    choice = choose(root, perf(tmp_path))
    assert choice.rung == "operand"
    assert choice.why == (f"no PMU: /{DEVICES}/cpu has no format/ldlat and no events/mem-loads",)
    assert choice.count is not None
    assert [count.counter for count in choice.count.counts] == [
        "reads.local", "reads.remote", "demand.local", "demand.remote",
    ]  # fmt: skip


def test_load_latency_and_the_counters_that_fit_beside_it(tmp_path: Path) -> None:
    choice = choose(machine(tmp_path, SKYLAKE, *LOAD_LATENCY), perf(tmp_path))
    assert (choice.rung, choice.why, choice.row) == ("hardware", (), "Skylake-SP")
    assert choice.version == "perf version 6.12.1"
    assert choice.sample is not None
    assert choice.sample.events == ("cpu/mem-loads,ldlat=30/P",)
    assert (choice.sample.hz, choice.sample.period, choice.sample.system_wide) == (199, 0, False)
    assert choice.count is not None
    assert [count.counter for count in choice.count.counts] == ["reads.local", "reads.remote"]
    assert choice.count_why == ("retired-demand: no counter is left for it",)
    for count in choice.count.counts:  # each was tried alone, under the name it is counted by
        assert f"stat -x; -e {count.argument} -- true" in calls(tmp_path)


def test_the_auxiliary_event_leads_where_sysfs_has_it(tmp_path: Path) -> None:
    root = machine(tmp_path, SAPPHIRE, *LOAD_LATENCY, "cpu/events/mem-loads-aux")
    choice = choose(root, perf(tmp_path))
    assert choice.sample is not None
    assert choice.sample.events == ("{cpu/mem-loads-aux/,cpu/mem-loads,ldlat=30/}:P",)
    assert choice.count is not None
    assert len(choice.count.counts) == 4  # eight counters


@pytest.mark.parametrize(
    ("cpuinfo", "extra", "event"),
    [
        (ZEN4, (), "ibs_op/cnt_ctl=1/"),
        (ZEN4, ("ibs_op/format/l3missonly",), "ibs_op/cnt_ctl=1,l3missonly=1/"),
        (
            ZEN5,
            ("ibs_op/format/l3missonly", "ibs_op/format/ldlat"),
            "ibs_op/cnt_ctl=1,l3missonly=1/",
        ),
        (ZEN5, ("ibs_op/format/ldlat",), "ibs_op/ldlat=128/"),
        (AMD.format(25, 1), ("ibs_op/format/l3missonly",), "ibs_op/cnt_ctl=1/"),  # Zen 3
    ],
)
def test_ibs_filters_are_taken_where_sysfs_has_them(
    tmp_path: Path, cpuinfo: str, extra: tuple[str, ...], event: str
) -> None:
    choice = choose(machine(tmp_path, cpuinfo, *IBS, *extra), perf(tmp_path))
    assert choice.sample is not None
    assert choice.sample.events == (event,)
    assert choice.count is not None
    assert len(choice.count.counts) == 4  # IBS takes none of the general counters


def test_an_event_that_follows_no_process_is_sampled_system_wide(tmp_path: Path) -> None:
    refuse = 'case "$*" in *" -a "*) exit 0;; esac; echo "Invalid argument" >&2; exit 255'
    choice = choose(machine(tmp_path, ZEN4, *IBS), perf(tmp_path, record=refuse))
    assert choice.sample is not None
    assert choice.sample.system_wide


def test_an_older_perf_does_without_the_newer_options(tmp_path: Path) -> None:
    old = (
        'case "$*" in *--synth*|*--control*) echo "  Error: unknown option \\`synth=no\'" >&2;'
        " exit 129;; esac"
    )
    choice = choose(machine(tmp_path, ZEN4, *IBS), perf(tmp_path, record=old))
    assert choice.sample is not None
    assert not choice.sample.modern


def test_a_refusal_is_told_in_perfs_words(tmp_path: Path) -> None:
    choice = choose(machine(tmp_path, SKYLAKE, *LOAD_LATENCY), perf(tmp_path, record=SYNTAX))
    assert choice.rung == "operand"
    (why,) = choice.why
    assert why.startswith("perf refused cpu/mem-loads,ldlat=30/P: ")
    assert "event syntax error" in why
    assert choice.count is not None  # what cannot sample may still count
    assert len(choice.count.counts) == 4


def test_a_wrapper_without_a_perf_behind_it(tmp_path: Path) -> None:
    missing = 'echo "WARNING: perf not found for kernel 5.15.0-1" >&2; exit 2'
    choice = choose(machine(tmp_path, ZEN4, *IBS), perf(tmp_path, __version=missing))
    assert choice.why == ("perf does not run here: WARNING: perf not found for kernel 5.15.0-1",)
    assert choice.count_why == choice.why


def test_samples_without_a_data_source_are_of_no_use(tmp_path: Path) -> None:
    bare = evlist(bits="IP|TID|TIME|ADDR|CPU|PERIOD")
    choice = choose(machine(tmp_path, ZEN4, *IBS), perf(tmp_path, evlist=bare))
    assert choice.rung == "operand"
    assert choice.why[0].endswith("its samples have no data source")


@pytest.mark.parametrize("verb", ["record", "stat", "evlist"])
def test_a_perf_that_hangs_costs_a_bounded_time(tmp_path: Path, verb: str) -> None:
    began = time.monotonic()
    hung = perf(tmp_path, **{verb: "sleep 60 & sleep 60"})
    choice = choose(machine(tmp_path, ZEN4, *IBS), hung, seconds=1.5)
    assert time.monotonic() - began < 20
    if verb == "stat":
        assert choice.rung == "hardware"
        assert choice.count is None
    else:
        assert choice.rung == "operand"


def test_counters_that_are_not_supported_are_left_out(tmp_path: Path) -> None:
    none = "echo '<not supported>;;e;0;100.00;;' >&2"
    choice = choose(machine(tmp_path, ZEN4, *IBS), perf(tmp_path, stat=none))
    assert choice.rung == "hardware"
    assert choice.count is None
    assert choice.count_why[0] == "any-fills: cpu/event=0x44,umask=0x08/ is not supported here"


def test_the_rate_stays_below_the_kernels_limit(tmp_path: Path) -> None:
    root = machine(tmp_path, ZEN4, *IBS)
    (root / "proc/sys/kernel").mkdir(parents=True)
    (root / "proc/sys/kernel/perf_event_max_sample_rate").write_text("100\n")
    choice = choose(root, perf(tmp_path), hz=5000)
    assert choice.sample is not None
    assert choice.sample.hz == 100


def test_arm_samples_by_period_and_counts_with_the_pmu_of_its_cores(tmp_path: Path) -> None:
    names = ("ts_enable", "load_filter", "store_filter", "min_latency")
    files = [*(f"arm_spe_0/format/{name}" for name in names), "armv8_pmuv3_0/format/event"]
    spe = evlist("arm_spe_0/ts_enable=1/", "IP|TID|TIME|ADDR|CPU|DATA_SRC|WEIGHT")
    root = machine(tmp_path, ARM.format("0xd40"), *files)
    choice = choose(root, perf(tmp_path, evlist=spe))
    assert choice.sample is not None
    assert (choice.sample.hz, choice.sample.period) == (0, 131072)
    assert choice.sample.own_clock
    assert choice.count is not None
    assert [count.event for count in choice.count.counts] == ["armv8_pmuv3_0/event=0x31/"]


@pytest.mark.parametrize("wanted", ["operand", "residency"])
def test_a_lower_rung_can_be_asked_for(tmp_path: Path, wanted: str) -> None:
    root = machine(tmp_path, ZEN4, *IBS)
    choice = Chooser(root, perf(tmp_path)).choose("", wanted)  # type: ignore[arg-type]
    assert choice.rung == wanted
    assert not any(call.startswith("record") for call in calls(tmp_path))
    assert choice.count is not None  # counters beside whatever samples
